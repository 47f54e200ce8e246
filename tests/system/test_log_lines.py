"""OB6: each line about a process or a request has fields for programs and is a sentence for people; one format of times."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import logging
import pkgutil
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from passenger_trio import log_lines
from passenger_trio.core.model import GroupKey
from passenger_trio.log_lines import KINDS, Kind, lines_of
from passenger_trio.server.logs.access_format import format_combined, format_json
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.system.logs import ConsoleFormatter, JsonFormatter
from passenger_trio.system.times import rfc3339

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "passenger_trio"
POOL_SIDE = [
    "pool",
    "spawning",
    "server",
    "admin",
    "error_kernel.py",
    "tree.py",
    "program.py",
    "program_tasks.py",
    "reload",
    "running.py",
    "fronts",
]
"""What spawns, routes, restarts, ends and serves: its lines have fields."""
CARRIERS = {PACKAGE / "fronts" / "reports.py", PACKAGE / "fronts" / "log_of_front.py"}
"""They carry lines that others have written, with their fields, from a front to its owner."""

TABLES = [f"passenger_trio.log_lines.{module.name}" for module in pkgutil.iter_modules(log_lines.__path__)]
for table in TABLES:
    importlib.import_module(table)
OURS = {name: kind for name, kind in KINDS.items() if kind.declaration.__module__ in TABLES}

SAMPLES: dict[Any, Any] = {
    GroupKey: GroupKey("shop", "staging"),
    str: "a text",
    int: 4711,
    float: 2.5,
    BaseException: ValueError("bad"),
}
NAMES = {"group", "environment", "pid", "status", "signal", "reason", "request_id", "error_id"}


def sources() -> list[Path]:
    found = [
        path
        for name in POOL_SIDE
        for path in ([PACKAGE / name] if name.endswith(".py") else (PACKAGE / name).rglob("*.py"))
    ]
    assert len(found) > 60
    return found


def test_OB6_no_line_of_the_pool_is_written_another_way() -> None:
    """A module without ``logging`` cannot write a line without fields; only ``log_lines`` writes for it."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module if isinstance(node, ast.ImportFrom) else ""
            assert path in CARRIERS or "logging" not in [*names, module], f"{path}:{node.lineno} logs by itself"  # type: ignore[attr-defined]


def test_OB6_each_kind_of_line_is_written_somewhere() -> None:
    text = "\n".join(path.read_text() for path in sources())
    unused = [name for name in OURS if not re.search(rf"\blines\.{name}\b", text)]
    assert not unused


def fields_of(kind: Kind) -> dict[str, tuple[Any, bool]]:
    """The type of each field, and whether it may be missing."""
    hints = get_type_hints(kind.declaration, vars(importlib.import_module(kind.declaration.__module__)))
    found = {}
    for name, parameter in inspect.signature(kind.declaration).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, (kind.name, name)
        options = get_args(hints[name]) or (hints[name],)
        missing = parameter.default is not inspect.Parameter.empty or type(None) in options
        found[name] = next(one for one in options if one is not type(None)), missing
    return found


