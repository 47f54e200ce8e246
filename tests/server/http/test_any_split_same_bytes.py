"""However the bytes come, from the client and from the worker, at once or in pieces, quickly or slowly: the client gets the same.

Pipelined requests on one side, their responses as frames on the other; both cut anywhere, with pauses anywhere, so that the patience of the fast
plain_parser ends anywhere. The run that is compared with has no cuts and no pauses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import attrs
import h11
import pytest
import trio
import trio.testing
from dummy_front import data, end, error, get, head, interim, requests, serving, simulated, without_date
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.core.policy_limits import PoolLimits
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.server.http.stage import FAST_PATH_TIMEOUT
from passenger_trio.spawning.dummy import DummyProcess
from passenger_trio.system.raw_stream import RawStream

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _no_log() -> Iterator[None]:
    """Thousands of faults are not worth a line each."""
    logger = logging.getLogger("passenger_trio")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@attrs.frozen
class Scene:
    """Requests in turn, and what the worker answers to each."""

    wires: tuple[bytes, ...]
    answers: tuple[tuple[bytes, bool], ...]
    """The bytes, and whether the worker closes its stream behind them."""


@attrs.frozen
class Cuts:
    """Where bytes are cut, in parts of a thousand of their length, and how long the pause is at each cut."""

    at: tuple[tuple[int, float], ...] = ()

    def apply(self, wire: bytes) -> list[tuple[bytes, float]]:
        pieces = []
        begun = 0
        for place, pause in (*sorted(self.at), (1000, 0.0)):
            until = len(wire) * place // 1000
            if until > begun:
                pieces.append((wire[begun:until], pause))
                begun = until
        return pieces


async def put(stream: RawStream, pieces: list[tuple[bytes, float]]) -> None:
    for piece, pause in pieces:
        await stream.send_all(piece)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(pause)


@simulated
async def play(scene: Scene, client_cuts: Cuts, worker_cuts: Cuts, plain_parser: bool, result: list[bytes]) -> None:
    asked: list[int] = []

    async def serve(process: DummyProcess, stream: RawStream) -> None:
        async for request in requests(stream):
            number = int(request.path.removeprefix("/"))
            asked.append(number)
            assert request.body == b"b" * len(request.body)
            answer, closes = scene.answers[number]
            try:
                await put(stream, worker_cuts.apply(answer))
            except trio.BrokenResourceError:
                return
            if closes:
                return

    async with serving(
        serve,
        options=ServerOptions(plain_parser=plain_parser),
        app=AppOptions(friendly_error_pages="off"),  # a page that explains says how long things took
        pool_limits=PoolLimits(max_pool_size=1),
    ) as world:
        client = world.connect()
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                try:
                    await put(client.stream, client_cuts.apply(b"".join(scene.wires)))
                except trio.BrokenResourceError:
                    pass  # a response was the connection's last
                client.send_eof()

            nursery.start_soon(send)
            wire = await client.receive_all()
        # In order, and nobody is asked for what comes behind the last response; only a retry (R30) asks twice.
        assert asked == sorted(asked)
        result.append(without_date(wire))


def played(scene: Scene, client_cuts: Cuts = Cuts(), worker_cuts: Cuts = Cuts(), plain_parser: bool = True) -> bytes:
    result: list[bytes] = []
    play(scene, client_cuts, worker_cuts, plain_parser, result)
    return result[0]


# -- scenes -----------------------------------------------------------------------------------------------------------

methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS"])
sizes = st.sampled_from([0, 1, 5, 300])
cuts = st.builds(
    Cuts,
    st.lists(
        st.tuples(st.integers(1, 999), st.sampled_from([0.0, 0.0, 0.003, FAST_PATH_TIMEOUT, 0.06, 0.3])), max_size=8
    ).map(tuple),
)


@st.composite
def request(draw: st.DrawFn, number: int, last: bool) -> bytes:
    method = draw(methods)
    size = draw(sizes)
    fields = ["Connection: close"] if last and draw(st.booleans()) else []
    version = "1.0" if last and draw(st.integers(0, 3)) == 0 else "1.1"
    if size and version == "1.1" and draw(st.booleans()):
        step = draw(st.sampled_from([1, 7, 300])) if size < 300 else 300
        body = b"b" * size
        pieces = [body[at : at + step] for at in range(0, size, step)]
        wire = get(f"/{number}", "Transfer-Encoding: chunked", *fields, method=method)
        wire += b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        length = [f"Content-Length: {size}"] if size else []
        wire = get(f"/{number}", *length, *fields, method=method, version=version) + b"b" * size
    return draw(st.sampled_from([b"", b"", b"\r\n"])) + wire


@st.composite
def answer(draw: st.DrawFn, declared: bool, faults: bool) -> tuple[bytes, bool]:
    kind = draw(st.integers(0, 9)) if faults else draw(st.integers(0, 6))
    status = draw(st.sampled_from([200, 200, 201, 204, 304, 404]))
    hints = interim(103, b"Link: </x>") * draw(st.integers(0, 2))
    pieces = draw(st.lists(st.sampled_from([b"a", b"bc", b"d" * 100]), max_size=3))
    length = sum(map(len, pieces))
    fields = [b"X-A: " + b"v" * draw(st.integers(0, 20))]
    if declared:
        fields.append(b"Content-Length: %d" % length)
    frames = hints + head(status, *fields) + b"".join(map(data, pieces))
    close = draw(st.booleans())
    match kind:
        case 6:
            return hints + error() + end(), False
        case 7:  # it goes away somewhere
            return frames[: draw(st.integers(0, len(frames)))], True
        case 8:  # more, or less, than it has declared
            wrong = max(0, length + draw(st.sampled_from([-1, 1, 50])))
            return hints + head(200, b"Content-Length: %d" % wrong) + b"".join(map(data, pieces)) + end(), False
        case 9:  # what the contract does not have
            junk = draw(st.sampled_from([b"\0" * 7, head(), b"HTTP/1.1 200 OK\r\n\r\n", b"D\0\0\0\0"]))
            return frames + junk, True
        case _:
            return frames + end(int(close)), close


@st.composite
def scenes(draw: st.DrawFn, declared: bool, faults: bool) -> Scene:
    count = draw(st.integers(1, 4))
    wires = tuple(draw(request(number, number == count - 1)) for number in range(count))
    return Scene(wires, tuple(draw(answer(declared, faults)) for _ in range(count)))


@settings(max_examples=120, deadline=None)
@given(scenes(declared=True, faults=False), cuts, cuts, st.booleans())
def test_any_split_gives_the_same_bytes(scene: Scene, client: Cuts, worker: Cuts, plain_parser: bool) -> None:
    assert played(scene, client, worker, plain_parser) == played(scene)


def understood(scene: Scene, wire: bytes) -> list[object]:
    """The responses in ``wire`` as a client understands them, without the fields that say how they are framed."""
    found: list[object] = []
    for request in scene.wires:
        connection = h11.Connection(h11.CLIENT)
        method = request.split()[0]
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(wire)
        connection.receive_data(b"")
        body = b""
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                found.append((body, "cut short"))
                return found
            if isinstance(event, (h11.InformationalResponse, h11.Response)):
                ours = (b"content-length", b"transfer-encoding", b"connection")
                found.append((event.status_code, [field for field in event.headers if field[0] not in ours]))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append(body)
                wire = connection.trailing_data[0]
                break
            else:
                assert isinstance(event, h11.ConnectionClosed), event
                return found
    assert wire == b""
    return found


@settings(max_examples=120, deadline=None)
@given(scenes(declared=False, faults=False), cuts, cuts, st.booleans())
def test_any_split_is_understood_alike_when_no_length_is_declared(
    scene: Scene, client: Cuts, worker: Cuts, plain_parser: bool
) -> None:
    """A body that is here at once gets a length, one that comes in pieces is chunked: the framing may differ, nothing else."""
    assert understood(scene, played(scene, client, worker, plain_parser)) == understood(scene, played(scene))


@settings(max_examples=200, deadline=None)
@given(scenes(declared=True, faults=True), cuts, cuts, st.booleans())
def test_any_split_gives_the_same_bytes_also_when_workers_fail(
    scene: Scene, client: Cuts, worker: Cuts, plain_parser: bool
) -> None:
    """What is not a response is not one however it is cut; and what was good before the fault is not kept back in one case and sent in another."""
    assert played(scene, client, worker, plain_parser) == played(scene)
