"""As ``oob_work``, for ASGI."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from passenger_trio_events import on_event

WORK = Path(os.environ["WORK"])
HEADERS = {"/ask": b"X-Passenger-Request-OOB-Work", "/ask-as-passenger-5": b"!~request-oob-work"}


@on_event("oob_work")
def work() -> None:
    (WORK / f"begun-{os.getpid()}").touch()
    while not (WORK / "go").exists():
        time.sleep(0.01)
    with open(WORK / "log", "a") as log:
        log.write(f"{os.getpid()}\n")
    if (WORK / "fails").exists():
        raise RuntimeError("the work fails")


async def application(scope: dict[str, Any], receive: object, send: Callable[[object], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    headers = [(b"content-type", b"text/plain"), (b"x-other", b"yes"), (b"!~secret", b"yes")]
    if name := HEADERS.get(scope["path"]):
        headers.append((name, b"true"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # In pieces, so that the response is forwarded in pieces, too.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
