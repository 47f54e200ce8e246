"""A session on a leased slot: stands for ``pool.session.Session`` in a front, whose pool is in another process.

A lease is the stream of a slot. A session takes the stream out of the lease and puts it back at its end.

Laws:

* A stream serves the sessions of one slot only. The owner has a duplicate of it, which it grants again after the slot has come back.
* A stream that is not at a boundary is shut down. Closing it is not enough: the owner's duplicate would keep it open, and the process would
  wait for its end.
* A slot goes back as reusable only with the stream that came with it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from passenger_trio.core.fronts.front_group import Slot
from passenger_trio.core.model import SessionOutcome
from passenger_trio.errors import ProcessUnreachable
from passenger_trio.late_classes import define
from passenger_trio.pool.session import Process, Session, SessionOwner
from passenger_trio.spawning.spawner import ServingProcess
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Lease", "LeaseHolder", "LeasedSession", "shut"]


@define(eq=False)
class Lease:
    """A slot's stream, between two sessions."""

    process: Process[ServingProcess]
    stream: RawStream | None
    """None: a session uses the stream, or it has ended."""
    reused: bool
    """Whether the stream has carried requests before."""
    is_owners: bool
    """Whether this is the stream that came with the slot. False: the front has opened another one."""

    def stirred(self, events: int) -> None:
        """The idle stream has ended, or the worker sent bytes without a request (R41)."""
        self.end()

    def end(self) -> None:
        """End the stream, if no session uses it."""
        stream, self.stream = self.stream, None
        if stream is not None:
            shut(stream)

    @property
    def reusable(self) -> bool:
        """Whether the owner may grant the stream again."""
        return self.is_owners and self.stream is not None


class LeaseHolder(SessionOwner, Protocol):
    """The parts of the leased pool that a session needs."""

    def slot_pinned(self, slot: Slot, *, long_lived: bool, taken_over: bool, uncounted: bool) -> None: ...

    def slot_ended(self, slot: Slot, outcome: SessionOutcome, now: float, *, kept: bool) -> None: ...


def shut(stream: RawStream) -> None:
    """Close a stream of which another process has a duplicate: both directions end for all duplicates."""
    if stream.fd >= 0:
        stream.unregister()
        try:
            stream.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already
    stream.close()


class LeasedSession(Session):
    """Made by ``LeasedPool`` when its ledger begins a request on a slot."""

    __slots__ = ("_holder_of_slot", "_lease", "_slot")

    def __init__(self, pool: LeaseHolder, slot: Slot, lease: Lease) -> None:
        super().__init__(pool, slot.id, lease.process)
        self._holder_of_slot = pool
        self._slot = slot
        self._lease = lease

    def connect_nowait(self, *, new: bool = False) -> RawStream:
        assert self.stream is None
        lease = self._lease
        stream, lease.stream = lease.stream, None
        if stream is not None:
            self.stream, self.reused = stream, lease.reused
            if not (new and lease.reused):
                return stream
            self.drop_stream()
        self.reused = lease.is_owners = False
        try:
            self.stream = self.process.live.connect_nowait()
        except OSError as exc:
            raise ProcessUnreachable(f"process {self.pid} does not accept a connection: {exc.strerror}") from exc
        return self.stream

    @property
    def is_alone(self) -> bool:
        return self._slot.alone

    def set_long_lived(self, tell: Callable[[], None], *, taken_over: bool = True) -> None:
        self._holder_of_slot.slot_pinned(self._slot, long_lived=True, taken_over=taken_over, uncounted=False)
        self.call_on_detach(tell)

    def set_uncounted(self) -> None:
        self._holder_of_slot.slot_pinned(self._slot, long_lived=False, taken_over=False, uncounted=True)

    def drop_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            shut(stream)

    def close(self, outcome: SessionOutcome, *, keep_stream: bool = False, now: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        lease = self._lease
        if now is None:
            now = self._holder_of_slot.current_time()
        stream, self.stream = self.stream, None
        # A stream that no request has touched is still in the lease.
        kept = lease.stream is not None and outcome is SessionOutcome.NOT_STARTED
        if stream is not None:
            if keep_stream and outcome is SessionOutcome.DONE and not self.process.leaving:
                kept = lease.reused = True
                stream.idle_since = now
                if stream.registration is not None:
                    stream.registration.on_ready = lease.stirred
                lease.stream = stream
            else:
                shut(stream)
        if self._on_detach is not None:
            self.process.on_detach.discard(self._on_detach)
        self._holder_of_slot.slot_ended(self._slot, outcome, now, kept=kept)
