"""One application floods, and another one's clients are timed: alone, and beside each flood (KE7). Prints a table; it decides nothing.

Where there are fewer cores than busy processes the kernel's scheduler delays everybody: the first line beside "alone" shows how much of it is that.

Run by hand on a quiet machine: ``python tests/storms/floods.py [SECONDS]``.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from storm_tools import Load, percentile, write_version

from passenger_trio.testing import Supervisor

FLOODS = {
    # What the machine costs: as many busy processes as a flood has (its client and its worker), and nothing of it goes through the server.
    "no flood, two busy processes": ("spin", 2),
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


def flood(server: Supervisor, kind: str, stop: Event) -> None:
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


def spin(stop: Event) -> None:
    """Keeps a core busy and sends nothing."""
    while not stop.is_set():
        pass


def measure(server: Supervisor, seconds: float) -> tuple[float, float, int]:
    with Load(server, 4, paths=("/",), pause=0.002) as load:
        time.sleep(seconds)
    assert set(load.outcomes) == {"200"}, load.outcomes
    return percentile(load.latencies, 0.99), max(load.latencies), load.total


def main() -> None:
    apart = multiprocessing.get_context("fork")
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
                stop = apart.Event()
                if kind == "spin":
                    floods = [apart.Process(target=spin, args=(stop,)) for _ in range(clients)]
                else:
                    floods = [apart.Process(target=flood, args=(server, kind, stop)) for _ in range(clients)]
                for process in floods:
                    process.start()
                time.sleep(0.5)
                beside, worst, count = measure(server, seconds)
                stop.set()
                for process in floods:
                    process.join()
                print(
                    f"{name:45} p99 {beside * 1e3:7.1f} ms ({beside / p99:.2f}x)  max {worst * 1e3:7.1f} ms  {count} requests",
                    flush=True,
                )


if __name__ == "__main__":
    main()
