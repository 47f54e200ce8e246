"""OB3: the three questions and each reason for a no."""

from __future__ import annotations

import pytest
from driven_pool import BLOG, SHOP, DrivenPool

from passenger_trio.core.health import QUESTIONS, Facts, Health, ask


def asked(pool: DrivenPool, question: str = "readyz", *, started: bool = True, draining: bool = False) -> Health:
    return ask(question, Facts(started, draining, pool.policy.statistics()))


def shop(**limits: int) -> DrivenPool:
    pool = DrivenPool(max_pool_size=4)
    pool.add(SHOP, warm=1, min_instances=1, **limits)
    return pool


@pytest.mark.parametrize("question", QUESTIONS)
def test_OB3_a_server_that_serves(question: str) -> None:
    found = asked(shop(), question)
    assert (found.ok, found.status, found.text(verbose=False)) == (True, 200, "ok\n")
    assert found.text(verbose=True).endswith(f"{question} check passed\n")


def test_OB3_while_it_starts() -> None:
    assert asked(shop(), "livez", started=False).ok
    for question in ("startupz", "readyz"):
        found = asked(shop(), question, started=False)
        assert (found.status, found.text(verbose=False)) == (503, "starting\n")
        assert "[-]started: starting\n" in found.text(verbose=True)


def test_OB3_while_it_drains() -> None:
    assert asked(shop(), "livez", draining=True).ok
    assert asked(shop(), "startupz", draining=True).ok
    found = asked(shop(), draining=True)
    assert (found.status, found.text(verbose=False)) == (503, "draining\n")


def test_OB3_a_full_queue_is_no_capacity() -> None:
    pool = shop(max_request_queue_size=2, max_instances=1)
    pool.take()
    pool.wait()
    assert asked(pool).ok
    pool.wait()
    found = asked(pool)
    assert (found.status, found.text(verbose=False)) == (503, "no capacity\n")
    assert "[-]shop (test): its request queue is full\n" in found.text(verbose=True)


def test_OB3_an_application_that_does_not_start_is_no_capacity() -> None:
    pool = DrivenPool(max_pool_size=4)
    pool.add(SHOP, min_instances=1)
    assert asked(pool).ok  # it is being started
    pool.failed()
    found = asked(pool)
    assert (found.status, found.text(verbose=False)) == (503, "no capacity\n")
    assert "[-]shop (test): it does not start: it does not start\n" in found.text(verbose=True)


def test_OB3_one_of_two_applications_is_enough() -> None:
    pool = shop()
    pool.add(BLOG, min_instances=1)
    pool.failed(key=BLOG)
    found = asked(pool)
    assert found.ok
    assert "[-]blog (test): it does not start: it does not start\n" in found.text(verbose=True)
    assert found.text(verbose=True).endswith("readyz check passed\n")


def test_OB3_briefly_it_names_no_application() -> None:
    found = asked(shop())
    assert "shop (test)" in found.text(verbose=True)
    assert (
        found.text(verbose=True, brief=True) == "[+]started ok\n[+]accepting ok\n[+]capacity ok\nreadyz check passed\n"
    )
