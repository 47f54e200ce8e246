"""For tests that run pytest in a directory of their own: without the plugins of packages of examples, which take long to be imported, and in the order in which
tests are written. Where no test of theirs is asynchronous, also without those that import Trio and Hypothesis, which is half of what a run costs.
"""

from __future__ import annotations


def _without(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("-p", f"no:{name}"))


WITHOUT = _without("cacheprovider", "randomly", "schemathesis", "faker")
NOT_ASYNCHRONOUS = _without("trio", "anyio", "hypothesispytest")
