"""The messages between a front and the owner of the pool, as packets (FR2). The values are in ``core/fronts/messages.py``.

Sans-I/O. A packet is one message, or a part of a message that is longer than ``MOST``. The channel keeps the borders of packets. The first
byte is the kind; numbers are in network order.

The two directions differ in trust:

* ``read_from_front`` is strict. A front parses bytes of clients, so the owner does not trust it: each packet is exactly what ``encode``
  makes of a value, or ``BadFrontMessage`` is raised. The owner's ledger judges whether the numbers make sense.
* ``OwnerReader`` trusts the owner. Messages that are rare and have many members (the evidence of a failed start) are pickled. Grants and recalls,
  which requests cause, are not.
"""

from __future__ import annotations

import math
import pickle
import struct
from itertools import pairwise

from passenger_trio.core.fronts.messages import (
    MOST_WANTED,
    FromFront,
    FromOwner,
    Grant,
    OobWorkWanted,
    Pinned,
    Recall,
    Return,
    SlotUse,
    Usage,
    Waiting,
    Want,
)
from passenger_trio.core.model import GroupKey, ProcessId, SessionId, SessionOutcome
from passenger_trio.errors import BadFrontMessage

__all__ = ["MOST", "MOST_SLOTS", "OwnerReader", "encode_from_front", "encode_from_owner", "read_from_front"]

MOST = 60000
"""The longest packet, in bytes."""
MOST_SLOTS = 1024
"""The most slots in a ``Usage``: more do not fit into a packet."""
_MOST_NAME = 4096
"""The longest name of a group, in bytes."""

_WANT, _RETURN, _HELD, _OOB_WORK, _USAGE = b"WRHOU"
_GRANT, _RECALL, _PICKLE, _PART = b"GCPp"

_OUTCOMES = tuple(SessionOutcome)
_WANT_HEAD = struct.Struct("!IQdB")
_WAITING = struct.Struct("!dQB")
_RETURN_BODY = struct.Struct("!BQQIBB")
_HELD_BODY = struct.Struct("!BQBBB")
_OOB_BODY = struct.Struct("!BQ")
_USAGE_HEAD = struct.Struct("!BH")
_SLOT = struct.Struct("!QIBd")
_GRANT_BODY = struct.Struct("!BQQQIBBd")
_RECALL_HEAD = struct.Struct("!IQIIdH")
_NAME = struct.Struct("!H")


# --- front to owner ---------------------------------------------------------------------------------------------------


def encode_from_front(message: FromFront) -> bytes:
    """The packet of a message to the owner."""
    if isinstance(message, Return):
        outcome = _OUTCOMES.index(message.outcome)
        return _RETURN_BODY.pack(_RETURN, message.number, message.slot, message.served, outcome, int(message.reusable))
    if isinstance(message, Want):
        waiters = b"".join(
            _WAITING.pack(one.arrival, one.avoided or 0, len(one.route[:255])) + one.route[:255]
            for one in message.waiters
        )
        head = _WANT_HEAD.pack(message.waiting, message.grants_seen, message.age, len(message.waiters))
        return bytes((_WANT,)) + _group(message.group) + head + waiters
    if isinstance(message, Pinned):
        flags = int(message.long_lived), int(message.taken_over), int(message.uncounted)
        return _HELD_BODY.pack(_HELD, message.slot, *flags)
    if isinstance(message, OobWorkWanted):
        return _OOB_BODY.pack(_OOB_WORK, message.process)
    slots = message.slots[:MOST_SLOTS]
    uses = (
        _SLOT.pack(use.slot, use.served, use.since is not None, 0.0 if use.since is None else use.since)
        for use in slots
    )
    return _USAGE_HEAD.pack(_USAGE, len(slots)) + b"".join(uses)


def read_from_front(packet: bytes) -> FromFront:
    """The message of a packet.

    :raises BadFrontMessage: the packet is no message of a front.
    """
    try:
        kind = packet[0]
        if kind == _RETURN:
            return _read_return(packet)
        if kind == _WANT:
            return _read_want(packet)
        if kind == _HELD:
            _, slot, *flags = _HELD_BODY.unpack(packet)
            return Pinned(SessionId(slot), *map(_flag, flags))
        if kind == _OOB_WORK:
            return OobWorkWanted(ProcessId(_OOB_BODY.unpack(packet)[1]))
        if kind == _USAGE:
            return _read_usage(packet)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise BadFrontMessage("a front sent a packet that is cut off") from None
    raise BadFrontMessage(f"a front sent a packet of the unknown kind 0x{kind:02x}")


def _read_return(packet: bytes) -> Return:
    _, number, slot, served, outcome, reusable = _RETURN_BODY.unpack(packet)
    if outcome >= len(_OUTCOMES):
        raise BadFrontMessage("a front returned a slot with an unknown outcome")
    return Return(number, SessionId(slot), served, _OUTCOMES[outcome], _flag(reusable))


