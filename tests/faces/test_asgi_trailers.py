"""ED10: trailers of ASGI applications through the whole server, to clients that take them."""

from __future__ import annotations

from pathlib import Path

import pytest
from faces_tools import write_app

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os

APP = """
async def application(scope, receive, send):
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
        await send({"type": "http.response.trailers", "headers": [(b"x-a", b"1\\r\\nx-b: 2")]})
        return
    await send({"type": "http.response.trailers", "headers": [(b"content-md5", b"abc")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"content-length", b"9"), (b"x-time", b"7")]})
"""


def is_whole(wire: bytes) -> bool:
    head, _, body = wire.partition(b"\r\n\r\n")
    return body.startswith(b"5\r\n") and body.endswith(b"\r\n\r\n") if b"chunked" in head else body == b"whole"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_trailers(tmp_path: Path, loop: str) -> None:
    """Those that may not stand there (RFC 9110 6.5.1) are left out; a client that does not say that it takes them gets none."""
    write_app(tmp_path, APP, "passenger_asgi.py")
    with Supervisor.start(tmp_path, "--loop", loop) as server:

        def ask(
            path: str,
            fields: str = "TE: gzip, trailers\r\nConnection: TE\r\n",
            version: str = "1.1",
            close: bool = False,
        ) -> bytes:
            with server.connect() as client:
                client.send(f"GET {path} HTTP/{version}\r\nHost: x\r\n{fields}\r\n".encode())
                if close:
                    return client.receive_all()
                came = b""
                while not is_whole(came):
                    more = client.receive()
                    assert more, came
                    came += more
                return came

        with_trailers = ask("/")
        assert b"\r\nx-offered: True\r\nx-te: trailers\r\n" in with_trailers
        assert with_trailers.endswith(b"\r\n\r\n5\r\nwhole\r\n0\r\ncontent-md5: abc\r\nx-time: 7\r\n\r\n")
        bare = (b"whole", b"5\r\nwhole\r\n0\r\n\r\n")  # which, depends on whether its end comes together with it
        without = ask("/", "")
        assert b"\r\nx-offered: False\r\nx-te: -\r\n" in without
        assert without.partition(b"\r\n\r\n")[2] in bare
        assert ask("/none").partition(b"\r\n\r\n")[2] in bare
        assert ask("/sized").endswith(b"\r\n\r\nwhole")
        assert b"x-offered: False" in ask("/", version="1.0", close=True)
        assert b"x-b" not in ask("/bad", close=True)
        with server.connect() as client:  # on the same connection, again and again
            for _ in range(2):
                answer = client.get("/", [("TE", "trailers")])
                assert (answer.body, answer.complete) == (b"whole", True)
