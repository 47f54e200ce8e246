"""Asks for out-of-band work at /ask and /ask-as-passenger-5; the work waits for the file ``go`` in $WORK."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from passenger_trio_events import on_event

WORK = Path(os.environ["WORK"])
HEADERS = {"/ask": "x-passenger-request-oob-work", "/ask-as-passenger-5": "!~Request-OOB-Work"}


@on_event("oob_work")
def work() -> None:
    (WORK / f"begun-{os.getpid()}").touch()
    while not (WORK / "go").exists():
        time.sleep(0.01)
    with open(WORK / "log", "a") as log:
        log.write(f"{os.getpid()}\n")
    if (WORK / "fails").exists():
        raise RuntimeError("the work fails")


def application(environ: dict[str, object], start_response: Callable[..., object]) -> list[bytes]:
    headers = [("Content-Type", "text/plain"), ("X-Other", "yes"), ("!~Secret", "yes")]
    if name := HEADERS.get(str(environ["PATH_INFO"])):
        headers.append((name, "true"))
    start_response("200 OK", headers)
    return [str(os.getpid()).encode()]
