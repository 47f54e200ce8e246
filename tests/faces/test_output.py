"""The output of applications on real processes (OP20, fault 33): fast, whole, and as the operator wants it.

Starts the command: its log is the subject.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from faces_tools import AS_OURSELVES, write_app

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os

PRINTS = """
import os, sys
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(int(environ["QUERY_STRING"])):
        os.write(1, b"line %d of the output, which is of an ordinary length\\n" % number)
    return [b"written"]
"""
SAYS = """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    for line in (b'{"level": "info", "text": "of mine"}', b"plain", b"\\x1b[2Jtricky", b'{"not": json'):
        os.write(2, line + b"\\n")
    return [b""]
"""
MANY = 100_000


def test_OP20_nothing_is_lost_of_what_is_written_fast(tmp_path: Path) -> None:
    with Supervisor.start(write_app(tmp_path / "app", PRINTS)) as server:
        answer = server.get(f"/?{MANY}")
        assert answer.body == b"written"
        server.wait_log(f"line {MANY - 1} of the output")
        numbers = [int(json.loads(line)["event"].split()[1]) for line in server.log if '"event":"line ' in line]
        assert numbers == list(range(MANY))
        assert not [line for line in server.log if "lost here" in line or "left out" in line]


def test_OP20_a_reader_of_the_log_that_has_stopped_stops_no_application_and_the_losses_are_told(tmp_path: Path) -> None:
    """More than a pipe holds, and nobody reads: the application goes on, and later the log says how many lines are missing."""
    root = write_app(tmp_path / "app", PRINTS)
    with tempfile.TemporaryDirectory(prefix="pt-") as home:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "passenger_trio",
                "start",
                str(root),
                "-S",
                f"{home}/s",
                "--instance-dir",
                f"{home}/i",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **AS_OURSELVES},
            bufsize=0,
        )
        assert process.stderr is not None
        try:
            head = b""
            while b"Ctrl-C" not in head:
                head += process.stderr.read(4096)
            ask = ["curl", "-s", "-m", "60", "--unix-socket", f"{home}/s", "http://x/?20000"]
            assert subprocess.run(ask, capture_output=True, check=True).stdout == b"written"
            rest: list[bytes] = []
            reader = threading.Thread(target=lambda: rest.append(process.stderr.read()))  # type: ignore[union-attr]
            reader.start()
            ask[-1] = "http://x/?1"
            assert subprocess.run(ask, capture_output=True, check=True).stdout == b"written"
        finally:
            process.terminate()
        process.wait(60)
        reader.join(60)
        process.stderr.close()
        text = rest[0].decode()
        lost = [int(line.split()[0]) for line in text.splitlines() if line.endswith("of the log were lost here")]
        assert lost
        assert text.count("of the output, which") + sum(lost) >= 20_001 - len(lost)


@pytest.mark.parametrize("format", ["json", "console"])
def test_OP20_lines_come_out_as_they_are_on_request(tmp_path: Path, format: str) -> None:
    with Supervisor.start(
        write_app(tmp_path / "app", SAYS), "--disable-log-prefix", "--log-format", format, wait=format == "json"
    ) as server:
        if format == "console":
            server.wait_log("Ctrl-C stops")
            return
        server.get("/")
        server.wait_log("not")
        assert '{"level": "info", "text": "of mine"}' in server.log
        events = [json.loads(line) for line in server.log if line != '{"level": "info", "text": "of mine"}']
        ours = [event["event"] for event in events if event.get("app_pid") and event["logger"] == "passenger_trio.app"]
        assert ours == ["plain", "\x1b[2Jtricky", '{"not": json']
