"""WebSockets: messages echoed over many connections, ended in the server (ASGI) and relayed to an application that took the connection over (Rack).

The client is one thread over raw sockets: it sends a masked text frame of 100 bytes and waits for the same, on each connection, all the time.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from contextlib import ExitStack

from measure import Figures, cpu, median, own, spread, table
from peers import APPS, HYPERCORN, OURS_ALL, PUMA, UVICORN, Peer, Running, ours, present, running

CONNECTIONS = 50
TEXT = b"x" * 100
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ANSWER = b"\x81" + bytes([len(TEXT)]) + TEXT


def websocket(rounds: int, seconds: int) -> Figures:
    """WebSocket echo (ASGI), 50 connections, 100 bytes of text, one process each, beside hypercorn on trio and uvicorn."""
    return _echo("WebSocket echo, ASGI", "echo", present(HYPERCORN, UVICORN), 1, rounds, seconds)


def relay(rounds: int, seconds: int) -> Figures:
    """WebSocket echo by websocket-driver on a hijacked Rack connection, through the relay and direct (puma), two processes."""
    relayed = [
        ours(one.program, one.name, "--unlimited-concurrency-paths", "/", "--thread-count", "4") for one in OURS_ALL
    ]
    peers = relayed + ([PUMA] if PUMA.installed else [])
    return _echo("WebSocket echo, hijacked Rack", "echo_rack", peers, 2, rounds, seconds)


WORKS = {"websocket": websocket, "relay": relay}


def _echo(title: str, app: str, peers: list[Peer], processes: int, rounds: int, seconds: int) -> Figures:
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            with running(peer, APPS / app, processes=processes) as server, ExitStack() as stack:
                clients = [stack.enter_context(_open(server)) for _ in range(CONNECTIONS)]
                _exchange(clients, peer.warm_up)
                mine = own(server.processes())
                before = cpu(mine)
                count, took = _exchange(clients, seconds)
                rates[peer.name].append(count / took)
                costs[peer.name].append(1e6 * (cpu(mine) - before) / count)
    medians = {name: median(found) for name, found in rates.items()}
    rows = {
        name: {
            "messages_per_second": medians[name],
            "all": rates[name],
            "ratios": {one.name: medians[one.name] / medians[name] for one in OURS_ALL},
            "own_cpu_us": median(costs[name]),
        }
        for name in medians
    }
    table(
        title,
        ("messages/s", "spread", *(f"{one.short} / it" for one in OURS_ALL), "server CPU us"),
        {
            name: (
                f"{medians[name]:.0f}",
                spread(rates[name]),
                *(f"{medians[one.name] / medians[name]:.2f}" for one in OURS_ALL),
                f"{median(costs[name]):.0f}",
            )
            for name in medians
        },
    )
    return {"rows": rows}


def _open(server: Running) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), 30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(HANDSHAKE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        more = client.recv(1)
        if not more:
            raise RuntimeError(f"the handshake was refused: {answer!r}")
        answer += more
    if b" 101 " not in answer:
        raise RuntimeError(f"the handshake was refused: {answer!r}")
    return client


def _frame() -> bytes:
    mask = os.urandom(4)
    return b"\x81" + bytes([0x80 | len(TEXT)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(TEXT))


def _exchange(clients: list[socket.socket], seconds: float) -> tuple[int, float]:
    """(messages that came back, seconds)"""
    frame, count = _frame(), 0
    with selectors.EpollSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
            client.sendall(frame)
        begun = time.perf_counter()
        waiting = len(clients)
        parts: dict[socket.socket, bytes] = {}
        while waiting:
            ready = selector.select(10)
            if not ready:
                raise RuntimeError(f"{waiting} messages did not come back")
            over = time.perf_counter() - begun >= seconds
            for key, _ in ready:
                client = key.fileobj
                assert isinstance(client, socket.socket)
                data = parts.pop(client, b"") + client.recv(4096)
                if data != ANSWER:
                    if not ANSWER.startswith(data) or not data:
                        raise RuntimeError(f"this came back: {data!r}")
                    parts[client] = data
                    continue
                count += 1
                if over:
                    waiting -= 1
                else:
                    client.sendall(frame)
        return count, time.perf_counter() - begun
