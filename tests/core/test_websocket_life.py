"""The life of a WebSocket, decision by decision: no clock, no socket."""

from __future__ import annotations

import math

import attrs
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.lingering import LINGER_TIME
from passenger_trio.core.websocket_close_codes import GOING_AWAY, LOST, SERVICE_RESTART
from passenger_trio.core.websocket_life import (
    CLOSE_TIME,
    AbortWorker,
    CutClient,
    LeaveWorker,
    Order,
    Ping,
    Side,
    TellClient,
    TellWorker,
    Times,
    WebSocketLife,
)

TIMES = Times(ping_interval=20.0, ping_timeout=10.0, stall=60.0, drain=4.0)


def life(now: float = 0.0, times: Times = TIMES) -> WebSocketLife:
    return WebSocketLife(times, now)


# -- closing --------------------------------------------------------------------------------------------------------


def test_the_clients_close_is_answered_with_its_code_and_told_with_its_reason() -> None:
    it = life()
    assert it.client_closes(3001, "bye", 1.0) == [TellClient(3001, ""), TellWorker(3001, "bye")]
    assert (it.client, it.worker) == (Side.ENDING, Side.TOLD)


def test_the_answer_to_our_close_is_not_answered() -> None:
    it = life()
    assert it.worker_closes(1000, "done", 0.0) == [TellWorker(1000, "done"), TellClient(1000, "done")]
    assert it.client is Side.CLOSING
    assert it.client_closes(1000, "", 1.0) == []
    assert it.client is Side.ENDING


def test_a_close_that_is_not_answered_is_given_up_on() -> None:
    it = life()
    it.worker_closes(1000, "", 3.0)
    assert it.due() == 3.0 + CLOSE_TIME
    assert it.tick(3.0 + CLOSE_TIME - 0.1) == []
    assert it.tick(3.0 + CLOSE_TIME) == [CutClient()]
    assert it.client is Side.GONE
    assert it.due() == math.inf


def test_a_client_that_lingers_is_given_up_on() -> None:
    it = life()
    assert it.client_fails(1002, "no", 1.0) == [TellClient(1002, "no"), TellWorker(1002, "no")]
    assert it.tick(1.0 + LINGER_TIME) == [CutClient()]


def test_an_error_behind_our_close_is_told_to_nobody() -> None:
    it = life()
    it.worker_closes(1000, "", 0.0)
    assert it.client_fails(1002, "no", 1.0) == []
    assert it.client is Side.ENDING


def test_a_client_that_is_lost_is_told_once() -> None:
    it = life()
    assert it.client_lost(1.0) == [TellWorker(LOST)]
    assert it.client_lost(1.0) == []
    assert it.worker_closes(1000, "", 2.0) == []


def test_a_worker_that_is_lost_is_a_restart_and_one_that_breaks_its_protocol_an_error() -> None:
    assert life().worker_lost(0.0) == [TellClient(SERVICE_RESTART, "service restart")]
    assert life().worker_lost(0.0, broken=True) == [TellClient(1011, "internal error")]
    it = life()
    it.client_closes(1000, "", 0.0)
    assert it.worker_lost(1.0) == []


# -- pings ----------------------------------------------------------------------------------------------------------


def test_a_silent_client_is_pinged_and_given_up_on() -> None:
    """F48."""
    it = life()
    assert it.due() == 20.0
    assert it.tick(19.9) == []
    assert it.tick(20.0) == [Ping()]
    assert it.due() == 30.0
    assert it.tick(29.9) == []
    assert it.tick(30.0) == [TellWorker(LOST), TellClient(1011, "ping timeout")]
    assert it.client is Side.CLOSING


def test_whatever_comes_answers_a_ping_even_at_the_same_time() -> None:
    it = life()
    it.tick(20.0)
    it.heard = 20.0
    assert it.due() == 40.0
    assert it.tick(31.0) == []
    assert it.tick(40.0) == [Ping()]


def test_a_client_that_talks_is_not_pinged() -> None:
    it = life()
    for now in range(0, 200, 10):
        it.heard = float(now)
        assert it.tick(now + 5.0) == []


def test_a_client_is_not_blamed_for_what_we_do_not_read() -> None:
    it = life()
    it.tick(20.0)
    it.worker_stuck = 25.0
    for now in range(26, 80, 5):
        assert it.tick(float(now)) == []
    it.worker_stuck = math.inf
    it.heard = 80.0
    assert it.tick(99.0) == []
    assert it.tick(100.0) == [Ping()]


def test_pings_can_be_left_out_and_not_be_waited_for() -> None:
    it = life(times=attrs.evolve(TIMES, ping_interval=0.0))
    assert it.due() == math.inf
    assert it.tick(1e6) == []
    it = life(times=attrs.evolve(TIMES, ping_timeout=0.0))
    assert it.tick(20.0) == [Ping()]
    assert it.due() == math.inf
    assert it.tick(1e6) == []


