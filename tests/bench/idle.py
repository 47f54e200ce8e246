"""Connections that have nothing to say: eight thousand of them, kept alive after one request each; what one costs the server in memory."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

from measure import Figures, own, rss, table
from peers import APPS, PASSENGER, Running, ours, present, running

CONNECTIONS = 8000
ADDRESSES = 8
"""Each has its own ephemeral ports: those of one would not suffice for many more, while connections of the run before wait out their time."""
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def work(rounds: int, seconds: int) -> Figures:
    """8 000 idle keep-alive connections from several loopback addresses: the server's memory for each."""
    del rounds, seconds
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(CONNECTIONS, hard - 500)
    rows: Figures = {}
    for peer in present(PASSENGER):
        if peer.ours:
            python = peer.program
            peer = ours(python, peer.name, "--keep-alive-timeout", "600", "--max-connections", str(count + 100))
        with running(peer, APPS / "hello", processes=1) as server, ExitStack() as stack:
            for client in _connect(server, 300, stack):
                client.close()
            pids = own(server.processes())
            before = rss(pids)
            clients = _connect(server, count, stack)
            grown = rss(pids) - before
            alive = sum(_ask(client) for client in clients[::40])
        rows[peer.name] = {
            "connections": count,
            "bytes_per_connection": grown / count,
            "served_after": alive / len(clients[::40]),
        }
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    table(
        f"{count} idle connections",
        ("KB for each", "of them served again"),
        {
            name: (f"{row['bytes_per_connection'] / 1000:.1f}", f"{row['served_after']:.0%}")
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def _connect(server: Running, count: int, stack: ExitStack) -> list[socket.socket]:
    """Connections that have had one answer."""
    clients = []
    for number in range(count):
        client = stack.enter_context(socket.socket())
        client.settimeout(30)
        client.bind((f"127.0.0.{2 + number % ADDRESSES}", 0))
        client.connect(("127.0.0.1", server.port))
        if not _ask(client):
            raise RuntimeError(f"connection {number} was not served")
        clients.append(client)
    return clients


def _ask(client: socket.socket) -> bool:
    try:
        client.sendall(REQUEST)
        answer = b""
        while not answer.endswith(b"World\n"):
            more = client.recv(65536)
            if not more:
                return False
            answer += more
    except OSError:
        return False
    return True
