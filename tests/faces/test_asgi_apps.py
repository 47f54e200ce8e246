"""ASGI applications of real frameworks through the whole server, with a real client: FastAPI, Quart on Trio, Litestar, Channels.

Starts the command: where what is detected, the spawn method, several applications or the end are the subject.
"""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from faces_tools import APPS, clients

from passenger_trio.testing import RawClient, Supervisor, eventually
from passenger_trio.testing.live_app import LiveApp

pytestmark = pytest.mark.os

FASTAPI = APPS / "fastapi_live"
QUART = APPS / "quart_trio_live"
METHODS = pytest.mark.parametrize("method", ["smart", "direct"])


@METHODS
def test_fastapi(method: str) -> None:
    with Supervisor.start(FASTAPI, "--spawn-method", method, "--base-uri", "/shop") as server:
        told = server.ready["applications"][0]
        assert told["app_type"] == "asgi"
        assert told["reason"] == "main.py has `app`, a FastAPI application (ASGI)"
        assert told["concurrency"] == 100
        [process] = server.group()["processes"]
        assert process["concurrency"] == 100
        with httpx.Client(base_url=server.url + "/shop") as client:
            index = client.get("/?x=%20y").json()
            assert index == {
                "pid": process["pid"],
                "opened_by": process["pid"],
                "url": f"{server.url}/shop/?x=%20y",
            }
            assert client.get("/blocking").json() == {"pid": process["pid"]}
            assert client.post("/upload", content=b"x" * 3_000_000).json() == {"size": 3_000_000}
            assert client.post("/upload", content=iter([b"x" * 1000] * 50)).json() == {"size": 50_000}
            ticks = client.get("/ticks", params={"count": 3, "pause": 0})
            assert ticks.text == "tick 0\ntick 1\ntick 2\n"
            assert ticks.headers["Transfer-Encoding"] == "chunked"
            assert client.head("/").status_code == 405
            assert client.get("/openapi.json").json()["info"]["title"] == "FastAPI"
            failed = client.get("/raise")
            assert failed.status_code == 500
        server.wait_log("the application has a bug")
        assert server.stop() == 0
        assert server.wait_log("opened")
        assert server.wait_log("closed")


@pytest.mark.passenger(str(FASTAPI), max_concurrent_requests_per_process=3, max_pool_size=2)
def test_its_requests_share_a_process_as_far_as_it_is_told(live_app: LiveApp, tmp_path: Path) -> None:
    """``--max-concurrent-requests-per-process`` is what the pool's routing goes by: what is more waits, or gets another process."""
    gate, server = tmp_path / "gate", live_app.server
    with clients(8) as send:
        waiting = [send(live_app, f"/gate?path={gate}") for _ in range(3)]
        eventually(lambda: [process["sessions"] for process in server.group()["processes"]] == [3])
        waiting += [send(live_app, f"/gate?path={gate}") for _ in range(5)]
        eventually(lambda: sorted(process["sessions"] for process in server.group()["processes"]) == [3, 3])
        assert {process["concurrency"] for process in server.group()["processes"]} == {3}
        gate.touch()
        assert len({json.loads(one.result().body)["pid"] for one in waiting}) == 2


