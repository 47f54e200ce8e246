"""Health of a running server, as values (``core.health``) and as answers (OB3)."""

from __future__ import annotations

import trio

from passenger_trio.codecs.admin_api import Text
from passenger_trio.core.health import Facts, Health, ask
from passenger_trio.core.statistics import PoolStatistics
from passenger_trio.running import RunningServer

__all__ = ["facts", "health", "health_answer", "public_health"]


def health(server: RunningServer, question: str, *, verbose: bool = True) -> Health:
    """:param question: one of ``core.health.QUESTIONS``.
    :param verbose: with a check for each application. There may be thousands.
    """
    pool = server.pool
    return ask(question, facts(server, pool.statistics() if verbose else pool.active_statistics()))


def facts(server: RunningServer, pool: PoolStatistics) -> Facts:
    """Collect the facts that health depends on."""
    return Facts(server.started, server.stopping or server.front.draining, pool)


def health_answer(server: RunningServer, question: str, *, verbose: bool, brief: bool = False) -> Text:
    """The answer over HTTP. :param verbose: with a line for each check. :param brief: none for each application."""
    found = health(server, question, verbose=verbose and not brief)
    text = found.text(verbose=verbose, brief=brief)
    return Text(found.status, "text/plain; charset=utf-8", text.encode("utf-8", "backslashreplace"))


async def public_health(server: RunningServer, question: str, verbose: bool) -> tuple[int, bytes]:
    """The answer for a public listener: status and text, without names and reasons (``server/health_paths.py``)."""
    found = health_answer(server, question, verbose=verbose, brief=True)
    await trio.lowlevel.checkpoint()
    return found.status, found.body
