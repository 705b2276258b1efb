"""Firefox without a window and without a driver of its own: it speaks WebDriver BiDi itself."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Firefox", "firefox"]


class Firefox:
    """One tab.

    Args:
        socket: Connection to a running Firefox.
        process: Its process id.
    """

    def __init__(self, socket: Any, process: int) -> None:
        self._socket = socket
        self._numbers = itertools.count()
        self.process = process
        self._send("session.new", capabilities={})
        self._tab = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def get(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._send("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self._send("browsingContext.setViewport", context=self._tab, viewport=size)

    def ask(self, expression: str) -> Any:
        """Return the value, or what a promise comes to, of an expression, by way of JSON."""
        answer = self._send(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression})))()",
            target={"context": self._tab},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"].get("value", "null"))

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._send("input.performActions", context=self._tab, actions=[source])

    def screenshot(self) -> bytes:
        """Return a PNG file."""
        answer = self._send("browsingContext.captureScreenshot", context=self._tab)
        return base64.b64decode(answer["data"])

    def _send(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]


@contextlib.contextmanager
def firefox(*, dark: bool = False) -> Iterator[Firefox]:
    """Start Firefox with a profile of its own.

    Where there is none, the test is skipped; with ``MEDS_NEED_BROWSER`` set, it fails.

    Args:
        dark: Ask pages for dark colours.
    """
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed")
    program = shutil.which("firefox") or shutil.which("firefox-esr")
    if program is None:
        absent = pytest.fail if "MEDS_NEED_BROWSER" in os.environ else pytest.skip
        absent("no Firefox here (Debian: firefox-esr)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        theme = f'user_pref("layout.css.prefers-color-scheme.content-override", {int(not dark)});'
        (Path(profile) / "user.js").write_text(theme)
        command = [program, "--headless", "--profile", profile, "--remote-debugging-port=0"]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            where = Path(profile) / "WebDriverBiDiServer.json"
            for _ in range(600):
                if where.is_file() and where.read_text().endswith("}"):
                    break
                time.sleep(0.05)
            server = json.loads(where.read_text())
            address = f"ws://{server['ws_host']}:{server['ws_port']}/session"
            socket = websocket.create_connection(address, suppress_origin=True)
            yield Firefox(socket, started.pid)
        finally:
            started.terminate()
            started.wait()