def _read_want(packet: bytes) -> Want:
    group, at = _read_group(packet, 1)
    waiting, grants_seen, age, count = _WANT_HEAD.unpack_from(packet, at)
    at += _WANT_HEAD.size
    if count > MOST_WANTED:
        raise BadFrontMessage("a front sent a list of waiters that is too long")
    waiters = []
    for _ in range(count):
        arrival, avoided, size = _WAITING.unpack_from(packet, at)
        at += _WAITING.size
        route = packet[at : at + size]
        at += size
        waiters.append(Waiting(_time(arrival), ProcessId(avoided) if avoided else None, route))
    if len(packet) != at:
        raise BadFrontMessage("a front sent a list of waiters whose length is wrong")
    if any(later.arrival < one.arrival for one, later in pairwise(waiters)):
        raise BadFrontMessage("a front sent waiters that are not in the order of their arrival")
    if not age >= 0:
        raise BadFrontMessage("a front sent an age that is none")
    return Want(group, tuple(waiters), waiting, grants_seen, age)


def _read_usage(packet: bytes) -> Usage:
    _, count = _USAGE_HEAD.unpack_from(packet)
    if count > MOST_SLOTS or len(packet) != _USAGE_HEAD.size + count * _SLOT.size:
        raise BadFrontMessage("a front sent a list of slots whose length is wrong")
    slots = []
    for slot, served, busy, since in _SLOT.iter_unpack(packet[_USAGE_HEAD.size :]):
        if not _flag(busy) and _time(since):
            raise BadFrontMessage("a front sent the time of a request that does not run")
        slots.append(SlotUse(SessionId(slot), served, _time(since) if busy else None))
    return Usage(tuple(slots))


def _flag(value: int) -> bool:
    if value > 1:
        raise BadFrontMessage("a front sent a flag that is neither 0 nor 1")
    return value == 1


def _time(value: float) -> float:
    if not math.isfinite(value) or math.copysign(1.0, value) < 0:
        raise BadFrontMessage("a front sent an invalid time")
    return value


# --- owner to front ---------------------------------------------------------------------------------------------------


def encode_from_owner(message: FromOwner) -> list[bytes]:
    """The packets of a message to a front, in order. A descriptor goes with the last one."""
    if isinstance(message, Grant):
        flags = int(message.alone), int(message.reused)
        numbers = message.number, message.slot, message.process, message.budget
        return [_GRANT_BODY.pack(_GRANT, *numbers, *flags, message.arrival)]
    if isinstance(message, Recall):
        counts = message.waiting, message.returns_seen, message.most, message.slots
        head = _RECALL_HEAD.pack(*counts, message.sent, len(message.arrivals))
        arrivals = struct.pack(f"!{2 * len(message.arrivals)}d", *message.arrivals, *message.ages)
        return [bytes((_RECALL,)) + _group(message.group) + head + arrivals]
    data = bytes((_PICKLE,)) + pickle.dumps(message)
    pieces = [data[at : at + MOST - 1] for at in range(0, len(data), MOST - 1)]
    if len(pieces) == 1:
        return pieces
    return [bytes((_PART,)) + piece for piece in pieces] + [bytes((_PART,))]  # an empty part ends the message


class OwnerReader:
    """Decodes the packets of the owner, which is trusted."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def read(self, packet: bytes) -> FromOwner | None:
        """The message that a packet completes, or None if more parts follow."""
        if packet[0] == _PART:
            if len(packet) > 1:
                self._parts.append(packet[1:])
                return None
            packet = b"".join(self._parts)
            self._parts = []
        if packet[0] == _GRANT:
            _, number, slot, process, budget, alone, reused, arrival = _GRANT_BODY.unpack(packet)
            return Grant(number, SessionId(slot), ProcessId(process), budget, bool(alone), bool(reused), arrival)
        if packet[0] == _RECALL:
            group, at = _read_group(packet, 1)
            waiting, returns_seen, most, slots, sent, count = _RECALL_HEAD.unpack_from(packet, at)
            listed = struct.unpack_from(f"!{2 * count}d", packet, at + _RECALL_HEAD.size)
            return Recall(group, listed[:count], waiting, returns_seen, most, listed[count:], slots, sent)
        message: FromOwner = pickle.loads(packet[1:])
        return message


# --- groups -----------------------------------------------------------------------------------------------------------


def _group(key: GroupKey) -> bytes:
    # A directory may have any bytes in its name (``os.fsencode``).
    name, environment = (word.encode("utf-8", "surrogateescape") for word in (key.name, key.environment))
    return b"".join((_NAME.pack(len(name)), name, _NAME.pack(len(environment)), environment))


def _read_group(packet: bytes, at: int) -> tuple[GroupKey, int]:
    words = []
    for _ in range(2):
        (size,) = _NAME.unpack_from(packet, at)
        at += _NAME.size
        if size > _MOST_NAME or at + size > len(packet):
            raise BadFrontMessage("a front sent a name that is longer than its packet")
        words.append(packet[at : at + size].decode("utf-8", "surrogateescape"))
        at += size
    return GroupKey(*words), at
