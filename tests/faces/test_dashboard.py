"""OB8: the dashboard of a running server: who gets in, what it refuses, and a browser that drives a restart and sees it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from faces_tools import BEHAVIOURS
from needs import needs
from websockets.sync.client import ClientConnection, connect

from passenger_trio.testing import RawClient, Response, Supervisor, eventually

pytestmark = pytest.mark.os


class Page:
    """A dashboard that runs, and what it answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self.host = parts.netloc
        self.address = ("127.0.0.1", parts.port or 0)
        self.token = parts.path.strip("/")

    def ask(self, path: str, *, host: str = "", form: str | None = None, origin: str = "") -> Response:
        """:param path: below the token, unless it begins with a slash."""
        target = path if path.startswith("/") else f"/{self.token}/{path}"
        fields = f"Host: {host or self.host}\r\n" + (f"Origin: {origin}\r\n" if origin else "")
        with RawClient(self.address) as client:
            if form is None:
                client.send(f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode())
            else:
                length = f"Content-Length: {len(form)}\r\n"
                client.send(f"POST {target} HTTP/1.1\r\n{fields}{length}\r\n{form}".encode())
            return client.read_response()


@contextmanager
def dashboard(server: Supervisor, *arguments: str) -> Iterator[Page]:
    directory = Path(str(server.ready["admin_socket"])).parent
    command = [sys.executable, "-m", "passenger_trio", "dashboard", "--instance", str(directory), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Page(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Supervisor]:
    with Supervisor.start(BEHAVIOURS, "--min-instances", "2") as it:
        yield it


@pytest.fixture(scope="module")
def page(server: Supervisor) -> Iterator[Page]:
    with dashboard(server, "--control") as it:
        yield it


def test_OB8_only_who_has_the_token_gets_in(page: Page) -> None:
    assert page.ask("").status == 200
    for path in ("/", "/status.json", f"/{page.token[:-1]}/", f"/{page.token}x/", "/favicon.ico"):
        assert page.ask(path).status == 404, path
    assert len(page.token) >= 32


def test_OB8_a_name_that_points_here_gets_nothing(page: Page) -> None:
    """DNS rebinding."""
    assert page.ask("", host=f"localhost:{page.address[1]}").status == 200
    for host in ("evil.example", f"evil.example:{page.address[1]}", "127.0.0.1"):
        assert page.ask("", host=host).status == 404


def test_OB8_orders_need_rights(server: Supervisor, page: Page) -> None:
    with dashboard(server) as read_only:
        assert read_only.ask("act", form="do=restart").status == 403
        assert "<button" not in read_only.ask("").text
    assert page.ask("act", form="do=restart", origin="http://evil.example").status == 403
    assert page.ask("act", form="do=shutdown").status == 400
    assert page.ask("act", form="do=detach&pid=x").status == 400
    assert page.ask("act", form="do=detach&pid=1").status == 409
    assert page.ask("act").status == 404
    assert page.ask("status.json", form="").status == 405


def test_OB8_without_javascript_it_is_plain_tables(server: Supervisor, page: Page) -> None:
    response = page.ask("")
    assert "<noscript><meta http-equiv=" in response.text
    for pid in server.pids:
        assert f"<td>{pid}</td>" in response.text
    policy = response.header("content-security-policy") or ""
    nonce = re.search("script-src 'nonce-([^']+)'", policy)
    assert nonce is not None
    assert response.text.count(f'nonce="{nonce[1]}"') == 2
    assert page.ask("").header("content-security-policy") != policy
    assert json.loads(page.ask("status.json").text)["pid"] == server.pid
    assert set(json.loads(page.ask("history.json").text)) == {"events", "failures"}


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


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    command = [
        program,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={home}",
    ]
    with subprocess.Popen([*command, "about:blank"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            ports = home / "DevToolsActivePort"
            port = eventually(lambda: ports.exists() and ports.read_text().split("\n")[0], timeout=60)
            pages = eventually(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json")), timeout=60)
            endpoint = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
            with connect(endpoint, max_size=None) as socket:
                yield Browser(socket)
        finally:
            process.terminate()


def test_OB8_a_browser_drives_a_restart_and_sees_it(server: Supervisor, page: Page, tmp_path: Path) -> None:
    """And the policy is one that the browser keeps: what is not ours does not run."""
    needs(shutil.which("chromium") or shutil.which("chromium-browser"), "chromium")
    generation = server.group()["generation"]
    with chromium(tmp_path) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        browser.call("Page.navigate", url=page.url)
        text = "document.body.innerText"
        eventually(lambda: "Serving" in (browser.run(text) or ""), timeout=60)
        assert browser.run("document.documentElement.scrollWidth <= 390"), "it scrolls sideways on a phone"
        browser.run(
            "window.stays = 1; document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')"
        )
        assert browser.run("[...document.querySelectorAll('button')].some((one) => one.innerText == 'Restart')")
        browser.run("[...document.querySelectorAll('button')].find((one) => one.innerText == 'Restart').click()")
        seen = f"restarted: generation {generation + 1} serves"
        eventually(lambda: seen in (browser.run(text) or ""), timeout=60)
        assert browser.run("window.ran") is None
    assert server.group()["generation"] == generation + 1
