"""Measure passenger_trio beside real peers: ``nox -s bench`` or ``python tests/bench/bench.py [WORK ...]``. Never part of a verdict.

Ratios count, figures do not: load generator, server and application share one machine. Run it on a quiet one. The peers are started from
what is installed; one that is missing is named and left out. A JSON file with all samples is written to ``.bench/``; ``report.py`` makes
the figures in the documents of one.

Each work may last for three minutes, and all together for twenty: a work that is cut short, or left out, is named.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import peers
from measure import Figures, version_of, versions
from works import WORKS

WORK_LIMIT = 180
LIMIT = 20 * 60


class CutShort(Exception):
    """A work's time is over."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure passenger_trio beside real peers.")
    parser.add_argument("works", nargs="*", help=f"any of: {', '.join(WORKS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of each (default 3)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each run under load (default 3)")
    parser.add_argument(
        "--supervisor-python",
        action="append",
        default=[],
        metavar="PATH",
        help="measure our server on this interpreter, too (its environment must have passenger_trio); repeatable",
    )
    options = parser.parse_args()
    for name in options.works:
        if name not in WORKS:
            parser.error(f"there is no work {name!r}; choose from {', '.join(WORKS)}")
    supervisors = {peers.OURS.name: version_of(sys.executable)}
    for python in options.supervisor_python:
        version = version_of(python)
        name = f"passenger_trio on {' '.join(version.split()[:2])}"
        peers.OURS_ALL.append(peers.ours(str(Path(python).absolute()), name))
        supervisors[name] = version
    for peer in peers.PEERS:
        if not peer.installed:
            print(f"{peer.name} is not installed and is left out")
    report: Figures = {
        "date": time.strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "load_before": round(os.getloadavg()[0], 2),
        "supervisors": supervisors,
        "versions": versions(),
        "works": {},
    }
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    signal.signal(signal.SIGALRM, _cut_short)
    begun = time.monotonic()
    failed = False
    for name in options.works or WORKS:
        rest = LIMIT - (time.monotonic() - begun)
        print(f"\n== {name}: {(WORKS[name].__doc__ or '').strip()}", flush=True)
        if rest < 10:
            print("left out: the twenty minutes are over")
            continue
        signal.setitimer(signal.ITIMER_REAL, min(WORK_LIMIT, rest))
        try:
            report["works"][name] = WORKS[name](options.rounds, options.seconds)
        except CutShort:
            print("cut short: it took too long, with fewer --rounds or --seconds it does not")
        except Exception as error:  # noqa: BLE001  what fails one work does not end the others
            failed = True
            print(f"failed: {type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    path = Path(".bench") / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nall samples: {path} ({time.monotonic() - begun:.0f} s)")
    sys.exit(1 if failed else 0)


def _cut_short(number: int, frame: FrameType | None) -> None:
    raise CutShort


if __name__ == "__main__":
    main()
