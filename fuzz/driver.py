"""Runs a fuzz target for some time: with atheris where it is installed, else with Hypothesis.

A target is a function of bytes that returns when its invariant holds and raises when it does not; the first line of its module's
docstring is that invariant. ``run`` tries the files of a corpus as they are, then changes them. With atheris coverage leads; with
Hypothesis it is chance, with shrinking of what fails. What atheris finds goes to a temporary directory, never to the corpus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

__all__ = ["main", "mutations", "run"]

Target = Callable[[bytes], None]
MAX_LENGTH = 4096


def main(target: Target, corpus_dir: Path) -> None:
    """The command line of a target: ``--seconds N``."""
    parser = argparse.ArgumentParser(description=(sys.modules[target.__module__].__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to try (default: 30)")
    run(target, corpus_dir, parser.parse_args().seconds)


def run(target: Target, corpus_dir: Path, seconds: float) -> None:
    """Try ``target`` for ``seconds``; raises what it raises, with the bytes that did it in a note."""
    end = time.monotonic() + seconds
    corpus_dir.mkdir(parents=True, exist_ok=True)
    seeds = [path.read_bytes() for path in sorted(corpus_dir.iterdir()) if path.is_file()]
    for seed in seeds:
        _try(target, seed)
    left = end - time.monotonic()
    if left <= 0:
        return
    try:
        import atheris
    except ImportError:
        _with_hypothesis(target, seeds, end)
    else:
        _with_atheris(atheris, target, corpus_dir, left)


def mutations(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with pieces taken out, put in, doubled, and exchanged between them."""
    words = sorted(
        {word for seed in seeds for word in seed.replace(b"\r\n", b" \r\n ").split(b" ") if 0 < len(word) < 40}
    )
    piece = st.one_of(
        st.sampled_from(words or [b"\0"]), st.binary(min_size=1, max_size=4), st.just(b"\r\n"), st.just(b"")
    )

    @st.composite
    def mutated(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(seeds or [b""]))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            match draw(st.integers(0, 3)):
                case 0:
                    data = data[:at] + draw(piece) + data[at + draw(st.integers(0, 8)) :]
                case 1:
                    data = data[:at] + draw(piece) + data[at:]
                case 2:
                    data = data[:at] + data[max(0, at - draw(st.integers(0, 60))) :]
                case _:
                    other = draw(st.sampled_from(seeds or [b""]))
                    data = data[:at] + other[draw(st.integers(0, len(other))) :]
        return data[:MAX_LENGTH]

    return mutated()


def _with_hypothesis(target: Target, seeds: list[bytes], end: float) -> None:
    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutations(seeds))
    def attempt(data: bytes) -> None:
        # The end of the time ends a round early; the examples that are left cost nothing.
        if time.monotonic() < end:
            _try(target, data)

    rounds = 0
    while time.monotonic() < end:
        attempt()
        rounds += 1
    print(f"{rounds} rounds of 200 examples, nothing found (Hypothesis; install atheris for coverage-guided fuzzing)")


def _with_atheris(atheris: object, target: Target, corpus_dir: Path, seconds: float) -> None:
    found = tempfile.mkdtemp(prefix="passenger-trio-fuzz-")
    print(f"new inputs and failures go to {found}")
    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={MAX_LENGTH}",
        f"-artifact_prefix={found}/",
        found,
        str(corpus_dir),
    ]
    atheris.instrument_all()  # type: ignore[attr-defined]
    atheris.Setup(arguments, target)  # type: ignore[attr-defined]
    atheris.Fuzz()  # type: ignore[attr-defined]


def _try(target: Target, data: bytes) -> None:
    try:
        target(data)
    except Exception as error:
        error.add_note(f"fuzz input: {data!r}")
        raise
