"""OB10 with real servers: in development a crash, a full queue and a timeout explain themselves; in production nothing does. Read by Chromium, too.

Starts the command: what it answers by itself is the subject, and one server is kept for all.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Browser, chromium
from faces_tools import BEHAVIOURS, Gate, clients, gate

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

KEY = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
LIMITS = [
    "--max-pool-size",
    "1",
    "--max-request-queue-size",
    "1",
    "--max-request-queue-time",
    "2s",
    "--max-request-time",
    "6s",
]


@pytest.fixture(scope="module")
def at_gate() -> Iterator[Gate]:
    with gate() as made:
        yield made


@pytest.fixture(scope="module")
def server(at_gate: Gate) -> Iterator[Supervisor]:
    with Supervisor.start(BEHAVIOURS, "--spawn-method", "direct", *LIMITS, *at_gate.arguments) as started:
        yield started


def explained(server: Supervisor, path: str) -> dict[str, Any]:
    method = "POST" if path.startswith(("/exit", "/kill")) else "GET"  # that one is not sent to a second process
    with server.connect() as client:
        answer = client.request(method, path, [("Accept", "application/json")])
    found: dict[str, Any] = json.loads(answer.body)["error"]
    assert found["status"] == answer.status
    server.wait_log(f'"request_id":"{found["id"]}"')
    return found


def test_OB10_a_crash_is_explained(server: Supervisor) -> None:
    """How the process ended, although its exit is seen after the end of its stream; and its last output without the key in it."""
    server.get(f"/print?{KEY}")
    error = explained(server, "/exit?7")
    assert (error["status"], error["code"]) == (502, "incomplete_response")
    assert error["ending"] == f"Process {error['pid']} ended: exit status 7."
    assert "printed: [redacted]" in error["output"]
    assert server.get("/pid").status == 200
    killed = explained(server, "/kill-me")
    assert killed["ending"] == f"Process {killed['pid']} ended: killed by signal 9 (SIGKILL)."


def test_OB10_a_full_queue_and_timeouts_are_explained(server: Supervisor, at_gate: Gate) -> None:
    """One process, one place in the queue: the first request has the one, the second the other until its time is over."""
    with clients(2) as send:
        running = send(server, "/gate?secret=1")
        pid = at_gate.wait_arrival()
        waiting = send(server, "/pid", Accept="application/json")
        eventually(lambda: server.group()["queue"] == 1, what="a request waits")
        full = explained(server, "/pid")
        assert (full["status"], full["code"], full["waiting"]) == (503, "queue_full", 1)
        assert "The limit is 1 request (--max-request-queue-size)" in full["solution"]
        assert [one["pid"] for one in full["processes"]] == [pid]
        [busy] = [one for one in full["requests"] if one["path"] == "/gate"]
        assert busy["pid"] == pid
        assert "secret" not in json.dumps(full)
        late = json.loads(waiting.result().body)["error"]
        assert (late["status"], late["code"]) == (504, "queue_timeout")
        assert "The limit is 2 s (--max-request-queue-time)" in late["solution"]
        answer = running.result()
        assert answer.status == 504
        for part in ("The request took too long", "The limit is 6 s (--max-request-time)", "What to try"):
            assert part in answer.text
        assert (
            f"Process {pid} ended: killed by signal 9 (SIGKILL) (a request exceeded max_request_time)." in answer.text
        )


def test_OB10_production_is_mute(at_gate: Gate) -> None:
    with Supervisor.start(
        BEHAVIOURS, "-e", "production", "--spawn-method", "direct", *LIMITS, *at_gate.arguments
    ) as server:
        for accept in ("text/html", "application/json"):
            answer = server.get("/exit?7", Accept=accept)
            assert answer.status == 502
            for word in ("exit status", "pid", "signal", "--max", "behaviours", "What to try"):
                assert word not in answer.text, answer.text


# -- in Chromium ------------------------------------------------------------------------------------------------------

LONG = "A_NAME_OF_A_VARIABLE_THAT_IS_LONGER_THAN_A_TELEPHONE_IS_WIDE"
BROKEN = """
import os
print("a line without a blank: " + "x" * 300, flush=True)
from wsgiref.simple_server import demo_app as application
raise RuntimeError("y" * 300)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(server: Supervisor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As a browser would get them: of a crash, and of an application that does not start."""
    root = tmp_path_factory.mktemp("broken")
    (root / "passenger_wsgi.py").write_text(BROKEN)
    with Supervisor.start(root, "--spawn-method", "direct", env={LONG: "z" * 300}) as broken:
        start = broken.get("/").text
    assert server.get("/print?" + "x" * 300).status == 200
    return {"What it wrote": server.post("/exit?3", b"").text, "Environment": start}


def look(browser: Browser, url: str, width: int, *, dark: bool, wanted: str) -> None:
    browser.looks(width, 844, dark=dark)
    browser.call("Page.navigate", url=url)
    eventually(lambda: wanted in browser.text, timeout=60, what=wanted)
    browser.run("document.querySelectorAll('details').forEach((one) => one.open = true)")


WIDEST = "Math.max(...[...document.querySelectorAll('*')].map((one) => Math.ceil(one.getBoundingClientRect().right)))"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_OB10_nothing_scrolls_sideways(browser: Browser, pages: dict[str, str], width: int, dark: bool) -> None:
    """Not the page, and nothing on it: long lines, long names and long values wrap. In the dark the page is dark."""
    for wanted, page in pages.items():
        look(browser, _data(page), width, dark=dark, wanted=wanted)
        assert not browser.scrolls_sideways
        assert browser.run(WIDEST) <= width, "something reaches over the edge"
        inside = "[...document.querySelectorAll('pre, table, section, details')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
        assert browser.run(inside) == 0, "something scrolls within the page"
        light = browser.run(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
        )
        assert (light < 200) == dark


SHOP = """
import os
import time

print("shop: connected to postgres://shop:hunter2@db/orders", flush=True)


def resize_picture():
    os.kill(os.getpid(), 11)


def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        print("shop: resizing the picture of order 1204", flush=True)
        print("imaging: width of the scan line is -1", flush=True)
        resize_picture()
    if environ["PATH_INFO"] == "/report":
        time.sleep(8)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def screenshots(to: Path) -> None:
    """The pictures of the documentation: ``python tests/faces/test_explained_requests.py docs``."""
    with tempfile.TemporaryDirectory() as home, chromium(Path(home) / "chromium") as browser:
        root = Path(home) / "shop"
        root.mkdir()
        (root / "passenger_wsgi.py").write_text(SHOP)

        def shot(name: str, page: str, width: int, height: int, *, dark: bool) -> None:
            look(browser, _data(page), width, dark=dark, wanted="What to try")
            browser.looks(width, height, dark=dark)
            taken = browser.call("Page.captureScreenshot", format="png")["data"]
            (to / name).write_bytes(base64.b64decode(taken))

        with (
            Supervisor.start(root, "--max-pool-size", "1", "--max-request-queue-size", "1") as server,
            clients(2) as send,
        ):
            server.get("/")
            shot("error-page-phone.png", server.post("/pictures", b"").text, 390, 1080, dark=True)
            server.get("/")
            answers = [send(server, "/report")]
            eventually(lambda: server.group()["processes"][0]["sessions"] == 1)
            answers.append(send(server, "/orders/1205"))
            eventually(lambda: server.group()["queue"] == 1)
            time.sleep(2)
            shot("error-page-queue.png", server.get("/orders/1206").text, 900, 700, dark=False)
            for answer in answers:
                answer.result()


def _data(page: str) -> str:
    return f"data:text/html;base64,{base64.b64encode(page.encode()).decode()}"


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]))
