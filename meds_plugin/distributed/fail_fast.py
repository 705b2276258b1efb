"""Ends all ranks of a distributed job as soon as one of them fails or dies.

A rank that waits for a dead one in a collective would wait for minutes (NCCL) or fail with an
unhelpful message about a connection (gloo). So each rank has a connection to the first one: a rank
reports an error over it before it ends, and the operating system closes it if a rank is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from meds_plugin.distributed.ranks import from_first, rank_and_world
from meds_plugin.utils.errors import print_error

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["end_ranks", "watch_ranks"]

_CONNECT_TIMEOUT = 60.0  # seconds for all ranks to connect
_GRACE = 10.0  # seconds for a rank to print its error and end
_BLAME = 3.0  # seconds to learn that another rank's end has caused an error here

_LOST = "ended without a message, perhaps it was killed; the other ranks end, too"

_watch: _Watch | None = None


def watch_ranks() -> None:
    """Start to watch the other ranks; call it on every rank. Further calls do nothing.

    From then on, an error that ends this process also ends the others, and vice versa.

    Raises:
        OSError: If the ranks cannot connect.
    """
    global _watch
    rank, world = rank_and_world()
    if world > 1 and _watch is None:
        _watch = _Watch(rank, world)


def end_ranks(text: str, *, status: int) -> None:
    """Let the first rank print a line, and end all with an exit status; no-op without a watch."""
    if _watch is not None:
        _watch.end_all(text, status=status, print_it=True)


class _Watch:
    """This rank's connections, and the reactions to messages and lost connections."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank = rank
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._connections = self._connect(world)
        self._print_traceback = sys.excepthook
        sys.excepthook = self._on_error
        atexit.register(self._on_exit)
        for other, connection in self._connections.items():
            name = f"watch-rank-{other}"
            arguments = (other, connection)
            threading.Thread(target=self._listen, args=arguments, daemon=True, name=name).start()

    def end_all(self, text: str, *, status: int, print_it: bool = False) -> NoReturn:
        """Tell the others that this rank has failed, let them end, and end."""
        if not self._claim_end():
            threading.Event().wait()  # another rank failed first: a listener ends this process
        self._send({"rank": self._rank, "text": text, "status": status})
        if self._rank == 0:
            if print_it:
                print_error(text)
            for connection in self._connections.values():
                _wait_for_end(connection)
        _end_process(status)

    def _connect(self, world: int) -> dict[int, socket.socket]:
        """Connect every rank to the first; a secret keeps other programs out."""
        server: socket.socket | None = None
        if self._rank == 0:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        port = int(server.getsockname()[1]) if server is not None else 0
        port, secret = from_first(lambda: (port, secrets.token_hex(16)))
        if server is None:
            address = os.environ["MASTER_ADDR"], port  # set where a process group is
            connection = socket.create_connection(address, timeout=_CONNECT_TIMEOUT)
            connection.sendall(json.dumps({"secret": secret, "rank": self._rank}).encode() + b"\n")
            return {0: _with_keepalive(connection)}
        found: dict[int, socket.socket] = {}
        server.settimeout(_CONNECT_TIMEOUT)
        with server:
            while len(found) < world - 1:
                connection = _with_keepalive(server.accept()[0])
                hello = _read(connection.makefile("rb"))
                if hello is not None and hello.get("secret") == secret:
                    found[int(hello["rank"])] = connection
        return found

    def _listen(self, other: int, connection: socket.socket) -> None:
        """Wait for another rank's message or end."""
        said = _read(connection.makefile("rb"))
        if (said is not None and said.get("done")) or not self._claim_end():
            return
        end = said or {"rank": other, "text": _LOST, "status": 1}
        if self._rank == 0:
            self._send(end)
            if said is not None:
                _wait_for_end(connection)  # it may still be printing its error
        if self._rank == 0 or said is None:
            print_error(end["text"], rank=end["rank"])
        _end_process(int(end["status"]))

    def _on_error(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Report an error that ends this process, unless another rank's end has caused it."""
        if self._ending.wait(_BLAME):
            threading.Event().wait()
        self._print_traceback(kind, error, trace)
        self.end_all(f"{kind.__name__}: {error}", status=1)

    def _on_exit(self) -> None:
        """Tell the others that this rank is done."""
        if os.getpid() == self._process and self._claim_end():
            self._send({"done": True})

    def _claim_end(self) -> bool:
        """Return whether this is the first reason for this process to end."""
        with self._lock:
            first = not self._ending.is_set()
            self._ending.set()
            return first

    def _send(self, message: dict[str, Any]) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # the other has ended
                connection.sendall(json.dumps(message).encode() + b"\n")


def _read(lines: Any) -> dict[str, Any] | None:
    """Return the next message, ``None`` if the connection was closed."""
    try:
        message = json.loads(lines.readline() or b"null")
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _with_keepalive(connection: socket.socket) -> socket.socket:
    """Let the operating system notice a lost machine within half a minute."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


def _wait_for_end(connection: socket.socket) -> None:
    """Wait until a rank has ended, for a limited time."""
    with contextlib.suppress(OSError):  # it has ended, or time is up
        connection.settimeout(_GRACE)
        while connection.recv(4096):
            pass


def _end_process(status: int) -> NoReturn:
    """End the process even if its main thread waits in a collective."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
