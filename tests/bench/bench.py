"""Measure passenger_trio beside real peers: ``nox -s bench`` or ``python tests/bench/bench.py [WORK ...]``. Never part of a verdict.

Ratios count, figures do not: load generator, server and application share one machine. Run it on a quiet one. The peers are started from
what is installed; one that is missing is named and left out. A JSON file with all samples is written to ``.bench/``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

from peers import OURS, PASSENGER
from works import WORKS


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure passenger_trio beside real peers.")
    parser.add_argument("works", nargs="*", help=f"any of: {', '.join(WORKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of each (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="length of each run under load (default 5)")
    options = parser.parse_args()
    for name in options.works:
        if name not in WORKS:
            parser.error(f"there is no work {name!r}; choose from {', '.join(WORKS)}")
    for peer in (OURS, PASSENGER):
        if not peer.installed:
            print(f"{peer.name} is not installed and is left out")
    report: dict[str, object] = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }
    for name in options.works or WORKS:
        print(f"\n== {name}: {(WORKS[name].__doc__ or '').strip()}")
        report[name] = WORKS[name](options.rounds, options.seconds)
    path = Path(".bench") / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nall samples: {path}")


if __name__ == "__main__":
    main()
