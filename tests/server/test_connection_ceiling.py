"""How many clients may be connected, as the limit on descriptors has it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from passenger_trio.server.listen import connection_ceiling


@contextmanager
def descriptors(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("sessions", [1, 6, 100, 600, 0])
def test_each_connection_may_have_a_session_and_a_buffer(sessions: int) -> None:
    """An ASGI process takes a hundred sessions: more than there may be connections, and then each of them has one."""
    with descriptors(1024):
        most = connection_ceiling(0, sessions)
        assert most + 2 * min(sessions or most, most) < 1024
        assert most > 280


def test_what_is_configured_is_only_ever_less() -> None:
    with descriptors(1024):
        assert connection_ceiling(50, 6) == 50
        assert connection_ceiling(5000, 6) == connection_ceiling(0, 6)


def test_a_very_low_limit_leaves_a_few() -> None:
    with descriptors(80):
        assert connection_ceiling(0, 6) == 16
