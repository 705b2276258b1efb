"""Ends all ranks of a distributed job as soon as one of them fails or dies.

A rank that waits for another in a collective would wait for minutes (NCCL) or fail with a message
about a connection (gloo). So each rank keeps a connection to the first one: an error is told over
it before its rank ends, and the operating system closes it when a rank is killed.
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

_CONNECT = 60.0  # seconds for all ranks to connect
_FAREWELL = 10.0  # seconds for a rank to print its error and end
_CAUSE = 3.0  # seconds in which another rank's end, the cause of an error here, comes to be known

_LOST = "ended without a message, perhaps it was killed; the other ranks end, too"

_watch: _Watch | None = None


def watch_ranks() -> None:
    """Begin to watch the other ranks; call it on every rank. Further calls do nothing.

    From then on, an error that ends this process ends the others, too, and vice versa.

    Raises:
        OSError: If the ranks cannot connect.
    """
    global _watch
    rank, world = rank_and_world()
    if world > 1 and _watch is None:
        _watch = _Watch(rank, world)


def end_ranks(text: str, *, status: int) -> None:
    """Let the first rank print a line, and end all with an exit status; no watch: do nothing."""
    if _watch is not None:
        _watch.end_all(text, status=status, say=True)


class _Watch:
    """This rank's connections and what is to happen when one of them says or does something."""

    def __init__(self, rank: int, world: int) -> None:
        self._rank = rank
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._connections = self._connect(world)
        self._report = sys.excepthook
        sys.excepthook = self._fail
        atexit.register(self._finish)
        for other, connection in self._connections.items():
            name = f"watch-rank-{other}"
            arguments = (other, connection)
            threading.Thread(target=self._listen, args=arguments, daemon=True, name=name).start()

    def end_all(self, text: str, *, status: int, say: bool = False) -> NoReturn:
        """Tell the others that this rank has failed, wait until they have ended, and end."""
        if not self._begin_to_end():
            threading.Event().wait()  # another rank failed first: a listener ends this process
        self._tell({"rank": self._rank, "text": text, "status": status})
        if self._rank == 0:
            if say:
                print_error(text)
            for connection in self._connections.values():
                _wait_for_end(connection)
        _leave(status)

    def _connect(self, world: int) -> dict[int, socket.socket]:
        """Connect every rank with the first; a secret keeps strangers out."""
        server: socket.socket | None = None
        if self._rank == 0:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            server = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        port = int(server.getsockname()[1]) if server is not None else 0
        port, secret = from_first(lambda: (port, secrets.token_hex(16)))
        if server is None:
            address = os.environ["MASTER_ADDR"], port  # set where a process group is
            connection = socket.create_connection(address, timeout=_CONNECT)
            connection.sendall(json.dumps({"secret": secret, "rank": self._rank}).encode() + b"\n")
            return {0: _kept_alive(connection)}
        found: dict[int, socket.socket] = {}
        server.settimeout(_CONNECT)
        with server:
            while len(found) < world - 1:
                connection = _kept_alive(server.accept()[0])
                hello = _read(connection.makefile("rb"))
                if hello is not None and hello.get("secret") == secret:
                    found[int(hello["rank"])] = connection
        return found

    def _listen(self, other: int, connection: socket.socket) -> None:
        """Wait for what becomes of another rank."""
        said = _read(connection.makefile("rb"))
        if (said is not None and said.get("done")) or not self._begin_to_end():
            return
        end = said or {"rank": other, "text": _LOST, "status": 1}
        if self._rank == 0:
            self._tell(end)
            if said is not None:
                _wait_for_end(connection)  # it may be printing its error
        if self._rank == 0 or said is None:
            print_error(end["text"], rank=end["rank"])
        _leave(int(end["status"]))

    def _fail(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Report an error that ends this process, unless it follows from another rank's end."""
        if self._ending.wait(_CAUSE):
            threading.Event().wait()
        self._report(kind, error, trace)
        self.end_all(f"{kind.__name__}: {error}", status=1)

    def _finish(self) -> None:
        """Say that this rank ends because it is done."""
        if os.getpid() == self._process and self._begin_to_end():
            self._tell({"done": True})

    def _begin_to_end(self) -> bool:
        """Return whether this is the first reason for this process to end."""
        with self._lock:
            first = not self._ending.is_set()
            self._ending.set()
            return first

    def _tell(self, message: dict[str, Any]) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # it has ended itself
                connection.sendall(json.dumps(message).encode() + b"\n")


def _read(lines: Any) -> dict[str, Any] | None:
    """Return the next message, ``None`` where the connection was closed."""
    try:
        message = json.loads(lines.readline() or b"null")
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Let the operating system notice within half a minute that a machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


def _wait_for_end(connection: socket.socket) -> None:
    """Wait until a rank has ended, at most for a while."""
    with contextlib.suppress(OSError):  # too late
        connection.settimeout(_FAREWELL)
        while connection.recv(4096):
            pass


def _leave(status: int) -> NoReturn:
    """End the process though its main thread may wait in a collective."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
