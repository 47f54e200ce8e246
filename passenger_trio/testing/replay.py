"""Replays an artefact of a failed test: what the pool was told and what it decided, without the
application, the server or the machine.

    python -m passenger_trio.testing.replay test-results/NAME.json

The flight recorder's trace in the artefact is a list of facts. A new policy in the first state of the
trace gets the same facts, and must give the same commands.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from passenger_trio.core.recorder import replay

__all__ = ["main", "replay_artefact"]


def replay_artefact(artefact: dict[str, Any]) -> list[str]:
    """One line for each fact that the pool got, with its decisions.

    :raises ValueError: the artefact has no trace, or the policy decides differently now: it is of another version.
    """
    trace = artefact.get("trace")
    if not trace:
        raise ValueError("the artefact has no trace of the server")
    lines = []
    for number, (entry, answer) in enumerate(replay(trace), 1):
        if answer != entry.answer:
            raise ValueError(
                f"fact {number} ({entry.fact}): it was answered with {entry.answer}, and now with {answer}"
            )
        decided = "; ".join(type(it).__name__ for it in answer) if isinstance(answer, list) else repr(answer)
        lines.append(
            f"{entry.fact}({', '.join(f'{argument!r:.80}' for argument in entry.arguments)}) -> {decided or 'nothing'}"
        )
    return lines


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m passenger_trio.testing.replay ARTEFACT.json", file=sys.stderr)
        return 2
    try:
        lines = replay_artefact(json.loads(Path(arguments[0]).read_text()))
    except (OSError, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    print(f"{len(lines)} facts; the policy decides as it did")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
