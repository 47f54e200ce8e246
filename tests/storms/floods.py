"""One application floods, and another one's clients are timed: alone, beside each flood, and beside processes that take as much of the processor
without flooding us (KE7). Prints a table; it decides nothing.

Where there are fewer cores than busy processes the kernel's scheduler delays everybody. So each flood has a base of its own, measured right behind it:
as many processes as the flood's clients and workers, which together are busy for as long as those were. What the event loop does to others is the
difference to that base. What is shown are medians of three rounds, in each of which the three are measured one after another: a machine is not equally quiet all the time.

Run by hand on a quiet machine: ``python tests/storms/floods.py [SECONDS [KIND ...]]``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from storm_tools import Load, percentile, write_version

from passenger_trio.testing import Supervisor

ROUNDS = 3
FLOODS = {
    "1-byte chunks": ("chunks", 1),
    "1-byte chunks, 20 of them": ("chunks", 20),
    "200 000 writes of Node's kind": ("node", 1),
    "interim responses": ("interim", 2),
    "small WebSocket messages to the client": ("down", 2),
    "small WebSocket messages from the client": ("up", 2),
}
FLOODER = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while scope["path"] == "/down":
            for _ in range(1000):
                await send({"type": "websocket.send", "text": "x"})
            await asyncio.sleep(0)
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0)
"""
NODE = """
require('http').createServer((request, response) => {
  if (request.url === '/interim') {
    const go = () => { for (let i = 0; i < 90; i++) response.writeProcessing(); response.end('x'); };
    return go();
  }
  for (let i = 0; i < 200000; i++) response.write('x');
  response.end();
}).listen(3000);
"""


def flood(server: Supervisor, kind: str, *, stop: Event) -> None:
    """One client of the flooder; it reads all that comes. A process of its own: as a thread it would hold the clock of those that are timed."""
    host, port = server.address
    path = {"node": "/node/write", "interim": "/node/interim"}.get(kind, f"/flood/{kind}")
    while not stop.is_set():
        with socket.create_connection((host, port)) as client:
            client.settimeout(1)
            upgrade = ""
            if kind in ("up", "down"):
                upgrade = (
                    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                )
            close = "Connection: close\r\n" if kind == "node" else ""  # its response ends, and the next one begins
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}{close}\r\n".encode())
            try:
                while not stop.is_set():
                    if kind == "up":
                        client.sendall(struct.pack("!BBIB", 0x82, 0x81, 0, 0x78) * 1000)
                    elif kind == "interim":
                        client.recv(65536)
                        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                    elif not client.recv(262144):
                        break
            except OSError:
                pass


def spin(share: float, *, stop: Event) -> None:
    """Is busy for this share of the time, and sends nothing."""
    while not stop.is_set():
        end = time.process_time() + 0.01 * share
        while time.process_time() < end:
            pass
        if share < 1:
            time.sleep(0.01 * (1 - share))


def busy_seconds(server: Supervisor) -> float:
    """Processor time so far of all workers of the applications that flood, and of clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = 0
    for group in server.status()["groups"]:
        for process in group["processes"] if group["name"].startswith(("flood", "node")) else ():
            fields = Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return used.ru_utime + used.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def measure(server: Supervisor, seconds: float) -> tuple[float, float]:
    """p99 and maximum of an honest application's clients."""
    with Load(server, 4, paths=("/",), pause=0.002) as load:
        time.sleep(seconds)
    assert set(load.outcomes) == {"200"}, load.outcomes
    return percentile(load.latencies, 0.99), max(load.latencies)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    chosen = [name for name in FLOODS if not sys.argv[2:] or FLOODS[name][0] in sys.argv[2:]]
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for name in ("honest", "flood", "node"):
            (root / name).mkdir()
        write_version(root / "honest", "honest")
        (root / "flood" / "passenger_asgi.py").write_text(FLOODER)
        (root / "node" / "app.js").write_text(NODE)
        (root / "passenger-trio.toml").write_text(
            '[[app]]\nroot = "honest"\n[[app]]\nroot = "flood"\nbase_uri = "/flood"\n[[app]]\nroot = "node"\nbase_uri = "/node"\n'
        )
        with Supervisor.start(root) as server:
            # What a server does for the last time in the first seconds after its start is no part of any figure.
            measure(server, 5.0)
            for name in chosen:
                show(name, [one_round(server, seconds, *FLOODS[name]) for _ in range(ROUNDS)])


def one_round(server: Supervisor, seconds: float, kind: str, clients: int) -> tuple[float, float, float, float, float]:
    """(p99 alone, p99 and maximum beside the flood, p99 beside processes that burn as much, busy cores of the flood)"""
    alone, _ = measure(server, seconds)
    before, began = busy_seconds(server), time.monotonic()
    beside, worst = measure_beside(server, seconds, [(flood, (server, kind))] * clients)
    busy = (busy_seconds(server) - before) / (time.monotonic() - began)
    share = min(1.0, busy / (clients + 1))
    base, _ = measure_beside(server, seconds, [(spin, (share,))] * (clients + 1))
    return alone, beside, worst, base, busy


def show(name: str, rounds: list[tuple[float, float, float, float, float]]) -> None:
    alone, beside, _, base, busy = (statistics.median(part) for part in zip(*rounds, strict=True))
    print(
        f"{name:45} p99 {beside * 1e3:5.1f} ms, alone {alone * 1e3:4.1f} ms ({beside / alone:.2f}x), {base * 1e3:5.1f} ms beside {busy:.2f} busy cores"
        f" ({beside / base:.2f}x)  max {max(worst for _, _, worst, _, _ in rounds) * 1e3:5.1f} ms",
        flush=True,
    )


def measure_beside(
    server: Supervisor, seconds: float, programs: list[tuple[Callable[..., None], tuple[Any, ...]]]
) -> tuple[float, float]:
    """As ``measure``, while each of these functions runs in a process of its own; ``stop`` is the event that ends it."""
    apart = multiprocessing.get_context("fork")
    stop = apart.Event()
    processes = [
        apart.Process(target=function, args=arguments, kwargs={"stop": stop}) for function, arguments in programs
    ]
    for process in processes:
        process.start()
    time.sleep(0.5)
    try:
        return measure(server, seconds)
    finally:
        stop.set()
        for process in processes:
            process.join()


if __name__ == "__main__":
    main()
