"""TH5: an application under lint ends what it has in hand when it would without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import passenger_trio.testing

_WORKER = Path(passenger_trio.testing.__file__).parent / "worker"
_PROGRAM = """
import asyncio, gc, importlib.util, sys
from pathlib import Path

def load(name, file):
    spec = importlib.util.spec_from_file_location(name, Path(sys.argv[1]) / file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

load("passenger_harness_findings", "findings.py")
load("passenger_harness_fault_points", "fault_points.py")
load("passenger_harness_asgi_rules", "asgi_rules.py")
load("passenger_harness_times", "times.py")
wrapper = load("passenger_harness_asgi_wrapper", "asgi_wrapper.py")
ended = []

async def body():
    try:
        yield b"x"
    finally:
        ended.append("body")

async def app(scope, receive, send):
    pieces = body()
    async for piece in pieces:
        await send({"type": "http.response.start", "status": 200, "headers": []})

async def send(message):
    raise OSError("the client has left")

async def main():
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1"}
    try:
        await wrapper.Wrapper(app)(scope, None, send)
    except OSError:
        pass
    await asyncio.sleep(0.01)
    assert ended == ["body"]  # here: asyncio.run ends what is left

gc.disable()
asyncio.run(main())
"""


def test_TH5_what_an_application_has_in_hand_ends_with_its_request() -> None:
    """The wrapper kept the exception that it had seen, so the body of a client that had left ended with the next collection of garbage."""
    subprocess.run([sys.executable, "-c", _PROGRAM, str(_WORKER)], check=True)
