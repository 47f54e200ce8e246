"""ED10, TH10: trailers of ASGI applications through the whole server, to clients that take them."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.testing.live_app import LiveApp


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    offered = "http.response.trailers" in scope["extensions"]
    fields = [(b"x-offered", str(offered).encode()), (b"x-te", dict(scope["headers"]).get(b"te", b"-"))]
    if scope["path"] == "/sized":
        fields.append((b"content-length", b"5"))
    await send({"type": "http.response.start", "status": 200, "headers": fields, "trailers": True})
    await send({"type": "http.response.body", "body": b"whole"})
    if scope["path"] == "/none":
        return
    if scope["path"] == "/bad":
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"1\r\nx-b: 2")]})
        return
    await send({"type": "http.response.trailers", "headers": [(b"content-md5", b"abc")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"content-length", b"9"), (b"x-time", b"7")]})


pytestmark = [
    pytest.mark.os,
    pytest.mark.passenger(app=application),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # lint warns of what is broken here on purpose
]


def is_whole(wire: bytes) -> bool:
    head, _, body = wire.partition(b"\r\n\r\n")
    return body.startswith(b"5\r\n") and body.endswith(b"\r\n\r\n") if b"chunked" in head else body == b"whole"


def ask(
    live_app: LiveApp, path: str, fields: str = "TE: gzip, trailers\r\nConnection: TE\r\n", version: str = "1.1"
) -> bytes:
    """The response as it came, up to its end or the connection's."""
    with live_app.connect() as client:
        client.send(f"GET {path} HTTP/{version}\r\nHost: x\r\n{fields}\r\n".encode())
        came = b""
        while not is_whole(came) and (more := client.receive()):
            came += more
        return came


@pytest.mark.parametrize(
    "loop", [pytest.param(loop, marks=pytest.mark.passenger(loop=loop)) for loop in ("asyncio", "trio")]
)
def test_trailers(live_app: LiveApp, loop: str) -> None:
    """Those that may not stand there (RFC 9110 6.5.1) are left out; a client that does not say that it takes them gets none."""
    with_trailers = ask(live_app, "/")
    assert b"\r\nx-offered: True\r\nx-te: trailers\r\n" in with_trailers
    assert with_trailers.endswith(b"\r\n\r\n5\r\nwhole\r\n0\r\ncontent-md5: abc\r\nx-time: 7\r\n\r\n")
    bare = (b"whole", b"5\r\nwhole\r\n0\r\n\r\n")  # which, depends on whether its end comes together with it
    without = ask(live_app, "/", "")
    assert b"\r\nx-offered: False\r\nx-te: -\r\n" in without
    assert without.partition(b"\r\n\r\n")[2] in bare
    assert ask(live_app, "/none").partition(b"\r\n\r\n")[2] in bare
    assert ask(live_app, "/sized").endswith(b"\r\n\r\nwhole")
    assert b"x-offered: False" in ask(live_app, "/", version="1.0")
    with live_app.connect() as client:  # on the same connection, again and again
        for _ in range(2):
            answer = client.get("/", [("TE", "trailers")])
            assert (answer.body, answer.complete) == (b"whole", True)


@pytest.mark.passenger_allow_log("trailer")
@pytest.mark.passenger(loop="trio")
def test_a_bad_trailer_is_not_sent(live_app: LiveApp) -> None:
    assert b"x-b" not in ask(live_app, "/bad")
