"""OB8: the dashboard of a running server: who gets in, what it refuses, and a browser that drives restarts, a failing deployment and a rollback, and sees them.

Starts the command: its address, its token and its several applications are the subject.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import Browser, chromium
from faces_tools import BEHAVIOURS, write_app

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
    assert page.host.startswith("127.0.0.1:"), "nobody else's machine reaches it"
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as it:
        yield it


def test_OB8_a_browser_drives_a_restart_and_sees_it(server: Supervisor, page: Page, browser: Browser) -> None:
    """And the policy is one that the browser keeps: what is not ours does not run."""
    generation = server.group()["generation"]
    browser.looks(390, 844)
    browser.call("Page.navigate", url=page.url)
    eventually(lambda: "Serving" in browser.text, timeout=60)
    assert not browser.scrolls_sideways
    browser.run(
        "window.stays = 1; document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')"
    )
    browser.press("Restart")
    eventually(lambda: f"restarted: generation {generation + 1} serves" in browser.text, timeout=60)
    assert browser.run("window.ran") is None
    assert server.group()["generation"] == generation + 1


SHOP = """
import time
def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/slow"):
        time.sleep(600)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"version {version}"]
"""
SCREENS = ((1440, 1200, False), (1440, 1200, True), (390, 844, False), (390, 844, True))


@pytest.mark.parametrize("applications", [1, 40])
def test_OB8_a_browser_goes_through_a_failing_deployment_and_a_rollback(
    browser: Browser, tmp_path: Path, applications: int
) -> None:
    """With one application and with forty; at each stage the page is readable on a screen and on a phone, in the light and in the dark."""
    shop = tmp_path / "shop"

    def deploy(code: str) -> None:
        new = tmp_path / "new.py"
        new.write_text(code)
        new.replace(shop / "passenger_wsgi.py")

    shop.mkdir()
    deploy(SHOP.format(version=1))
    write_app(tmp_path / "site", SHOP.format(version=0))
    others = "".join(
        f'[[app]]\nroot = "site"\nname = "tenant-{number:02}"\nbase_uri = "/{number}"\nmin_instances = {number % 20 == 0:d}\n'
        for number in range(1, applications)
    )
    (tmp_path / "passenger-trio.toml").write_text(f'[[app]]\nroot = "shop"\nmin_instances = 2\n{others}')

    def everywhere(sentence: str, picture: str = "") -> None:
        for width, height, dark in SCREENS:
            browser.looks(width, height, dark=dark)
            assert not browser.scrolls_sideways, (sentence, width)
            first = browser.run("document.querySelector('.sentence').getBoundingClientRect().bottom")
            assert first < height / 2, "what is the matter is not seen at once"
            if picture:
                browser.picture(f"{picture}-{width}{'-dark' * dark}.png")
        browser.looks(1440, 1200)

    options = ("-e", "production", "--max-pool-size", "8", "--max-drain-time", "1s")
    with Supervisor.start(tmp_path, *options) as server, dashboard(server, "--control") as page:
        browser.looks(1440, 1200)
        browser.call("Page.navigate", url=page.url)
        eventually(lambda: "Serving; nobody waits." in browser.text, timeout=60)
        listed = "document.getElementById('applications').textContent"
        eventually(lambda: len(re.findall("tenant-|shop", browser.run(listed))) >= applications)  # drawn in steps
        everywhere("nobody waits", f"well-{applications}")

        deploy('raise RuntimeError("the table orders is missing")\n')
        browser.press("Restart", ".app")
        eventually(lambda: "shop serves the version before: its last restart failed" in browser.text, timeout=60)
        with server.connect() as slow:
            slow.send(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: "GET /slow" in browser.text)
            eventually(lambda: "restart failed: generation 2 does not start" in browser.text)
            assert "the table orders is missing" in browser.text
            assert server.get("/").body == b"version 1"
            everywhere("its last restart failed", f"failing-{applications}")
            browser.run("document.querySelector('.failures summary').click()")
            eventually(lambda: "Traceback" in browser.text)
            assert "✗ failed:" in browser.text, "the journey of the start"
            assert not browser.scrolls_sideways

        deploy(SHOP.format(version=1))
        browser.press("Restart", ".app")
        eventually(lambda: "restarted: generation 3 serves" in browser.text, timeout=60)
        eventually(lambda: "Serving; nobody waits." in browser.text, timeout=60)
        assert server.get("/").body == b"version 1"
        everywhere("nobody waits")
        browser.call("Page.navigate", url="about:blank")
