"""One application floods, and another one's clients are timed: alone, beside each flood, and beside processes that take as much of the processor
without flooding us (KE7). Prints a table; it decides nothing.

Where there are fewer cores than busy processes the kernel's scheduler delays everybody. So each flood has a base of its own, measured right behind it:
as many processes as the flood's clients and workers, which together are busy for as long as those were. What the event loop does to others is the
difference to that base.

Run by hand on a quiet machine: ``python tests/storms/floods.py [SECONDS]``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
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
  const go = () => { for (let i = 0; i < 1000; i++) response.write('x'); setImmediate(go); };
  response.on('close', () => response.destroy());
  go();
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
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
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


def measure(server: Supervisor, seconds: float) -> tuple[float, float, int]:
    with Load(server, 4, paths=("/",), pause=0.002) as load:
        time.sleep(seconds)
    assert set(load.outcomes) == {"200"}, load.outcomes
    return percentile(load.latencies, 0.99), max(load.latencies), load.total


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
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
            p99, worst, count = measure(server, seconds)
            print(f"{'alone':45} p99 {p99 * 1e3:7.1f} ms  max {worst * 1e3:7.1f} ms  {count} requests", flush=True)
            for name, (kind, clients) in FLOODS.items():
                before, began = busy_seconds(server), time.monotonic()
                beside, worst, count = measure_beside(server, seconds, [(flood, (server, kind))] * clients)
                busy = (busy_seconds(server) - before) / (time.monotonic() - began)
                share = min(1.0, busy / (clients + 1))
                base, _, _ = measure_beside(server, seconds, [(spin, (share,))] * (clients + 1))
                print(
                    f"{name:45} p99 {beside * 1e3:7.1f} ms ({beside / p99:.2f}x alone, {beside / base:.2f}x of {base * 1e3:.1f} ms"
                    f" beside {busy:.2f} busy cores)  max {worst * 1e3:7.1f} ms  {count} requests",
                    flush=True,
                )


def measure_beside(
    server: Supervisor, seconds: float, programs: list[tuple[Callable[..., None], tuple[Any, ...]]]
) -> tuple[float, float, int]:
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