@pytest.mark.passenger(str(FASTAPI))
@pytest.mark.passenger_allow_leak("descriptors")  # the server keeps streams for the next requests
def test_one_process_serves_many_requests_at_a_time(live_app: LiveApp, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(40) as threads:
        waiting = [threads.submit(live_app.get, f"/gate?path={gate}") for _ in range(40)]
        eventually(lambda: [process["sessions"] for process in live_app.server.group()["processes"]] == [40])
        gate.touch()
        assert {one.result().status for one in waiting} == {200}


def leave_in_the_middle(live_app: LiveApp) -> float:
    """Seconds from the end of a client's connection to the moment at which the application noticed."""
    client = live_app.server.connect()  # without a tap, which would leave later
    before = len(live_app.log)
    client.send(b"GET /ticks HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while received.count(b"tick") < 3:
        received += client.receive()
    left = time.monotonic()
    client.close()

    def noticed() -> re.Match[str] | None:
        return re.search(r"left at ([0-9.]+)", "".join(line["event"] for line in live_app.log[before:]))

    found = eventually(noticed)
    assert found is not None
    return float(found[1]) - left


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(FASTAPI, marks=pytest.mark.passenger(str(FASTAPI))),
        pytest.param(QUART, marks=pytest.mark.passenger(str(QUART), loop="trio")),
    ],
    ids=["fastapi on asyncio", "quart on trio"],
)
def test_a_client_that_leaves_in_the_middle_of_a_response_is_noticed(
    live_app: LiveApp, app: Path, record_property: pytest.RecordProperty
) -> None:
    """Within 100 ms. A machine that is busy may be late, but not five times in a row; what looks only now and then is late every time."""
    tries = 0
    took = 1.0
    while took > 0.1 and tries < 5:
        took = leave_in_the_middle(live_app)
        tries += 1
    print(f"noticed after {took * 1000:.1f} ms")
    record_property("noticed_after_ms", round(took * 1000, 1))
    assert took <= 0.1
    eventually(lambda: live_app.server.group()["processes"][0]["sessions"] == 0)
    assert "Traceback" not in "".join(line["event"] for line in live_app.log)


def test_what_an_application_does_behind_its_response_holds_up_nobody(tmp_path: Path) -> None:
    """A background task: the client has its answer, its connection carries the next request, and the end waits for the task."""
    gate = tmp_path / "gate"
    with Supervisor.start(FASTAPI, "--max-pool-size", "1") as server, httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.post("/later", params={"path": str(gate)}).json() == {"accepted": True}
            assert client.get("/").status_code == 200
        assert "done later" not in server.log_tail
        gate.touch()
        assert server.stop() == 0
        server.wait_log("done later")
        server.wait_log("closed")


def test_a_start_up_that_fails_is_explained() -> None:
    with Supervisor.start(FASTAPI, "--env", "DATABASE=down") as server:
        page = httpx.get(server.url, headers={"Accept": "application/json"})
        assert page.status_code == 500
        error = page.json()["error"]
        assert "failed in its start-up (lifespan)" in page.text
        assert "the database is down" in page.text
        assert 'raise ConnectionError("the database is down")' in str(error).replace("\\'", "'")


@METHODS
def test_quart_on_trio(method: str) -> None:
    with Supervisor.start(QUART, "--spawn-method", method, "--loop", "trio") as server:
        assert server.ready["applications"][0]["reason"] == "app.py has `app`, a Quart application (ASGI)"
        with httpx.Client(base_url=server.url) as client:
            assert client.get("/").json()["path"] == "/"
            assert client.post("/upload", content=b"x" * 1_000_000).json() == {"size": 1_000_000}
            assert client.get("/nowhere").status_code == 404
        assert server.stop() == 0
        server.wait_log("opened")
        server.wait_log("closed")


def test_a_loop_that_the_applications_environment_has_not(tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / ".venv", with_pip=False)
    (tmp_path / "asgi.py").write_text("async def application(scope, receive, send): ...\n")
    with Supervisor.start(tmp_path, "--loop", "trio", env={"VIRTUAL_ENV": None}) as server:
        page = httpx.get(server.url, headers={"Accept": "application/json"})
        assert page.status_code == 500
        assert "--loop trio: the application's environment has no Trio" in page.text


