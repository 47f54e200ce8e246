"""OB1: the alert rules that ship with the project are valid, ask only for metrics that there are, and fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from needs import needs

pytestmark = pytest.mark.os

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES = DOCS / "alerts.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}

JOB = 'job="passenger_trio"'
FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    # The series, and the labels of the alert. "0+0x30": 0 for 30 minutes; "0+1x30": one more each minute.
    "PassengerQueueGrows": ({'passenger_trio_queue_oldest_seconds{app="shop"}': "9+0x30"}, {"app": "shop"}),
    "PassengerRequestsRefused": (
        {'passenger_trio_requests_refused_total{reason="queue_full"}': "0+1x30"},
        {"reason": "queue_full"},
    ),
    "PassengerDoesNotStart": (
        {
            'passenger_trio_spawn_failures{app="shop",instance="a"}': "3+0x30",
            'passenger_trio_processes{app="shop",instance="a",state="busy"}': "0+0x30",
            'passenger_trio_processes{app="shop",instance="a",state="idle"}': "0+0x30",
            'passenger_trio_spawn_failures{app="blog",instance="a"}': "3+0x30",
            'passenger_trio_processes{app="blog",instance="a",state="idle"}': "1+0x30",
        },
        {"app": "shop", "instance": "a"},
    ),
    "PassengerCircuitOpen": ({'passenger_trio_circuit_open{app="shop"}': "1+0x30"}, {"app": "shop"}),
    "PassengerRestartRejected": ({'passenger_trio_restart_rejected{app="shop"}': "1+0x30"}, {"app": "shop"}),
    "PassengerReloadRefused": (
        {'passenger_trio_config_last_reload_successful{instance="a"}': "0+0x30"},
        {"instance": "a"},
    ),
    "PassengerProcessesCrash": (
        {'passenger_trio_processes_ended_total{app="shop",reason="signal"}': "0+1x30"},
        {"app": "shop", "reason": "signal"},
    ),
    "PassengerNotReady": ({'passenger_trio_ready{instance="a"}': "0+0x30"}, {"instance": "a"}),
    "PassengerBufferDiskFull": (
        {
            'passenger_trio_buffer_disk_bytes{instance="a"}': "90+0x30",
            'passenger_trio_buffer_disk_limit_bytes{instance="a"}': "100+0x30",
        },
        {"instance": "a"},
    ),
    "PassengerDescriptorsRunOut": (
        {
            'passenger_trio_connections{instance="a",state="idle"}': "95+0x30",
            'passenger_trio_connections_limit{instance="a"}': "100+0x30",
        },
        {"instance": "a"},
    ),
    "PassengerLoopLags": ({'passenger_trio_loop_lag_seconds{instance="a"}': "2+0x30"}, {"instance": "a"}),
    "PassengerFaults": ({'passenger_trio_faults_total{task="the hooks"}': "0+1x30"}, {"task": "the hooks"}),
}


def test_OB1_every_alert_asks_for_metrics_that_there_are() -> None:
    named = set(re.findall(r"^\| `([a-z_]+)`", (DOCS / "monitoring.md").read_text(), re.M))
    for name, rule in ALERTS.items():
        asked = set(re.findall(r"\b((?:passenger_trio|process)_[a-z_]+)\b", rule["expr"])) - {"passenger_trio"}
        assert asked, name
        assert {one.removesuffix("_total") for one in asked} <= named, name


def test_OB1_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    needs(shutil.which("promtool"), "promtool, of Debian's package prometheus")
    assert set(FIRES) == set(ALERTS)
    tests: list[dict[str, Any]] = []
    for name, (bare, bare_labels) in FIRES.items():
        # Whatever Prometheus scrapes has the name of its job, too: a rule that matches labels has to know it.
        series = {key.replace("}", f",{JOB}}}"): values for key, values in bare.items()}
        labels = {**bare_labels, "job": "passenger_trio"}
        quiet = {
            key: "1+0x30" if "ready" in key or "limit" in key or "successful" in key else "0+0x30" for key in series
        }
        for values, fires in ((series, True), (quiet, False)):
            alert = {"exp_labels": {**ALERTS[name]["labels"], **labels}} if fires else {}
            tests.append(
                {
                    "name": f"{name} {'fires' if fires else 'is quiet'}",
                    "interval": "1m",
                    "input_series": [{"series": key, "values": value} for key, value in values.items()],
                    "alert_rule_test": [
                        {"eval_time": "20m", "alertname": name, "exp_alerts": [alert] if fires else []}
                    ],
                }
            )
    # What a rule says for people is not what is tested here.
    rules = {
        "groups": [
            {
                "name": "t",
                "rules": [
                    {key: value for key, value in rule.items() if key != "annotations"} for rule in ALERTS.values()
                ],
            }
        ]
    }
    (tmp_path / "rules.yml").write_text(json.dumps(rules))
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(tmp_path / "tests.yml")]):
        told = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr
