"""FR2: the packets between a front and the owner of the pool: every message comes back, and what no front sends is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.codecs.front_messages import (
    MOST,
    MOST_SLOTS,
    OwnerReader,
    encode_from_front,
    encode_from_owner,
    read_from_front,
)
from passenger_trio.core.commands import Reason
from passenger_trio.core.fronts.messages import (
    MOST_WANTED,
    FromFront,
    FromOwner,
    Grant,
    OobWorkWanted,
    Pinned,
    ProcessCame,
    ProcessGoes,
    Recall,
    Refused,
    Return,
    SlotUse,
    Usage,
    VersionRejected,
    Waiting,
    Want,
)
from passenger_trio.core.journey import Journey, JourneyType
from passenger_trio.core.model import (
    ErrorCategory,
    GroupKey,
    ProcessId,
    SessionId,
    SessionOutcome,
    SpawnFailure,
)
from passenger_trio.core.state import Rejection
from passenger_trio.errors import BadFrontMessage

SHOP = GroupKey("shop", "production")
TIMES = st.floats(0, 1e9, allow_nan=False)
NUMBERS = st.integers(0, 2**64 - 1)
SERVED = st.integers(0, 2**32 - 1)
KEYS = st.builds(GroupKey, st.text(max_size=20), st.text(max_size=20))
WAITERS = st.lists(
    st.builds(Waiting, TIMES, st.none() | st.integers(1, 2**64 - 1).map(ProcessId), st.binary(max_size=64)),
    max_size=20,
).map(lambda found: tuple(sorted(found, key=lambda one: one.arrival)))
FROM_FRONT: st.SearchStrategy[FromFront] = st.one_of(
    st.builds(Want, KEYS, WAITERS, SERVED, NUMBERS),
    st.builds(Return, NUMBERS, NUMBERS.map(SessionId), SERVED, st.sampled_from(SessionOutcome), st.booleans()),
    st.builds(Pinned, NUMBERS.map(SessionId), st.booleans(), st.booleans(), st.booleans()),
    st.builds(OobWorkWanted, NUMBERS.map(ProcessId)),
    st.builds(
        Usage,
        st.lists(st.builds(SlotUse, NUMBERS.map(SessionId), SERVED, st.none() | TIMES), max_size=50).map(tuple),
    ),
)
FROM_OWNER: st.SearchStrategy[FromOwner] = st.one_of(
    st.builds(
        Grant,
        NUMBERS,
        NUMBERS.map(SessionId),
        NUMBERS.map(ProcessId),
        SERVED,
        st.booleans(),
        st.booleans(),
        TIMES,
    ),
    st.builds(Recall, KEYS, st.lists(TIMES, max_size=MOST_WANTED).map(tuple), SERVED, NUMBERS, st.integers(0, 9)),
    st.builds(ProcessGoes, NUMBERS.map(ProcessId), st.booleans()),
    st.just(ProcessCame(ProcessId(1), SHOP, 4711, 1, "session", True, "unix:/run/worker", b"ab")),
)


def failure(output: tuple[str, ...] = ()) -> SpawnFailure:
    return SpawnFailure(
        "1a2b",
        ErrorCategory.APPLICATION,
        "it raised",
        "a\nb",
        "mend it",
        Journey.begin(JourneyType.SPAWN_DIRECTLY),
        output=output,
    )


def from_owner(packets: list[bytes]) -> list[FromOwner]:
    reader = OwnerReader()
    return [message for packet in packets if (message := reader.read(packet)) is not None]


@given(FROM_FRONT)
def test_what_a_front_sends_is_read_as_it_was(message: FromFront) -> None:
    packet = encode_from_front(message)
    assert read_from_front(packet) == message
    assert len(packet) <= MOST


@given(FROM_FRONT, st.data())
def test_a_packet_that_is_cut_off_or_too_long_is_refused(message: FromFront, data: st.DataObject) -> None:
    packet = encode_from_front(message)
    for wrong in (packet[: data.draw(st.integers(0, len(packet) - 1))], packet + b"\0"):
        with pytest.raises(BadFrontMessage):
            read_from_front(wrong)


def test_each_packet_cut_after_each_byte_is_refused() -> None:
    """Byte by byte, for one of each kind."""
    kinds: list[FromFront] = [
        Want(SHOP, (Waiting(1.0), Waiting(2.0, ProcessId(7), b"route")), 2, 3),
        Return(1, SessionId(2), 3, SessionOutcome.DONE, True),
        Pinned(SessionId(2), True, False, False),
        OobWorkWanted(ProcessId(2)),
        Usage((SlotUse(SessionId(1), 2, 3.0), SlotUse(SessionId(2), 0, None))),
    ]
    for message in kinds:
        packet = encode_from_front(message)
        for end in range(len(packet)):
            with pytest.raises(BadFrontMessage):
                read_from_front(packet[:end])


RETURN = encode_from_front(Return(1, SessionId(2), 3, SessionOutcome.DONE, True))
WANT = encode_from_front(Want(SHOP, (Waiting(1.0), Waiting(2.0)), 2, 0))
USAGE = encode_from_front(Usage((SlotUse(SessionId(1), 2, None),)))


@pytest.mark.parametrize(
    "packet",
    {
        "an unknown kind": b"x" + RETURN[1:],
        "an outcome that is none": RETURN[:-2] + b"\x06\x01",
        "a flag that is none": RETURN[:-1] + b"\x02",
        "a name longer than the packet": b"W\xff\xff" + WANT[3:],
        "waiters out of order": encode_from_front(Want(SHOP, (Waiting(2.0), Waiting(1.0)), 2, 0)),
        "more waiters than listed": encode_from_front(Want(SHOP, (Waiting(1.0),) * (MOST_WANTED + 1), 2, 0)),
        "a time before time": encode_from_front(Want(SHOP, (Waiting(-1.0),), 2, 0)),
        "no time": encode_from_front(Want(SHOP, (Waiting(float("nan")),), 2, 0)),
        "no end": encode_from_front(Usage((SlotUse(SessionId(1), 2, float("inf")),))),
        "a time of nothing": USAGE[:-1] + b"\x01",
        "nothing": b"",
    }.values(),
    ids=str,
)
def test_what_no_front_sends_is_refused(packet: bytes) -> None:
    """Predicate of trust: the owner does not believe a front's bytes."""
    with pytest.raises(BadFrontMessage):
        read_from_front(packet)


