"""The program of a front: ``server/`` with an event loop of its own, on leased slots.

::

    front                               cancelled when the owner is gone, or when it is drained
     |- leases                          lease_channel.py: the owner's messages enter the ledger
     |- orders, reports                 reports.py
     |- timer of the ledger             leased_pool.py
     |- access log, deadline scanner, poller, heartbeat
     `- clients                         on ``Stop``: deadline = now + grace
         |- listeners
         `- inbox                       moving.py: connections of other fronts

A front is a fresh interpreter, and never a fork of the owner: a fork would inherit an event loop, threads and descriptors that it could
only misuse, and a front that is started later must be like the first one.

Laws: a front ends when its owner ends (the kernel kills it, and its channels end). An unexpected exception in the ledger ends the front,
because the ledger's decisions can no longer be trusted (KE1). That costs only the front's own connections.
"""

from __future__ import annotations

import pickle
import signal
import socket
import sys
from functools import partial
from typing import Any

import trio

from passenger_trio.codecs.front_reports import (
    Accept,
    Answer,
    Ask,
    Asked,
    Drain,
    Explained,
    Order,
    Reconfigure,
    ReopenLogs,
    Resume,
    Stop,
    encode_answer,
    encode_drained,
    encode_serving,
)
from passenger_trio.core.fronts.front_metrics import PART, FrontMetrics
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.fronts.explaining import Explanations
from passenger_trio.fronts.heartbeats import BEAT, FULL, Board, BoardGate, Hint
from passenger_trio.fronts.lease_channel import BrokenLink, FrontLink
from passenger_trio.fronts.leased_pool import LeasedPool
from passenger_trio.fronts.moving import Inbox, Moving
from passenger_trio.fronts.owners_health import OwnersHealth
from passenger_trio.fronts.reports import LogToOwner, Reports
from passenger_trio.fronts.serves import ServedHere, descriptors_of, routes_of
from passenger_trio.fronts.setup import FrontSetup, OwnersClock
from passenger_trio.later import build_classes
from passenger_trio.server.front import Front
from passenger_trio.server.front_statistics import front_counts, front_facts, requests_in_flight
from passenger_trio.server.health_paths import HealthPaths
from passenger_trio.server.listening.listener import Listener
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.tracing.spans import open_spans
from passenger_trio.system.children import end_with_parent
from passenger_trio.system.packets import Packets
from passenger_trio.system.processor_time import ProcessorTime

__all__ = ["main"]