async def hints(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        assert "http.response.early_hint" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
        await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.passenger(app=hints)
def test_early_hints_come_before_the_response(passenger_raw: RawClient) -> None:
    passenger_raw.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    interim, _, rest = passenger_raw.receive_all().partition(b"\r\n\r\n")
    assert interim.startswith(b"HTTP/1.1 103 ")
    assert b"link: </style.css>; rel=preload" in interim.lower()
    assert rest.startswith(b"HTTP/1.1 200 ")
    assert rest.endswith(b"\r\n\r\nhello")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Litestar's, which come and go with its version
def test_litestar(passenger_factory: Callable[..., LiveApp]) -> None:
    from litestar import Litestar, get

    @get("/greet/{name:str}", sync_to_thread=False)
    def greet(name: str) -> dict[str, str]:
        return {"hello": name}

    with passenger_factory(Litestar([greet])).client() as client:
        assert client.get("/greet/Zo%C3%AB").json() == {"hello": "Zoë"}


def test_whoever_says_wsgi_gets_an_error(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("async def app(scope, receive, send): ...\n")
    with Supervisor.start(tmp_path, "--app-type", "wsgi") as server:
        page = httpx.get(server.url, headers={"Accept": "application/json"})
        assert page.status_code == 500
        assert "is an ASGI application, not a WSGI application" in page.text
        assert "--app-type asgi" in page.text


def test_several_applications_of_a_file_each_with_its_own_loop(tmp_path: Path) -> None:
    (tmp_path / "passenger-trio.toml").write_text(
        textwrap.dedent(
            f"""
            [[app]]
            root = "{FASTAPI}"
            base_uri = "/fast"
            max_concurrent_requests_per_process = 7

            [[app]]
            root = "{QUART}"
            base_uri = "/quart"
            loop = "trio"

            [[app]]
            root = "{APPS / "demo"}"
            base_uri = "/demo"
            """
        )
    )
    with Supervisor.start(tmp_path) as server:
        assert [told["app_type"] for told in server.ready["applications"]] == ["asgi", "asgi", "wsgi"]
        assert [told["concurrency"] for told in server.ready["applications"]] == [7, 100, 1]
        assert httpx.get(f"{server.url}/fast/").json()["url"] == f"{server.url}/fast/"
        assert httpx.get(f"{server.url}/quart/").json()["path"] == "/"  # as Quart has it: without the root path
        assert httpx.get(f"{server.url}/demo/").status_code == 200


def test_channels(tmp_path: Path) -> None:
    """A Django project that uses Channels is served as ASGI, and its views by the router's HTTP side."""
    files = {
        "manage.py": 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")\n',
        "chat/__init__.py": "",
        "chat/settings.py": """
            SECRET_KEY = "x"
            ALLOWED_HOSTS = ["*"]
            ROOT_URLCONF = "chat.urls"
            INSTALLED_APPS = ["channels"]
            WSGI_APPLICATION = "chat.wsgi.application"
            ASGI_APPLICATION = "chat.asgi.application"
            """,
        "chat/urls.py": """
            import asyncio
            from django.http import JsonResponse, StreamingHttpResponse
            from django.urls import path

            async def hello(request):
                await asyncio.sleep(0)
                return JsonResponse({"path": request.path, "scheme": request.scheme})

            def plain(request):
                return JsonResponse({"query": request.GET["q"], "size": len(request.body)})

            async def stream(request):
                async def body():
                    for number in range(3):
                        yield b"%d\\n" % number
                return StreamingHttpResponse(body())

            urlpatterns = [path("hello/", hello), path("plain/", plain), path("stream/", stream)]
            """,
        "chat/asgi.py": """
            import os
            from channels.routing import ProtocolTypeRouter
            from django.core.asgi import get_asgi_application

            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
            application = ProtocolTypeRouter({"http": get_asgi_application()})
            """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    with Supervisor.start(tmp_path, "--base-uri", "/talk") as server:
        assert server.ready["applications"][0]["reason"].endswith(
            "whose ASGI_APPLICATION is chat.asgi.application, and it uses Channels"
        )
        assert httpx.get(f"{server.url}/talk/hello/").json() == {"path": "/talk/hello/", "scheme": "http"}
        assert httpx.get(f"{server.url}/talk/plain/?q=%C3%A4").json() == {"query": "ä", "size": 0}
        assert httpx.get(f"{server.url}/talk/stream/").text == "0\n1\n2\n"
        assert httpx.get(f"{server.url}/talk/nowhere/").status_code == 404
        # An application that has no lifespan is no news.
        assert "Traceback" not in server.log_tail
