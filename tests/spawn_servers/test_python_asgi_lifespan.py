"""ASGI's lifespan: start-up before a worker is ready, shutdown when it has served its last session, its state, and applications that know nothing of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from python_asgi import LOOPS, command

from passenger_trio.testing.conformance import FakeSupervisor, Loader, LoaderFailed, Message, eventually

pytestmark = pytest.mark.os
ON_BOTH = pytest.mark.parametrize("loop", LOOPS)

ANSWER = """
async def answer(send, body):
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"""
WHOLE = (
    ANSWER
    + """
import os
events = open(os.environ["EVENTS"], "a", buffering=1)

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["opened by"] = os.getpid()
        scope["state"]["shared"] = []
        events.write("up %d\\n" % os.getpid())
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        events.write("down %d\\n" % os.getpid())
        await send({"type": "lifespan.shutdown.complete"})
        return
    state = scope["state"]
    state["shared"].append(1)
    body = "%d %d %s" % (state["opened by"], len(state["shared"]), state.get("mine"))
    state["mine"] = "seen by nobody else"
    await answer(send, body.encode())
"""
)


@contextmanager
def serving(root: Path, source: str, *, preloaded: bool = False, **options: Any) -> Iterator[Loader]:
    (root / "app.py").write_text(source)
    with FakeSupervisor() as supervisor:
        env = {"EVENTS": str(root / "events")}
        loader = supervisor.start(
            command(preload=preloaded), root, "app.py", env=env, **{"app_type": "asgi", "threads": 10, **options}
        )
        yield supervisor.fork(loader) if preloaded else loader


def failure(root: Path, source: str, **options: Any) -> tuple[Message, Loader]:
    (root / "app.py").write_text(source)
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(
            command(), root, "app.py", wait=False, env={"EVENTS": str(root / "events")}, app_type="asgi", **options
        )
        with pytest.raises(LoaderFailed) as caught:
            loader.expect("ready")
        assert loader.exit_status() == 1
        return caught.value.message, loader


@ON_BOTH
@pytest.mark.parametrize("preloaded", [False, True], ids=["started", "forked"])
def test_it_is_run_in_each_worker(tmp_path: Path, loop: str, preloaded: bool) -> None:
    with serving(tmp_path, WHOLE, preloaded=preloaded, loop=loop) as worker:
        assert (tmp_path / "events").read_text() == f"up {worker.pid}\n"
        assert [worker.request().body.decode() for _ in range(2)] == [f"{worker.pid} 1 None", f"{worker.pid} 2 None"]
        worker.shut_down()
        worker.wait_gone()
        assert (tmp_path / "events").read_text() == f"up {worker.pid}\ndown {worker.pid}\n"


@ON_BOTH
def test_its_shutdown_comes_behind_the_last_session_and_what_that_does_after_its_response(
    tmp_path: Path, loop: str
) -> None:
    """A background task, as Starlette runs it: in the session, behind the response."""
    source = WHOLE.replace(
        "    state = scope",
        "    if scope['path'] == '/late': return await late(scope, receive, send)\n    state = scope",
    )
    source += textwrap.dedent(
        """
        import asyncio, sys
        async def late(scope, receive, send):
            await answer(send, b"early")
            sleep = sys.modules["trio"].sleep if "trio" in sys.modules else asyncio.sleep
            while not os.path.exists(os.environ["EVENTS"] + ".gate"):
                await sleep(0.002)
            events.write("late\\n")
        """
    )
    with serving(tmp_path, source, loop=loop) as worker, worker.open() as stream:
        assert stream.request("GET", "/late").body == b"early"
        # The stream is free although the application has not returned.
        assert stream.request("GET", "/").status == 200
        worker.shut_down()
        assert stream.ended()
        (tmp_path / "events.gate").touch()
        assert worker.exit_status() == 0
        assert (tmp_path / "events").read_text() == f"up {worker.pid}\nlate\ndown {worker.pid}\n"


@ON_BOTH
@pytest.mark.parametrize("told", ["as a message", "by raising behind it", "by waiting for more"])
def test_a_start_up_that_fails_is_a_start_that_failed(tmp_path: Path, loop: str, told: str) -> None:
    source = textwrap.dedent(
        """
        async def application(scope, receive, send):
            assert scope["type"] == "lifespan"
            await receive()
            try:
                {}["database"]
            except KeyError:
                await send({"type": "lifespan.startup.failed", "message": "KeyError: no 'database' here"})
                HOW
        """
    ).replace("HOW", {"as a message": "return", "by raising behind it": "raise"}.get(told, "await receive()"))
    message, loader = failure(tmp_path, source, loop=loop)
    assert message["category"] == "application"
    assert "failed in its start-up (lifespan): KeyError: " in message["summary"]
    assert "database" in message["traceback"]
    if told == "by raising behind it":
        assert '{}["database"]' in message["traceback"]
    errored = [step["name"] for step in loader.messages if step.get("state") == "errored"]
    assert errored == ["start_up"]
    assert "database" not in loader.output.text(), "the supervisor prints it (OP18): once"


@ON_BOTH
@pytest.mark.parametrize(
    ("reply", "is_told"),
    [
        ("raise ValueError('only HTTP here')", False),
        ("return", False),
        ("assert scope['type'] == 'http'", False),
        ("await receive(); raise ValueError('in the middle of it')", True),
    ],
)
def test_an_application_without_lifespan_is_served(tmp_path: Path, loop: str, reply: str, is_told: bool) -> None:
    """As the specification wants it; but what was raised by an application that was asked is to be read in the log."""
    source = ANSWER + textwrap.dedent(
        f"""
        async def application(scope, receive, send):
            if scope["type"] == "lifespan":
                {reply}
            else:
                await answer(send, str(scope["state"]).encode())
        """
    )
    with serving(tmp_path, source, loop=loop) as worker:
        assert worker.request().body == b"{}"
        assert ("in the middle of it" in worker.output.text()) == is_told
        assert ("raceback" in worker.output.text()) == is_told
        worker.shut_down()
        assert worker.exit_status() == 0


@ON_BOTH
def test_a_shutdown_that_fails_is_told_and_ends_all_the_same(tmp_path: Path, loop: str) -> None:
    source = WHOLE.replace("lifespan.shutdown.complete", "lifespan.shutdown.failed")
    with serving(tmp_path, source, loop=loop) as worker:
        worker.shut_down()
        assert worker.exit_status() == 0
        assert worker.output.wait_for("failed in its shutdown")


@ON_BOTH
def test_a_lifespan_that_ends_in_the_middle_is_told_and_serving_goes_on(tmp_path: Path, loop: str) -> None:
    source = WHOLE.replace(
        '        assert (await receive())["type"] == "lifespan.shutdown"', "        raise KeyError('lost it')"
    )
    with serving(tmp_path, source, loop=loop) as worker:
        assert worker.output.wait_for("KeyError: 'lost it'")
        assert worker.request().status == 200
        worker.shut_down()
        assert worker.exit_status() == 0


@ON_BOTH
def test_nothing_in_its_start_up_outlives_the_supervisor(tmp_path: Path, loop: str) -> None:
    source = textwrap.dedent(
        """
        import asyncio, sys
        async def application(scope, receive, send):
            open(__file__ + ".begun", "w").close()
            await (sys.modules["trio"].sleep if "trio" in sys.modules else asyncio.sleep)(60)
        """
    )
    (tmp_path / "app.py").write_text(source)
    for ending in ("hang up", "shutdown"):
        with FakeSupervisor() as supervisor:
            loader = supervisor.start(command(), tmp_path, "app.py", wait=False, app_type="asgi", loop=loop)
            assert eventually((tmp_path / "app.py.begun").exists)
            (tmp_path / "app.py.begun").unlink()
            if ending == "hang up":
                loader.close_control()
                assert loader.wait_gone() < 1.0
            else:
                loader.shut_down()
                assert loader.exit_status() == 0