@pytest.mark.parametrize("name", OURS)
def test_OB6_a_kind_has_fields_and_a_sentence(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kind = OURS[name]
    fields = fields_of(kind)
    assert fields, "a line without fields"
    assert not set(fields) & set(vars(logging.makeLogRecord({}))) - {"exc_info"}, "logging has that attribute"
    always = re.sub(r"<[^<>]*>", "", kind.sentence)
    shown = re.findall(r"\{(\w+)", kind.sentence)
    assert set(shown) <= set(fields)
    for field in re.findall(r"\{(\w+)", always):
        assert not fields[field][1], f"{field} may be missing, and its place in the sentence is not in <...>"
    caplog.set_level(logging.DEBUG, "passenger_trio")
    write = getattr(importlib.import_module(kind.declaration.__module__), name)
    for leaves_out in (False, True):
        caplog.clear()
        write(**{field: SAMPLES[type_] for field, (type_, missing) in fields.items() if not (missing and leaves_out)})
        [record] = caplog.records
        assert record.name.partition(".")[0] == "passenger_trio"
        line = json.loads(JsonFormatter().format(record))
        expected = {field for field, (_, missing) in fields.items() if not (missing and leaves_out)} - {"exc_info"}
        if "group" in expected and fields["group"][0] is GroupKey:
            expected.add("environment")
        assert set(line) - {"time", "level", "logger", "event", "kind", "traceback"} == expected
        assert (line["kind"], line["level"]) == (name, logging.getLevelName(kind.level).lower())
        assert not re.search(r"[{}<>]|None|\(\)|\[\]|  ", line["event"]), line["event"]
        console = ConsoleFormatter().format(record).splitlines()[0]
        assert console.endswith(f"{line['level']:8} {line['event']}"), (
            "a person reads the sentence, and no fields behind it"
        )


def test_OB6_a_group_is_its_name_and_its_environment(caplog: pytest.LogCaptureFixture) -> None:
    """So that ``group`` is the one of the access log and of the application's own lines."""
    from passenger_trio.log_lines import processes

    caplog.set_level(logging.DEBUG, "passenger_trio")
    processes.process_died(
        group=GroupKey("shop", "staging"), pid=12, how="killed by signal 9 (SIGKILL)", signal="SIGKILL"
    )
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert {name: line.get(name) for name in NAMES} == {
        "group": "shop",
        "environment": "staging",
        "pid": 12,
        "status": None,
        "signal": "SIGKILL",
        "reason": None,
        "request_id": None,
        "error_id": None,
    }
    assert line["event"] == "process 12 of shop (staging) ended: killed by signal 9 (SIGKILL)"


def test_OB6_writing_a_line_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes it may be in a step of the pool (KE1)."""

    @lines_of("passenger_trio.test")(logging.WARNING, "{seconds:.1f} s of {nothing}")
    def wrong(*, seconds: object) -> None: ...

    try:
        wrong(seconds="x")
    finally:
        del KINDS["wrong"]
    assert caplog.records[0].getMessage() == "wrong {'seconds': 'x'}"


def test_OB6_a_level_that_is_off_costs_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kind, "text", lambda *_: pytest.fail("the sentence was made"))
    monkeypatch.setattr(logging.getLogger("passenger_trio"), "level", logging.ERROR)
    logging.getLogger("passenger_trio.pool")._cache.clear()  # type: ignore[attr-defined]
    from passenger_trio.log_lines import processes

    processes.group_removed(group=GroupKey("shop", "staging"))
    logging.getLogger("passenger_trio.pool")._cache.clear()  # type: ignore[attr-defined]


AT = 1763883781.25
STAMP = "2025-11-23T07:43:01.250Z"


def test_OB6_times_have_one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 3339 in UTC, with milliseconds: on a console, in JSON, in the access log. Whatever the zone of the machine is."""
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        record = logging.makeLogRecord({"name": "passenger_trio.x", "msg": "m", "levelname": "INFO", "created": AT})
        access = AccessRecord("", AT, b"GET", b"/", b"1.1", 200, 0, b"", b"", 0.0, 0.0, 0, "shop", b"1")
        assert rfc3339(AT) == STAMP
        assert ConsoleFormatter().format(record).startswith(f"{STAMP} info ")
        assert ConsoleFormatter().lines(AT, "shop", 1, ["x"]) == [f"{STAMP} [shop 1] x"]
        assert json.loads(JsonFormatter().format(record))["time"] == STAMP
        assert json.loads(JsonFormatter().lines(AT, "shop", 1, ["x"])[0])["time"] == STAMP
        assert json.loads(format_json(access))["time"] == STAMP
        assert b"[23/Nov/2025:07:43:01 +0000]" in format_combined(access), "Apache's form, and the same zone"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_OB6_only_one_module_formats_times() -> None:
    """Kin of it: a second format would begin with another call. syslog's and HTTP's are those of their protocols, combined's is Apache's."""
    own = {"system/times.py", "server/logs/syslog.py", "server/logs/access_format.py", "server/http_date.py"}
    calls = re.compile(r"\b(strftime|isoformat|localtime|gmtime|asctime|fromtimestamp)\(")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "testing" not in path.parts and calls.search(path.read_text())
    }
    assert found == own


def rows() -> list[str]:
    made = []
    for kind in sorted(OURS.values(), key=lambda one: one.name):
        fields = [f"`{name}`" for name in fields_of(kind) if name != "exc_info"]
        sentence = kind.sentence.replace("|", "\\|")
        made.append(
            f"| `{kind.name}` | {logging.getLevelName(kind.level).lower()} | {', '.join(fields)} | {sentence} |"
        )
    return made


def test_OB6_the_documentation_has_each_kind() -> None:
    """docs/log.md; to renew its table: ``python tests/system/test_log_lines.py``."""
    text = (ROOT / "docs" / "log.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("| `") and line.count("|") >= 5] == rows()


if __name__ == "__main__":
    page = ROOT / "docs" / "log.md"
    before, heading, _ = page.read_text().partition("| kind | level | fields | sentence |\n")
    page.write_text(f"{before}{heading}|---|---|---|---|\n" + "\n".join(rows()) + "\n")
