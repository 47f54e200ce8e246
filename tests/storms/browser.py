"""A browser (headless Chromium) holds a WebSocket and an EventSource through a restart of the application: what it sees is what a user's page would.

    python tests/storms/browser.py [PATH OF CHROMIUM]

Goal: the WebSocket is closed with 1012, and the page connects anew to the new version; the EventSource is interrupted and connects anew by itself; nothing else goes wrong.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from passenger_trio.admin.client import order
from passenger_trio.testing import Supervisor, eventually

APP = """
import asyncio, json, os
HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = open(os.path.join(HERE, "version")).read()
PAGE = open(os.path.join(HERE, "page.html"), "rb").read()

async def application(scope, receive, send):
    async def answer(kind, body, more=False):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body, "more_body": more})

    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": "%s from %s" % (event["text"], VERSION)})
    elif scope["path"] == "/report":
        with open(os.path.join(HERE, "report"), "ab") as file:
            file.write((await receive())["body"] + b"\\n")
        await answer(b"text/plain", b"")
    elif scope["path"] == "/events":
        await answer(b"text/event-stream", b"retry: 200\\n\\n", True)
        while True:
            await send({"type": "http.response.body", "body": b"data: %s\\n\\n" % VERSION.encode(), "more_body": True})
            await asyncio.sleep(0.1)
    else:
        await answer(b"text/html", PAGE)
"""

PAGE = """<!doctype html><title>passenger_trio</title><script>
const seen = new Set();
function note(what) {
  if (!seen.has(what)) { seen.add(what); fetch("/report", { method: "POST", body: JSON.stringify(what) }); }
}
function connect() {
  const socket = new WebSocket(`ws://${location.host}/socket`);
  socket.onopen = () => socket.send("hello");
  socket.onmessage = message => note(`socket: ${message.data}`);
  socket.onclose = event => { note(`socket: closed with ${event.code}`); setTimeout(connect, 100); };
}
connect();
const events = new EventSource("/events");
events.onmessage = message => note(`events: ${message.data}`);
events.onerror = () => note("events: interrupted");
window.onerror = message => note(`error: ${message}`);
</script>"""

EXPECTED = {
    "socket: hello from one",
    "events: one",
    "socket: closed with 1012",
    "events: interrupted",
    "socket: hello from two",
    "events: two",
}

# Headless, and without what it would ask the network for.
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def storm(browser: str) -> set[str]:
    """What the page has noted."""
    with tempfile.TemporaryDirectory(prefix="pt-storm-") as directory, ExitStack() as stack:
        root = Path(directory, "app")
        root.mkdir()
        report = root / "report"
        report.touch()
        (root / "passenger_asgi.py").write_text(APP)
        (root / "page.html").write_text(PAGE)
        (root / "version").write_text("one")
        words = ["-e", "production", "--websocket-drain", "1", "--process-shutdown-timeout", "3"]
        server = stack.enter_context(Supervisor.start(root, *words))
        command = [browser, *CHROMIUM, f"--user-data-dir={directory}/profile", "--remote-debugging-port=0", server.url]
        chromium = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(chromium.wait, 30)
        stack.callback(chromium.terminate)

        def noted() -> set[str]:
            return {json.loads(line) for line in report.read_text().splitlines()}

        eventually(lambda: noted() >= {"socket: hello from one", "events: one"}, 30, "the page is connected")
        (root / "version").write_text("two")
        order(str(server.ready["admin_socket"]), "/v1/restart", {})
        eventually(lambda: noted() >= EXPECTED or None, 10, "the page is connected anew")
        return noted()


def main() -> int:
    browser = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium") or "chromium"
    found = storm(browser)
    for line in sorted(found):
        print(line)
    print("good" if found == EXPECTED else "MISSED")
    return 0 if found == EXPECTED else 1


if __name__ == "__main__":
    sys.exit(main())
