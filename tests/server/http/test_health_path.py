"""OB3: the server's health at a path of the public listener, which exists only if ``--health-path`` names it."""

from __future__ import annotations

import pytest
from dummy_front import World, end, get, head, post, requests, respond, serving, simulated
from trio import Event, open_nursery
from trio.testing import wait_all_tasks_blocked

from passenger_trio.errors import OptionError
from passenger_trio.server.health_paths import HealthPaths, paths_of_health
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream


async def told(question: str, verbose: bool) -> tuple[int, bytes]:
    return (503 if question == "readyz" else 200), f"{question} {verbose}\n".encode()


def with_health(world: World, prefix: str = "/-/health") -> None:
    world.front.health = HealthPaths(prefix, told)


@pytest.mark.parametrize(
    ("prefix", "path"), [("/", "/livez"), ("/-/health", "/-/health/livez"), ("/-/health/", "/-/health/livez")]
)
def test_OB3_the_paths_are_below_the_named_one(prefix: str, path: str) -> None:
    paths = paths_of_health(prefix)
    assert paths[path.encode()] == "livez"
    assert sorted(paths.values()) == ["livez", "readyz", "startupz"]


@pytest.mark.parametrize("prefix", ["", "health", "//", "/a//b", "/a b", "/..", "/a?b", "/%41", "/é"])
def test_OB3_what_is_no_path_is_an_error_of_the_option(prefix: str) -> None:
    with pytest.raises(OptionError, match="--health-path"):
        paths_of_health(prefix)


@simulated
async def test_OB3_without_the_option_there_is_no_such_path() -> None:
    asked: list[str] = []
    async with serving(respond(lambda request: asked.append(request.path) or head() + end())) as world:  # type: ignore[func-returns-value]
        client = world.connect()
        for path in ("/livez", "/-/health/livez"):
            client.send(get(path))
            await client.answer()
    assert asked == ["/livez", "/-/health/livez"]


@simulated
async def test_OB3_it_is_answered_and_the_connection_goes_on() -> None:
    asked: list[str] = []
    async with serving(respond(lambda request: asked.append(request.path) or head() + end())) as world:  # type: ignore[func-returns-value]
        with_health(world)
        client = world.connect(trusted=False)
        answers = []
        for path in ("/-/health/livez", "/-/health/readyz?verbose", "/-/health/startupz?verbose=1&x", "/app"):
            client.send(get(path))
            answers.append(await client.answer())
        client.send(get("/-/health/readyz", method="HEAD"))
        quiet = await client.answer("HEAD")
        assert [(one.status, one.body) for one in answers[:3]] == [
            (200, b"livez False\n"),
            (503, b"readyz True\n"),
            (200, b"startupz True\n"),
        ]
        assert answers[0].headers["cache-control"] == "no-store"
        assert (quiet.status, quiet.body) == (503, b"")
        # Nothing else is taken: not a path that looks like it, nor another spelling.
        for path in ("/livez", "/-/health", "/-/health/", "/-/health/livez/", "/-/health/live%7A", "/-/healthlivez"):
            client.send(get(path))
            assert (await client.answer()).status == 200
    assert len(asked) == 7
    # In no count and no log: the sums of the metrics are those of the log.
    assert [record.target.decode() for record in world.records] == asked
    assert world.front.requests == 7


@simulated
async def test_OB3_it_takes_no_order() -> None:
    async with serving() as world:
        with_health(world)
        client = world.connect()
        client.send(post(b"x" * 10, "/-/health/livez"))
        refused = await client.answer()
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        await client.ended.wait()  # its body was not read


@simulated
async def test_OB3_no_application_is_asked_while_all_its_processes_are_busy() -> None:
    opens = Event()

    async def busy(process: DummyProcess, stream: RawStream) -> None:
        async for _ in requests(stream):
            await opens.wait()
            await stream.send_all(head() + end())

    async def wait(world: World) -> None:
        client = world.connect()
        client.send(get("/"))
        await client.answer()

    async with serving(busy) as world:
        with_health(world)
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, world)
            await wait_all_tasks_blocked()
            client = world.connect()
            client.send(get("/-/health/livez"))
            assert (await client.answer()).status == 200
            opens.set()
