"""How a state machine is searched where the answer must be the same each time: without shrinking, and without a database."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

__all__ = ["same_each_time"]


def same_each_time(max_examples: int, steps: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