def test_the_longest_lists_fit_into_a_packet() -> None:
    use = SlotUse(SessionId(2**64 - 1), 2**32 - 1, 1e9)
    assert len(encode_from_front(Usage((use,) * (MOST_SLOTS + 5)))) <= MOST
    long_name = GroupKey("a" * 4096, "b" * 4096)
    assert (
        len(encode_from_front(Want(long_name, (Waiting(1.0, None, b"r" * 255),) * MOST_WANTED, 2**32 - 1, 1))) <= MOST
    )


@given(FROM_OWNER)
def test_what_the_owner_sends_is_read_as_it_was(message: FromOwner) -> None:
    assert from_owner(encode_from_owner(message)) == [message]


@pytest.mark.parametrize("size", [0, 10, MOST - 500, MOST, 3 * MOST], ids=str)
def test_evidence_of_any_length_arrives_in_packets(size: int) -> None:
    """In parts, and what follows them is read as well."""
    messages: list[FromOwner] = [
        Refused(SHOP, Reason.SPAWN_FAILED, None, failure(("x" * size,)), 3.0),
        VersionRejected(SHOP, Rejection(2, 1.0, failure(("y" * size,)))),
        ProcessGoes(ProcessId(1), leaving=True),
    ]
    packets = [packet for message in messages for packet in encode_from_owner(message)]
    assert from_owner(packets) == messages
    assert all(0 < len(packet) <= MOST for packet in packets)


def test_FR2_a_group_may_have_any_bytes_in_its_name() -> None:
    """An application is named for its directory. (The front died of it.)"""
    odd = GroupKey("bytes\udcff\udcfe", "development")
    want = Want(odd, (Waiting(1.0),), 1, 0)
    assert read_from_front(encode_from_front(want)) == want
    recall = Recall(odd, (1.0,), 1, 0, 1)
    assert OwnerReader().read(encode_from_owner(recall)[0]) == recall
