"""Prometheus itself, of Debian's package: it scrapes a server, and has rules."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from passenger_trio.testing import eventually

__all__ = ["ALERTS", "Prometheus", "free_port", "prometheus"]

ALERTS = Path(__file__).resolve().parents[2] / "docs" / "alerts.yml"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Prometheus:
    """One that runs, and scrapes every half a second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, what: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/{what}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, series: str, by: str = "") -> dict[str, float]:
        """The sums of the last values, by one label. (A scrape that came too late on a busy machine does not make them stale.)"""
        query = urllib.parse.urlencode({"query": f"sum by ({by}) (last_over_time({series}[10m]))"})
        found = self.ask(f"query?{query}")["result"]
        return {one["metric"].get(by, ""): float(one["value"][1]) for one in found}

    def total(self, series: str) -> float:
        return self.values(series).get("", 0.0)

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}


@contextmanager
def prometheus(home: Path, target: str, rules: Path = ALERTS) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes ``target``, until the block ends. :param home: an empty directory. :param rules: a file of alert rules."""
    port = free_port()
    scrape = {
        "job_name": "passenger_trio",
        "scrape_interval": "500ms",
        "scrape_timeout": "500ms",
        "static_configs": [{"targets": [target]}],
    }
    settings = {"global": {"evaluation_interval": "1s"}, "rule_files": [str(rules)], "scrape_configs": [scrape]}
    (home / "prometheus.yml").write_text(json.dumps(settings))
    command = [
        *("prometheus", f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=home) as process:
        it = Prometheus(port)

        def serves() -> bool:
            assert process.poll() is None, (home / "log").read_text()
            with suppress(OSError):
                return it.total("passenger_trio_ready") == 1
            return False

        try:
            eventually(serves, timeout=60)
            yield it
        finally:
            process.terminate()
