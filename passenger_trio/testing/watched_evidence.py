"""What a failing test shows of a server that it, or a fixture, has started by ``Supervisor.start``: the requests as its clients and its access log
have them, and its log of that test.

Nothing stands between such a server and its clients, for its address may be what the test is about. So the clients' half is known of ``connect``, ``get``
and ``post`` of the server only, and the access log, in whatever format it is, has the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from passenger_trio.testing.artefacts import write_artefacts
from passenger_trio.testing.live_app import as_record
from passenger_trio.testing.timeline import Timeline, is_access_before, make_timeline
from passenger_trio.testing.watch import Watch, Watched

__all__ = ["WatchedEvidence"]

_COMBINED = re.compile(
    r'\S* - - \[(?P<time>[^]]+)\] "(?:(?P<method>\S+) (?P<target>.*?) HTTP/[\d.]+|-)" (?P<status>\d+) (?P<bytes_sent>\d+) ".*" id=(?P<request_id>\S+)'
    r" pid=(?P<pid>\d+) group=\S* time=(?P<duration>[\d.]+) queue=(?P<queue_time>[\d.]+)(?P<rest>.*)"
)


class WatchedEvidence:
    """One such server, during one test."""

    def __init__(self, test: str, seed: int, watch: Watch, watched: Watched) -> None:
        self._test = test
        self._seed = seed
        self._begun = watch.begun
        self._watched = watched

    def timeline(self) -> Timeline:
        server, log, access, last = self._watched
        return make_timeline(
            self._test,
            self._begun,
            self._seed,
            server.exchanges_since(last),
            [as_record(line) for line in server.log[log:]]
            + [line for line in read_access(server.access_log()[access:]) if not is_access_before(line, self._begun)],
            (),
        )

    def write(self, output: Path, failure: str) -> list[Path]:
        """Write the artefacts. Returns the files."""
        return write_artefacts(output, self._test, self.timeline(), failure, self._watched.server.take_trace())


def read_access(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of an access log as objects of its JSON format, as far as a timeline has them. Lines in a format of one's own are left out."""
    return [one for line in lines if (one := _read_one(line))]


def _read_one(line: str) -> dict[str, Any]:
    if line.startswith("{"):
        try:
            found = json.loads(line)
        except ValueError:
            return {}
        return found if isinstance(found, dict) and found.get("event") == "access" else {}
    match = _COMBINED.fullmatch(line)
    if match is None:
        return {}
    spilled = re.search(r" spilled=(\d+)", match["rest"])
    return {
        "event": "access",
        "whole_second": True,
        "time": datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z").isoformat(),
        "method": match["method"] or "",
        "target": match["target"] or "",
        "status": int(match["status"]),
        "bytes_sent": int(match["bytes_sent"]),
        "duration": float(match["duration"]),
        "queue_time": float(match["queue_time"]),
        "pid": int(match["pid"]),
        "request_id": match["request_id"],
        "retried": " retried=1" in match["rest"],
        "spilled": int(spilled[1]) if spilled else 0,
    }
