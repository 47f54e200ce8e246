"""What a test leaves to look at: the sources of its timeline, its lint, its artefacts.

``SessionEvidence`` has what all tests of a run share: files to which the applications' processes
append. ``CaseEvidence`` has one live application of one test.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passenger_trio.admin.client import fetch
from passenger_trio.errors import AdminError
from passenger_trio.testing.artefacts import write_artefacts
from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.faults import Fault, Faults, FaultSetup
from passenger_trio.testing.lint import Finding, LintFile, lint_response
from passenger_trio.testing.tap import Tap
from passenger_trio.testing.timeline import Timeline, is_access_before, make_timeline

if TYPE_CHECKING:
    from passenger_trio.testing.live_app import LiveApp

__all__ = ["CaseEvidence", "SessionEvidence"]

_SETTLE = 1.0
"""Seconds in which the access log has the last requests."""
_FAULTY = r"soon after they have started|does not start|fault of the harness|gave up the restart of|buffering in .* failed|cannot accept"
"""Error lines that faults cause."""


class SessionEvidence:
    """What all tests share. Made at the first test that has a live application."""

    def __init__(self, home: Path, trace: str, output: Path, lint: str, seed: int) -> None:
        """:param home: a directory for its files. It is removed at the end."""
        self.home = home
        self.trace = trace
        self.output = output
        self.lint = lint
        self.seed = seed
        self.setup = FaultSetup(directory=home)
        self.machine: FaultSetup | None = None
        self.lint_file = LintFile(home)
        descriptor, self.times_path = tempfile.mkstemp(prefix="times-", dir=home)
        os.close(descriptor)

    def prepare(self, options: dict[str, Any], *, machine: bool) -> None:
        """Add to the options of a server what it needs, so that there can be evidence."""
        environment = {**self.setup.environment, "HARNESS_TIMES": self.times_path}
        if self.lint != "off":
            environment |= self.lint_file.environment
        given = options.get("env", {})
        options["env"] = {**dict(given), **environment}
        if machine:
            options["server_environment"] = self._machine().environment
        if self.trace != "off":
            options.setdefault("access_log", "-")
            options.setdefault("access_log_format", "json")

    def _machine(self) -> FaultSetup:
        if self.machine is None:
            self.machine = FaultSetup(machine=True, directory=self.home)
            self.machine.plan.close()
            self.machine.plan = self.setup.plan
        return self.machine

    def begin(self, test: str, live_app: LiveApp, number: int) -> CaseEvidence:
        """:param number: of the application in its test, from 0."""
        return CaseEvidence(self, test if not number else f"{test}-{number}", live_app)

    def close(self) -> None:
        self.setup.close()
        if self.machine is not None and self.machine.machine is not None:
            self.machine.machine.close()
        self.lint_file.close()
        shutil.rmtree(self.home, ignore_errors=True)


class CaseEvidence:
    """One live application of one test, from the moment when it serves."""

    def __init__(self, session: SessionEvidence, test: str, live_app: LiveApp) -> None:
        self._session = session
        self._test = test
        self.live_app = live_app
        self._begun = time.time()
        self._lint_mark = session.lint_file.mark()
        self._times_mark = os.path.getsize(session.times_path)
        self._unchecked: deque[Exchange] = deque()
        """Responses for the lint. Nobody checks them while they pass: the test waits for them (TH3)."""
        self._response_findings: list[Finding] = []
        self._made: list[Fault] = []
        self._failure = ""
        self._has_ended = False
        self._timeline: Timeline | None = None
        self._trace: dict[str, Any] | None = None
        self._lint_error = ""
        # A seed of its own for each test, so that it draws the same when it runs alone.
        digest = hashlib.sha256(f"{session.seed} {test}".encode()).digest()
        self._seed = int.from_bytes(digest[:4], "big")
        self._last = None if not live_app.is_ours or not live_app.server.exchanges else live_app.server.exchanges[-1]
        """The last request of an earlier test that did not come through a tap."""
        self._tap: Tap | None = None
        if session.trace != "off" or session.lint != "off":
            self._tap = Tap(live_app.address, self._unchecked.append, session.home)
            self._tap.begin()
            live_app.address = self._tap.address

    def _check_responses(self) -> None:
        while self._unchecked:
            exchange = self._unchecked.popleft()
            if self._session.lint == "off" or self._lint_error:
                continue
            try:
                self._response_findings += lint_response(
                    exchange.method.encode("latin-1"),
                    exchange.target.encode("latin-1"),
                    exchange.request_fields,
                    exchange.status or 0,
                    exchange.reason,
                    exchange.fields,
                    exchange.body,
                    complete=exchange.outcome == "complete" and len(exchange.body) == exchange.size,
                )
            except ImportError as error:
                self._lint_error = str(error)

    def faults(self, node: Any) -> Faults:
        """The faults of this application. Their effects on the log are expected."""
        machine = self._session.machine
        setup = machine if machine is not None and node.get_closest_marker("passenger_machine") else self._session.setup
        server = self.live_app.server if self.live_app.is_ours else None
        node.add_marker(_allow_log(_FAULTY))
        return Faults(server, setup, self._seed, address=self.live_app.address, on_made=self._made.append)

    # What it has found

    def findings(self) -> list[Finding]:
        self._check_responses()
        return [*self._session.lint_file.since(self._lint_mark), *self._response_findings]

    def failures(self) -> list[str]:
        """What fails the test."""
        texts = [
            f"the fault {fault!r} never began: use it in a with statement"
            for fault in self._made
            if not fault.has_begun
        ]
        if self._session.lint == "error":
            texts += [f"passenger-lint: {finding}" for finding in dict.fromkeys(self.findings())]
            texts += [self._lint_error] if self._lint_error else []
        return texts

    def warnings(self) -> list[str]:
        if self._session.lint != "warn":
            return []
        return [f"passenger-lint: {finding}" for finding in dict.fromkeys(self.findings())]

    def failed(self, report: str) -> None:
        self._failure = self._failure or report

    def timeline(self) -> Timeline:
        """The test so far; after its end, all of it."""
        return self._timeline if self._timeline is not None else self._make()

    def _make(self) -> Timeline:
        exchanges = [] if self._tap is None else list(self._tap.exchanges)
        if self.live_app.is_ours:
            exchanges += self.live_app.server.exchanges_since(self._last)
        log = self._settled_log(sum(one.ended is not None for one in exchanges))
        with open(self._session.times_path, "rb") as file:
            file.seek(self._times_mark)
            *lines, _ = file.read().split(b"\n")
        times = [json.loads(line) for line in lines]
        faults = [f"{fault!r}, fired {fault.fired} times" for fault in self._made]
        return make_timeline(
            self._test, self._begun, self._session.seed, exchanges, log, times, self.findings(), faults
        )

    def _settled_log(self, ended: int) -> list[dict[str, Any]]:
        """The log, when it has a line of the access log for each response that has ended."""
        deadline = time.monotonic() + (_SETTLE if self._session.trace != "off" and self.live_app.is_ours else 0)
        while True:
            log = [line for line in self.live_app.log if not is_access_before(line, self._begun)]
            if time.monotonic() >= deadline or sum(line.get("event") == "access" for line in log) >= ended:
                return log
            time.sleep(0.01)

    # Its end

    def end(self) -> None:
        """The test has ended, and its processes live: take what will be gone."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._session.trace == "on" or self._failure:
            self._timeline = self._make()
        self._take_trace()
        if self._tap is not None:
            self._tap.end()

    def _take_trace(self) -> None:
        wanted = self._session.trace == "on" or (self._session.trace == "retain-on-failure" and self._failure)
        if self._trace is None and wanted and self.live_app.is_ours:
            try:
                self._trace = fetch(str(self.live_app.server.ready["admin_socket"]), "/v1/trace")
            except (AdminError, KeyError):
                self._trace = {}  # the server has ended

    def write(self) -> list[Path]:
        """Write the artefacts if they are wanted: JSON and HTML. Returns the files."""
        trace = self._session.trace
        if trace == "off" or (trace == "retain-on-failure" and not self._failure):
            return []
        self._take_trace()
        return write_artefacts(self._session.output, self._test, self.timeline(), self._failure, self._trace)


def _allow_log(pattern: str) -> Any:
    import pytest

    return pytest.mark.passenger_allow_log(pattern)
