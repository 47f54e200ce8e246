"""A Cookie field of a client: what is read is a route as the server makes them, and one that it gave is found again.

Run: ``python fuzz/sticky_cookie.py --seconds 60``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from driver import main  # noqa: E402

from passenger_trio.codecs.sticky_cookie import StickyCookie  # noqa: E402

CORPUS = HERE / "corpora" / "sticky_cookie"
COOKIE = StickyCookie("_passenger_route", "HttpOnly", b"/")


def sticky_cookie(data: bytes) -> None:
    route = COOKIE.read([(b"Cookie", data)])
    assert re.fullmatch(rb"[0-9a-f]{0,64}", route)
    assert not route or b"_passenger_route=" + route in data
    if not route:
        assert COOKIE.read([(b"Cookie", data), (b"cookie", b"a=b; _passenger_route=0a1b")]) == b"0a1b"


if __name__ == "__main__":
    main(sticky_cookie, CORPUS)
