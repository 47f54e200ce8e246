"""The files of a test that are left to look at: its timeline as JSON and as HTML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from passenger_trio.testing.timeline import Timeline
from passenger_trio.testing.timeline_page import timeline_page

__all__ = ["write_artefacts"]


def write_artefacts(
    output: Path, test: str, timeline: Timeline, failure: str, trace: dict[str, Any] | None
) -> list[Path]:
    """Write both into ``output``, named for the test. Returns the files.

    :param trace: of the server's flight recorder.
    """
    output.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", test).strip("-.")[-120:]
    content = {"timeline": timeline.as_json(), "failure": failure, "trace": trace or None}
    written = [output / f"{name}.json", output / f"{name}.html"]
    written[0].write_text(json.dumps(content, default=_as_text))
    # Names of files may be no text (PEP 383): what is left to look at must not end the run.
    written[1].write_text(timeline_page(timeline, failure), encoding="utf-8", errors="backslashreplace")
    return written


def _as_text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