_NOT_OURS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals of an operator. They are meant for the server: the owner gets them, too, and gives orders."""


def main() -> None:
    """Run as a front. The first argument is the descriptor of the stream of orders."""
    end_with_parent()
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=int(sys.argv[1]))
    setup = _read_setup(sock)
    if setup is not None:
        trio.run(_serve, setup, sock, clock=OwnersClock(setup.clock_offset))


def _read_setup(sock: socket.socket) -> FrontSetup | None:
    """Read the setup, which is the first frame. None: the owner is gone."""
    with sock.makefile("rb", buffering=0) as stream:
        head = stream.read(4)
        size = int.from_bytes(head or b"", "big")
        data = b""
        while len(data) < size and (more := stream.read(size - len(data))):
            data += more
    if not size or len(data) < size:
        return None
    setup: FrontSetup = pickle.loads(data)
    return setup


async def _serve(setup: FrontSetup, sock: socket.socket) -> None:
    try:
        await _run(setup, trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
    except* (BrokenLink, trio.BrokenResourceError):
        pass  # the owner is gone, so the front ends


async def _run(setup: FrontSetup, stream: trio.SocketStream) -> None:
    kernel = ErrorKernel()
    reports = Reports(stream)
    served = setup.served
    LogToOwner.install(reports, served.log_level)
    config = served.config
    link = FrontLink(socket.socket(fileno=setup.leases))
    explanations = Explanations(reports)
    pool = LeasedPool(link, kernel, explanations.ask)
    for key, app in served.routes:
        pool.add_group(key, app.max_request_queue_size)
    board = Board.attach(setup.page, setup.share.fronts)
    access_log = AccessLog.open(config, kernel, lock=setup.page)
    front = Front(config.server, pool, routes_of(served), access_log, descriptors_of(served), kernel, setup.share)
    spans = open_spans(kernel) if config.server.tracing == "spans" else None
    if spans is not None:
        front.tracing = spans
    if config.server.health_path:
        front.health = HealthPaths(config.server.health_path, OwnersHealth(setup.admin_socket).ask)
    gate = BoardGate(
        board,
        setup.share.number,
        lambda: len(front.connections),
        lambda: front.fullness >= 1.0,
        front.current_time,
    )
    front.gate = gate
    inbox = Inbox(socket.socket(fileno=setup.inbox), front, board, setup.share.number, pool.moved_in)
    moving = Moving(board, setup.share.number, front, [Packets(socket.socket(fileno=fd)) for fd in setup.inboxes])
    listeners = [Listener(socket.socket(fileno=fd), front, owns_file=False) for fd in setup.listeners]
    async with trio.open_nursery() as tree:
        here = ServedHere(served, front, pool, access_log, setup.page, tree)
        orders = Orders(front, pool, reports, explanations, tree, here)
        tree.start_soon(_end_with, tree, reports.run)
        tree.start_soon(_end_with, tree, reports.hear, orders.obey)
        tree.start_soon(_end_with, tree, link.run, pool.receive)
        tree.start_soon(pool.run)
        if spans is not None:
            tree.start_soon(kernel.supervise, "tracing", spans.run)
        tree.start_soon(kernel.supervise, "the deadline scanner", front.deadline_scanner.run)
        await tree.start(partial(kernel.supervise_started, "the poller", front.poller.run, must_start=True))
        reports.send(encode_serving())
        await orders.accept.wait()
        tree.start_soon(_beat, board, setup.share.number, front, pool, gate, moving)
        tree.start_soon(kernel.supervise, "the building of classes", build_classes)
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(kernel.supervise, "the inbox", inbox.run, clients)
                for listener in listeners:
                    accepting.start_soon(kernel.supervise, "a listener", listener.run, clients)
                await orders.stop.wait()
                accepting.cancel_scope.cancel()
            for listener in listeners:
                with kernel.contain("a listener"):
                    listener.accept_waiting(clients)
                with kernel.contain("a listener"):
                    listener.close()
            moving.end()
            front.drain()
            clients.start_soon(kernel.supervise, "the inbox", inbox.take_last, clients)
            clients.cancel_scope.deadline = trio.current_time() + orders.grace
        reports.send(encode_drained())
        await reports.wait_sent()
        tree.cancel_scope.cancel()
    moving.close()
    inbox.close()


async def _end_with(tree: trio.Nursery, run: object, *arguments: object) -> None:
    """Run a task whose end is the end of the front."""
    await run(*arguments)  # type: ignore[operator]
    tree.cancel_scope.cancel()


async def _beat(board: Board, number: int, front: Front, pool: LeasedPool, gate: BoardGate, moving: Moving) -> None:
    """Write our line of the shared page, and look whether we are active, until cancelled."""
    line = board.lines[number]
    processor_time = ProcessorTime()
    due = front.current_time()
    while True:
        now = front.current_time()
        line[Hint.CONNECTIONS] = len(front.connections)
        line[Hint.BUSY] = front.active
        line[Hint.LEASED] = pool.leased
        line[Hint.LAG] = int(max(0.0, now - due) * 1e6)
        line[Hint.ACCEPTED] = front.accepted
        line[Hint.REQUESTS] = front.requests
        line[Hint.USED], line[Hint.CPU] = processor_time.used_and_wanted()
        line[Hint.FULL] = int(FULL * front.fullness)
        line[Hint.MOST] = front.most_connections
        line[Hint.HEARTBEAT] = int(now * 1000)
        with front.kernel.contain("the balance of fronts"):
            gate.look()
            moving.look(now)
        due = now + BEAT
        await trio.sleep_until(due)


class Orders:
    """Carries out the owner's orders."""

    def __init__(
        self,
        front: Front,
        pool: LeasedPool,
        reports: Reports,
        explanations: Explanations,
        nursery: trio.Nursery,
        served: ServedHere,
    ) -> None:
        """:param nursery: for answers."""
        self._explanations = explanations
        self._served = served
        self._front = front
        self._pool = pool
        self._nursery = nursery
        self._reports = reports
        self.accept = trio.Event()
        self.stop = trio.Event()
        self._counts: FrontMetrics | None = None
        """The metrics of which the owner is getting one part after another."""
        self.grace = 0.0
        """Seconds for requests in flight when the front stops."""

    def obey(self, order: Order) -> None:
        """Carry out an order."""
        front = self._front
        match order:
            case Accept():
                self.accept.set()
            case Drain():
                front.drain()
            case Resume():
                front.draining = False
            case ReopenLogs():
                front.reopen_logs()
            case Stop():
                self.grace = order.grace
                self.accept.set()
                self.stop.set()
            case Explained():
                self._explanations.answered(order)
            case Reconfigure():
                with front.kernel.contain("a reload"):
                    self._served.change(order.served)
                    self._reports.send(encode_answer(Answer(order.number, {})))
            case Ask():
                self._nursery.start_soon(self._answer, order)

    async def _answer(self, asked: Ask) -> None:
        with self._front.kernel.contain("an answer to the owner"):
            self._pool.tell_levels()  # the levels must go out before the answer
            told = await self._tell(asked)
            self._reports.send(encode_answer(Answer(asked.number, told)))

    async def _tell(self, asked: Ask) -> dict[str, Any]:
        front = self._front
        if asked.what is Asked.FACTS:
            return front_facts(front)
        if asked.what is Asked.REQUESTS:
            return {"requests": requests_in_flight(front, front.current_time())}
        if not asked.begin or self._counts is None:
            self._counts = await front_counts(front)
        return self._counts.told(self._served.now.keys[asked.begin : asked.begin + PART])


if __name__ == "__main__":
    main()
