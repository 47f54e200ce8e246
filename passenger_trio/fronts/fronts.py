"""All front processes of a server as one: each operation on the server's front is done on each of them.

Laws: an order reaches every front that runs. Facts are the sum over all fronts that answer within ``_PATIENCE`` seconds. A front that does
not answer is left out of the sum; its line on the shared page shows its state.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import attrs
import trio

from passenger_trio.codecs.front_reports import (
    Accept,
    Answer,
    Ask,
    Asked,
    Drain,
    Order,
    Reconfigure,
    ReopenLogs,
    Resume,
    Served,
    Stop,
)
from passenger_trio.core.fronts.front_metrics import PART, FrontMetrics
from passenger_trio.core.fronts.fronts_config import FrontsConfig
from passenger_trio.core.fronts.merge_facts import check_requests, merge_facts
from passenger_trio.core.fronts.share import Share
from passenger_trio.core.model import GroupKey
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.errors import BadFrontMessage
from passenger_trio.fronts.balance import Balance
from passenger_trio.fronts.front_keeper import FrontKeeper, LeaseOffice
from passenger_trio.fronts.heartbeats import Board
from passenger_trio.fronts.log_of_front import log_level
from passenger_trio.fronts.setup import FrontSetup, offset_of_clock
from passenger_trio.log_lines import server as lines
from passenger_trio.options import ServerOptions
from passenger_trio.system.packets import packet_pair

__all__ = ["Fronts", "options_of_share"]

_PATIENCE = 1.0


def options_of_share(options: ServerOptions, share: Share, disk: int) -> ServerOptions:
    """The options of one front: its share of the limits that all fronts have together.

    :param disk: the most bytes that all buffers together have on disk.
    """
    return attrs.evolve(options, max_connections=share.part(options.max_connections), data_buffer_max=share.part(disk))


class Fronts:
    """``run`` is its task."""

    def __init__(
        self,
        count: int,
        config: FrontsConfig,
        listeners: Sequence[socket.socket],
        admin_socket: str,
        office: LeaseOffice,
        kernel: ErrorKernel,
    ) -> None:
        """:raises OSError: no memory can be shared, or no descriptor is left."""
        self.board: Board = Board.create(count)
        self._balance = Balance(self.board, count) if config.config.server.front_balance == "load" else None
        self._inboxes = [packet_pair() for _ in range(count)]
        """For each front the end that it reads, and the end to which the others write."""
        self._kernel = kernel
        self._asked = 0
        self._counts: dict[int, tuple[int, FrontMetrics]] = {}
        """Number of a front -> (its restarts at that time, the last metrics that it sent)."""
        self._counting = trio.Lock()
        self._past = FrontMetrics()
        """The last metrics of fronts that have died."""
        self._keys: dict[GroupKey, None] = {}
        """Every application that was ever served, in the order in which they came."""
        self._ended = trio.Event()
        self._count = count
        self._set_served(config)

        def setup_of(share: Share, leases: int, page: int) -> FrontSetup:
            return FrontSetup(
                share=share,
                served=self._served_by(share),
                leases=leases,
                page=page,
                listeners=tuple(sock.fileno() for sock in listeners),
                admin_socket=admin_socket,
                clock_offset=offset_of_clock(),
                inbox=self._inboxes[share.number][0].fileno(),
                inboxes=tuple(writing.fileno() for _, writing in self._inboxes),
            )

        def keeper(number: int) -> FrontKeeper:
            share = Share(number, count)
            return FrontKeeper(
                number, lambda leases, page: setup_of(share, leases, page), office, self.board, config.routes
            )

        self.keepers: list[FrontKeeper] = [keeper(number) for number in range(count)]

    async def run(self) -> None:
        """Keep all fronts until each was told to stop and has ended."""
        try:
            async with trio.open_nursery() as balancing:
                if self._balance is not None:
                    balancing.start_soon(self._kernel.supervise, "the balance of fronts", self._balance.run)
                async with trio.open_nursery() as nursery:
                    for keeper in self.keepers:
                        nursery.start_soon(self._kernel.supervise, f"front {keeper.number}", keeper.run)
                balancing.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def wait_tried(self) -> None:
        """Return when each front could accept connections once, or could not be started."""
        for keeper in self.keepers:
            await keeper.tried.wait()

    async def wait_ended(self) -> None:
        """Return when all fronts have ended, after ``stop``."""
        await self._ended.wait()

    @property
    def busy(self) -> int:
        """Requests in progress at all fronts, by the shared page."""
        now = trio.current_time()
        return sum(self.board.read(keeper.number, now).busy for keeper in self.keepers)

    def close(self) -> None:
        """Release the shared page and the inboxes."""
        self.board.page.close()
        for pair in self._inboxes:
            for sock in pair:
                sock.close()

    # -- what is served -----------------------------------------------------------------------------------------

    def _set_served(self, whole: FrontsConfig) -> None:
        self._keys.update(dict.fromkeys(key for key, _ in whole.routes))
        self._disk = whole.disk
        self._whole = Served(
            whole.config, whole.routes, tuple(self._keys), whole.sessions, whole.max_pool_size, log_level=0
        )

    def _served_by(self, share: Share) -> Served:
        """What one front serves now: for a front that starts, or whose configuration changes."""
        config = self._whole.config
        return attrs.evolve(
            self._whole,
            config=attrs.evolve(config, server=options_of_share(config.server, share, self._disk)),
            log_level=log_level(config.server.log_level),
        )

    async def reconfigure(self, config: FrontsConfig) -> None:
        """Serve this from now on. Returns when every front does. Does not wait for a front that does not answer for ``_PATIENCE`` seconds."""
        self._set_served(config)
        number = self._next_number()
        for keeper in self.keepers:
            keeper.order(Reconfigure(number, self._served_by(Share(keeper.number, self._count))))
        await self._answers(number)

    async def is_asked_for(self, key: GroupKey) -> bool:
        """Whether a request for an application is on its way to a process, at a front that answers."""
        return any(request.get("group") == str(key) and not request.get("pid") for request in await self.requests())

    # -- orders -------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Let all fronts accept connections."""
        self._order(Accept())

    def drain(self) -> None:
        """Let no connection serve another request after its current one."""
        self._order(Drain())

    def resume(self) -> None:
        """Keep connections alive again."""
        self._order(Resume())

    def reopen_logs(self) -> None:
        """Open the access logs again, after a rotation."""
        self._order(ReopenLogs())

    def stop(self, grace: float) -> None:
        """Accept no more connections, drain and end.

        :param grace: seconds for the requests in flight.
        """
        if self._balance is not None:
            self._balance.end()
        self._order(Stop(grace))

    def _order(self, order: Order) -> None:
        for keeper in self.keepers:
            keeper.order(order)

    # -- facts --------------------------------------------------------------------------------------------------

    async def facts(self, own: dict[str, Any]) -> dict[str, Any]:
        """The sum of the facts of all fronts and our own (``server/front_statistics.py``), and a line for each front."""
        total = own
        for keeper, answer in await self._ask(Asked.FACTS):
            try:
                total = merge_facts(total, answer.told, f"front {keeper.number}")
            except BadFrontMessage as error:
                lines.front_left_out(front=keeper.number, what="facts", reason=str(error))
        return {**total, "fronts": self._lines()}

    async def requests(self) -> list[dict[str, Any]]:
        """The requests in flight at all fronts."""
        found = []
        for keeper, answer in await self._ask(Asked.REQUESTS):
            try:
                requests = check_requests(answer.told)
            except BadFrontMessage as error:
                lines.front_left_out(front=keeper.number, what="requests", reason=str(error))
            else:
                found += requests
        return found

    async def counts(self) -> list[FrontMetrics]:
        """The metrics of each front: as it sends them now, or else as it sent them last. A count never decreases, because the last
        counts of a front that has died are kept.
        """
        async with self._counting:  # one scrape at a time: the counts of a dead front must be kept once only
            for keeper, (restarts, counts) in (await self._ask_for_counts()).items():
                before, last = self._counts.get(keeper.number, (restarts, None))
                self._counts[keeper.number] = restarts, counts
                if last is not None and before != restarts:
                    for _ in self._past.add_in_parts(last.lasting()):
                        await trio.lowlevel.checkpoint()
            return [self._past, *(counts for _, counts in self._counts.values())]

    async def _ask_for_counts(self) -> dict[FrontKeeper, tuple[int, FrontMetrics]]:
        """Number of each front that answers with all parts -> (its restarts at that time, its counts). Checks one part in one step."""
        found: dict[FrontKeeper, tuple[int, FrontMetrics]] = {}
        keys = tuple(self._keys)
        for begin in range(0, max(1, len(keys)), PART):
            answered = set()
            for keeper, answer in await self._ask(Asked.COUNTS, begin):
                await trio.lowlevel.checkpoint()
                try:
                    part = FrontMetrics.of_told(answer.told, keys[begin : begin + PART])
                except BadFrontMessage as error:
                    lines.front_left_out(front=keeper.number, what="counts", reason=str(error))
                    continue
                if not begin:
                    found[keeper] = keeper.restarts, part
                elif keeper in found and found[keeper][0] == keeper.restarts:
                    found[keeper][1].put_together(part)
                answered.add(keeper)
            found = {keeper: one for keeper, one in found.items() if keeper in answered}
        return {keeper: one for keeper, one in found.items() if keeper.restarts == one[0]}

    async def _ask(self, what: Asked, begin: int = 0) -> list[tuple[FrontKeeper, Answer]]:
        """Ask every front that serves, and return the answers that come in time. :param begin: see ``Ask``."""
        number = self._next_number()
        for keeper in self.keepers:
            keeper.order(Ask(number, what, begin))
        return await self._answers(number)

    def _next_number(self) -> int:
        self._asked += 1
        return self._asked

    async def _answers(self, number: int) -> list[tuple[FrontKeeper, Answer]]:
        found = []
        with trio.move_on_after(_PATIENCE):
            for keeper in self.keepers:
                while keeper.serves and number not in keeper.answers:
                    await keeper.answered.wait()
        # A front may have sent messages on its channel before it answered. They have arrived, too: let the link read them.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        for keeper in self.keepers:
            answer = keeper.answers.pop(number, None)
            if answer is not None:
                found.append((keeper, answer))
        await trio.lowlevel.checkpoint()
        return found

    def pids(self) -> list[int]:
        """The pids of the fronts that run."""
        return [keeper.pid for keeper in self.keepers if keeper.pid]

    def _lines(self) -> list[dict[str, Any]]:
        """Each front's line on the shared page."""
        now = trio.current_time()
        lines = []
        for keeper in self.keepers:
            line = self.board.read(keeper.number, now)
            lines.append(
                {
                    "number": keeper.number,
                    "pid": keeper.pid or None,
                    "restarts": keeper.restarts,
                    "connections": line.connections,
                    "busy": line.busy,
                    "slots": line.leased,
                    "lag": line.lag,
                    "alive": line.alive,
                    "active": line.active,
                }
            )
        return lines