# -- who takes nothing ----------------------------------------------------------------------------------------------


def test_a_client_that_takes_nothing_is_cut_off() -> None:
    it = life()
    it.client_stuck = 5.0
    assert it.due() == 65.0
    assert it.tick(64.9) == []
    assert it.tick(65.0) == [CutClient(), TellWorker(LOST)]


def test_a_worker_that_takes_nothing_loses_the_client_with_1013() -> None:
    it = life()
    it.worker_stuck = 5.0
    assert it.tick(65.0) == [AbortWorker(), TellClient(1013, "try again later")]
    assert (it.client, it.worker) == (Side.CLOSING, Side.TOLD)


# -- draining -------------------------------------------------------------------------------------------------------


def test_draining_gives_a_time_and_then_closes() -> None:
    it = life()
    it.drain(SERVICE_RESTART, 10.0, 0.0)
    assert it.due() == 13.0
    assert it.tick(12.9) == []
    assert it.tick(13.0) == [TellWorker(SERVICE_RESTART), TellClient(SERVICE_RESTART, "service restart")]


def test_the_closes_are_spread_over_the_middle_half_of_the_time() -> None:
    it = life()
    it.drain(GOING_AWAY, 10.0, 0.999)
    assert 11.0 < it.due() < 11.01


def test_the_servers_end_has_the_last_word_on_the_code_and_the_first_deadline_holds() -> None:
    it = life()
    it.drain(SERVICE_RESTART, 10.0, 0.0)
    it.drain(GOING_AWAY, 12.0, 0.0)
    it.drain(SERVICE_RESTART, 13.0, 0.0)
    assert it.tick(14.0) == [TellWorker(GOING_AWAY), TellClient(GOING_AWAY, "going away")]


def test_an_application_that_does_not_end_is_left_when_its_process_is_to_go() -> None:
    it = life()
    it.client_lost(0.0)
    assert it.tick(1e6) == []  # for as long as it likes, else
    it.drain(SERVICE_RESTART, 1e6, 0.0)
    assert it.due() == 1e6 + 8.0
    assert it.tick(1e6 + 7.9) == []
    assert it.tick(1e6 + 8.0) == [LeaveWorker()]
    assert it.worker is Side.GONE


def test_an_application_that_is_told_late_has_its_time_too() -> None:
    it = life()
    it.drain(SERVICE_RESTART, 0.0, 0.0)
    it.tick(6.0)
    assert it.worker is Side.TOLD
    assert it.tick(9.9) == [] == it.tick(9.9)
    assert LeaveWorker() in it.tick(11.0)


FACTS = st.sampled_from(
    [
        "closes",
        "fails",
        "lost",
        "let_go",
        "worker_closes",
        "worker_ends",
        "worker_lost",
        "drain",
        "stuck",
        "moves",
        "tick",
    ]
)


@given(st.lists(st.tuples(FACTS, st.floats(0, 50))))
def test_each_side_is_told_once_and_everything_ends(facts: list[tuple[str, float]]) -> None:
    """Whatever happens, in whatever order the shell can tell it: nobody is told twice, nothing after an end, and time ends it."""
    it = life()
    now = 0.0
    orders: list[Order] = []
    told_by_worker = False
    for fact, wait in facts:
        now += wait
        reads = it.client in (Side.OPEN, Side.CLOSING)
        if fact == "closes" and reads:
            orders += it.client_closes(1000, "", now)
        elif fact == "fails" and reads:
            orders += it.client_fails(1002, "", now)
        elif fact == "lost" and reads:
            orders += it.client_lost(now)
        elif fact == "let_go" and it.client is Side.ENDING:
            it.client_let_go()
        elif fact == "worker_closes" and it.worker is not Side.GONE and not told_by_worker:
            told_by_worker = True
            orders += it.worker_closes(1000, "", now)
        elif fact == "worker_ends" and it.worker is Side.TOLD:
            it.worker_ends()
        elif fact == "worker_lost" and it.worker is not Side.GONE:
            orders += it.worker_lost(now)
        elif fact == "drain":
            it.drain(GOING_AWAY, now, 0.5)
        elif fact == "stuck" and it.client is Side.OPEN:
            it.client_stuck = now
        elif fact == "moves":
            it.client_stuck = math.inf
        elif fact == "tick":
            orders += it.tick(now)
            assert it.due() > now
    it.drain(GOING_AWAY, now, 0.0)
    while (due := it.due()) < math.inf:
        now = max(now, due)  # nobody ticked when the time went by
        orders += it.tick(now)
        assert it.due() > now
    for kind in (TellClient, TellWorker, AbortWorker, CutClient, LeaveWorker):
        assert sum(isinstance(order, kind) for order in orders) <= 1
    assert it.client is Side.GONE
    assert it.worker is Side.GONE
