"""Health: whether the server lives, has started, and can take requests, each with its reason (OB3).

Three questions, named as in Kubernetes:

* ``livez``: whether the event loop runs. The answer is never "no": a server that hangs does not answer.
* ``startupz``: whether the applications are ready for the first time (``readiness``).
* ``readyz``: whether a request that is sent now has a chance: the server has started, does not drain, and at least one
  application has capacity. One application of several that fails does not take the others out of a load balancer;
  ``?verbose`` shows it.

An application has capacity if its queue is not full, and a process serves or may still be started. No application is
asked: the pool knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from passenger_trio.core.state import EnabledStatus
from passenger_trio.core.statistics import GroupGauges, GroupStatistics, PoolStatistics
from passenger_trio.late_classes import frozen

__all__ = ["QUESTIONS", "Check", "Facts", "Health", "ask", "has_capacity"]

QUESTIONS = ("livez", "readyz", "startupz")


@frozen
class Facts:
    """What the answers depend on.

    :ivar started: whether the server has ever been ready.
    :ivar draining: whether the server stops, or closes connections after their response.
    :ivar pool: all groups, or only the active ones.
    """

    started: bool
    draining: bool
    pool: PoolStatistics


@frozen
class Check:
    """One condition.

    :ivar reason: why it is not met; ``""``: it is met.
    :ivar is_app: whether the condition is about one application.
    """

    name: str
    reason: str = ""
    is_app: bool = False


@frozen
class Health:
    """An answer.

    :ivar checks: each condition, for people; conditions about one application come last.
    """

    question: str
    ok: bool
    checks: tuple[Check, ...]

    @property
    def status(self) -> int:
        """The status of the HTTP answer: 200 or 503."""
        return 200 if self.ok else 503

    def text(self, *, verbose: bool, brief: bool = False) -> str:
        """The body of the HTTP answer: ``ok`` or the first reason; with ``verbose`` a line for each check.

        :param brief: leave out the lines about single applications.
        """
        if not verbose:
            return "ok\n" if self.ok else f"{next(check.reason for check in self.checks if check.reason)}\n"
        lines = [
            f"[-]{check.name}: {check.reason}" if check.reason else f"[+]{check.name} ok"
            for check in self.checks
            if not (brief and check.is_app)
        ]
        return "\n".join([*lines, f"{self.question} check {'passed' if self.ok else 'failed'}"]) + "\n"


def ask(question: str, facts: Facts) -> Health:
    """:param question: one of ``QUESTIONS``."""
    if question == "livez":
        return Health(question, True, (Check("loop"),))
    started = Check("started", "" if facts.started else "starting")
    if question == "startupz":
        return Health(question, facts.started, (started,))
    apps = [Check(str(group.key), _shortage(group), is_app=True) for group in facts.pool.groups]
    # A group that is left out is inactive: it has no waiter, and no failed start.
    capacity = Check("capacity", "" if facts.pool.left_out or _some_can(apps) else "no capacity")
    checks = (started, Check("accepting", "draining" if facts.draining else ""), capacity)
    return Health(question, not any(check.reason for check in checks), (*checks, *apps))


def has_capacity(group: GroupGauges) -> bool:
    """Whether an application has capacity, by its numbers alone."""
    if 0 < group.queue_limit <= group.waiting:
        return False
    return group.busy + group.idle > 0 or not group.failed


def _some_can(apps: Sequence[Check]) -> bool:
    return any(not app.reason for app in apps)


def _shortage(group: GroupStatistics) -> str:
    if 0 < group.limits.max_request_queue_size <= group.queue_length:
        return "its request queue is full"
    if any(process.state is EnabledStatus.ENABLED for process in group.processes):
        return ""
    return f"it does not start: {group.last_failure.summary}" if group.last_failure is not None else ""
