"""How many clients may be connected, and how many buffers may have files, as the limit on descriptors has it (R36, KE2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.core.descriptors import Descriptors

KEPT = 64
"""For the server itself, with a pool of ordinary size."""


@pytest.mark.parametrize("sessions", [1, 6, 100, 600, 0])
def test_each_connection_may_have_a_session(sessions: int) -> None:
    """An ASGI process takes a hundred sessions: more than there may be connections, and then each of them has one."""
    most = Descriptors.measured(1024, 0, sessions, 6).connections
    assert most + min(2 * sessions or most, most) <= 1024 - KEPT
    assert most > 280


@settings(deadline=None)  # it counts to a hundred thousand
@given(st.integers(128, 100_000), st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 12), st.data())
def test_KE2_clients_never_take_what_the_server_needs(
    limit: int, configured: int, sessions: int, processes: int, data: st.DataObject
) -> None:
    """In whatever order connections come and buffers want files: fault 1 was a file for each connection, which nobody had counted."""
    room = Descriptors.measured(limit, configured, sessions, processes)
    connections = files = 0
    for _ in range(10):
        wanted = data.draw(st.integers(0, limit))
        if data.draw(st.booleans()):
            while wanted and room.takes_connection(connections, files):
                connections, wanted = connections + 1, wanted - 1
        else:
            while wanted and room.takes_file(connections, files):
                files, wanted = files + 1, wanted - 1
        streams = min(connections, 2 * sessions or connections)
        assert connections + files + streams <= limit - KEPT
        assert not configured or connections <= configured


def test_without_a_limit_there_are_as_many_as_the_operator_wants() -> None:
    unlimited = Descriptors.measured(-1, 0, 10, 6)
    assert Descriptors.measured(-1, 500, 10, 6).connections == 500
    assert unlimited.connections >= 10**6
    assert unlimited.together > unlimited.connections
    assert Descriptors.measured(0, 0, 10, 6).connections < 100, "0 is a limit"


def test_each_process_takes_a_part_of_what_the_server_keeps() -> None:
    """Its output, its control connection, its pidfd, and what is opened when it is started: four for each, once they are many."""
    few, some, many = (Descriptors.measured(4096, 0, 10, processes).together for processes in (1, 6, 106))
    assert few == some
    assert some - many == 4 * 100


def test_files_and_connections_share_what_is_left() -> None:
    room = Descriptors.measured(256, 0, 2, 2)
    assert room.takes_connection(100, 80)
    assert room.takes_file(100, 80)
    assert not room.takes_connection(100, 100)
    assert not room.takes_file(100, 100)


def test_what_is_configured_is_only_ever_less_and_bounds_connections_alone() -> None:
    assert Descriptors.measured(1024, 50, 6, 6).connections == 50
    assert Descriptors.measured(1024, 50, 6, 6).takes_file(50, 200)
    assert Descriptors.measured(1024, 5000, 6, 6) == Descriptors.measured(1024, 0, 6, 6)


def test_a_very_low_limit_leaves_a_few() -> None:
    assert Descriptors.measured(80, 0, 6, 6).connections == 16


def test_no_limit_is_none() -> None:
    room = Descriptors.measured(-1, 0, 6, 6)
    assert room.takes_connection(500_000, 500_000)
    assert Descriptors.measured(-1, 7, 6, 6).connections == 7
