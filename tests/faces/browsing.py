"""A real browser for tests: Chromium, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from needs import needs
from websockets.sync.client import ClientConnection, connect

from passenger_trio.testing import eventually

PICTURES = os.environ.get("PASSENGER_TRIO_PICTURES", "")
"""A directory for pictures, which the documentation has."""


class Browser:
    """Chromium, driven over its DevTools protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.recv(timeout=60))
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    def run(self, script: str) -> Any:
        return self.call("Runtime.evaluate", expression=script)["result"].get("value")

    @property
    def text(self) -> str:
        """What a reader sees."""
        return self.run("document.body.innerText") or ""

    def looks(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    @property
    def scrolls_sideways(self) -> bool:
        return not self.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    def press(self, word: str, within: str = "body") -> None:
        """Click on the first button of that word."""
        find = f"[...document.querySelectorAll('{within} button')].find((one) => one.innerText == '{word}')"
        assert self.run(f"!!{find}"), f"there is no button {word} in {within}"
        self.run(f"{find}.click()")

    def picture(self, name: str) -> None:
        """Keep what is seen, if pictures are wanted."""
        if PICTURES:
            data = self.call("Page.captureScreenshot", format="png")["data"]
            Path(PICTURES, name).write_bytes(base64.b64decode(data))


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """One that has nothing of its user's. :param home: an empty directory."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    needs(bool(program), "chromium")
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={home}",
    ]
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(home)}  # it leaves a directory there when it is ended
    with subprocess.Popen(
        [*command, "about:blank"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            ports = home / "DevToolsActivePort"
            port = eventually(lambda: ports.exists() and ports.read_text().split("\n")[0], timeout=60)
            pages = eventually(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json")), timeout=60)
            endpoint = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
            with connect(endpoint, max_size=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
