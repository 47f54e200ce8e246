"""Fault 27, ED10: what an application is shows when it is loaded. One that was taken for WSGI and is ASGI is served as ASGI; Quart-Trio gets Trio.

Starts the command: what it detects is the subject, and restarts by command.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faces_tools import APPS, HELLO, run_command, write_app

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

WRAPPED = """
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

app = FastAPI()

@app.get("/")
async def index():
    return "hello"

app = CORSMiddleware(app, allow_origins=["*"])
"""
METHOD = """
class Datasette:
    def app(self):
        async def application(scope, receive, send):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b'"hello"'})
        return application

application = Datasette().app()
"""
FUNCTION = """
async def serve(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b'"hello"'})

def make():
    def application(scope, receive, send):
        return serve(scope, receive, send)
    return application

application = [make()][0]
"""


@pytest.mark.parametrize("method", ["smart", "direct"])
@pytest.mark.parametrize("source", [WRAPPED, METHOD, FUNCTION], ids=["wrapped", "a method's result", "a function"])
def test_one_that_turns_out_to_be_asgi(tmp_path: Path, source: str, method: str) -> None:
    write_app(tmp_path, source, "app.py")
    with Supervisor.start(tmp_path, "--spawn-method", method, "--loop", "asyncio") as server:
        assert server.get("/").text == '"hello"'
        told = server.ready["applications"][0]
        group = server.group()
        assert (told["app_type"], group["app_type"]) == ("asgi", "asgi")
        assert [process["concurrency"] for process in group["processes"]] == [100]
        assert run_command("restart", "--wait", "--instance", str(server.instance_dir)).returncode == 0
        eventually(lambda: [process["concurrency"] for process in server.group()["processes"]] == [100])
        assert server.get("/").text == '"hello"'


def test_what_is_said_counts(tmp_path: Path) -> None:
    """``--app-type wsgi`` is no guess: it is an error, as it was."""
    write_app(tmp_path, METHOD, "app.py")
    with Supervisor.start(tmp_path, "--app-type", "wsgi") as server:
        page = server.get("/", Accept="text/html")
        assert page.status == 500
        assert "is an ASGI application, not a WSGI application" in page.text


def test_a_wsgi_application_stays_one(tmp_path: Path) -> None:
    write_app(tmp_path, HELLO)
    with Supervisor.start(tmp_path) as server:
        assert server.get("/").text == "hello"
        assert server.group()["app_type"] == "wsgi"
        assert server.group()["processes"][0]["concurrency"] == 1


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "wrapped"])
def test_quart_trio_needs_no_option(tmp_path: Path, wrapped: bool) -> None:
    source = (APPS / "quart_trio_live" / "app.py").read_text()
    if wrapped:
        source += "\nclass Wrapper:\n    def __init__(self, app):\n        self.app = app\n"
        source += "    async def __call__(self, scope, receive, send):\n        await self.app(scope, receive, send)\n"
        source += "\napp = Wrapper(app)\n"
    source += "\nimport sniffio\n@quart.get('/which')\nasync def which():\n    return sniffio.current_async_library()\n"
    write_app(tmp_path, source.replace("app = QuartTrio", "quart = app = QuartTrio"), "app.py")
    with Supervisor.start(tmp_path) as server:
        assert server.get("/which").text == "trio"
