"""The figures of ``docs/performance.md``, and the few of the README, made of ``docs/performance.json``.

    python tests/bench/report.py                      write both sections again
    python tests/bench/report.py .bench/RUN.json ...  take the figures of these runs first; a later one wins, work by work
    python tests/bench/report.py docs/performance.json .bench/RUN.json  for a run of some works: keep the others; each table of another run says so

``docs/performance.json`` is the summary of a run: everything but the single samples. ``tests/bench/test_report.py`` holds both documents to it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
SUMMARY = ROOT / "docs" / "performance.json"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "growth.svg"
BEGIN = "<!-- performance: made by tests/bench/report.py from docs/performance.json -->"
END = "<!-- end of performance -->"

Figures = dict[str, Any]
Cell = Callable[[Figures], str]


def number(name: str, digits: int = 0) -> Cell:
    return lambda row: f"{row[name]:,.{digits}f}".replace(",", " ") if name in row else "-"


def ratio(row: Figures) -> str:
    """Ours to it, once for each interpreter."""
    return " / ".join(f"{value:.2f}" for value in row["ratios"].values())


REQUESTS = {
    "requests/s": number("requests_per_second"),
    "ours / it": ratio,
    "server CPU, us": number("own_cpu_us"),
    "with the application, us": number("all_cpu_us"),
    "server RSS, MiB": number("own_rss_mib"),
}
FRONTS = {
    "requests/s": number("requests_per_second"),
    "one front / two fronts, to it": ratio,
    "server CPU, us": number("own_cpu_us"),
    "with the application, us": number("all_cpu_us"),
}
RATES = {"MB/s": number("mb_per_second"), "ours / it": ratio}
MESSAGES = {"messages/s": number("messages_per_second"), "ours / it": ratio, "server CPU, us": number("own_cpu_us")}

# Work -> heading, columns.
TABLES: dict[str, tuple[str, dict[str, Cell]]] = {
    "wsgi": ("Hello world, WSGI", REQUESTS),
    "rack": ("Hello world, Rack", REQUESTS),
    "asgi": ("Hello world, ASGI", REQUESTS),
    "browser_wsgi": ("Ten browser headers, a cookie, 2 KiB of HTML, WSGI", REQUESTS),
    "browser_rack": ("Ten browser headers, a cookie, 2 KiB of HTML, Rack", REQUESTS),
    "flask": ("Flask, a template, 1 ms of work", REQUESTS),
    "fronts_wsgi": ("Two fronts: hello world, WSGI", FRONTS),
    "fronts_rack": ("Two fronts: hello world, Rack", FRONTS),
    "fronts_browser_wsgi": ("Two fronts: browser headers, WSGI", FRONTS),
    "fronts_browser_rack": ("Two fronts: browser headers, Rack", FRONTS),
    "fronts_latency": (
        "Latency, hello WSGI, us",
        {
            f"{what}, {count} connections": number(f"{what}_of_{count}_us")
            for count in (1, 4, 32)
            for what in ("p50", "p99")
        },
    ),
    "fronts_cost": (
        "CPU of fronts and owner for a request, 8 processes of 4 threads",
        {"server CPU, us": number("own_cpu_us"), "to one front": number("to_one_front", 2)},
    ),
    "fronts_light": (
        "A lightly loaded server: 1 process, 50 requests/s",
        {"p50, ms": number("p50_ms", 2), "p99, ms": number("p99_ms", 2)},
    ),
    "fronts_order": (
        "Order of service: 2 processes, 5 ms a request, 24 clients",
        {
            "a younger one first by, p99, ms": number("overtaken_p99_ms", 1),
            "at most, ms": number("overtaken_most_ms", 1),
            "wait p50, ms": number("wait_p50_ms", 1),
            "wait p99, ms": number("wait_p99_ms", 1),
        },
    ),
    "fronts_spread": (
        "Connections over 4 fronts",
        {"the busiest front has of its share": number("busiest", 2)},
    ),
    "calls": ("System calls of the server for each request", {"calls": number("calls_per_request", 1)}),
    "policy": (
        "A decision of the pool (groups x processes)",
        {"at once, us": number("fast_us", 1), "through the queue, us": number("queue_us", 1)},
    ),
    "download": ("A response of 100 MiB", RATES),
    "upload": ("An upload of 200 MiB, buffered, read by the application", RATES),
    "stalled": (
        "20 clients that stop reading, 20 MiB each",
        {
            "processes free after, s": number("free_seconds", 2),
            "fast readers take, s": number("fast_seconds", 2),
            "RSS grew by, MiB": number("rss_growth_mib", 1),
        },
    ),
    "stream": (
        "A chunk, from the application's write to the client",
        {"ms": number("plain_ms", 2), "behind 8 MiB on disk, ms": number("buffered_ms", 2)},
    ),
    "slow_readers": (
        "A healthy client's p99",
        {"alone, ms": number("alone_ms", 2), "beside 200 slow ones, ms": number("beside_ms", 2)},
    ),
    "idle": ("8 000 idle keep-alive connections", {"bytes for each": number("bytes_per_connection")}),
    "spawn": (
        "A further process is ready",
        {"ms": number("ms"), "three of them, PSS, MiB": number("pss_of_three_mib", 1)},
    ),
    "start": (
        "From the command to the first answer",
        {"ms": number("ms"), "server RSS, MiB": number("own_rss_mib", 1)},
    ),
    "websocket": ("WebSocket echo, ASGI, 50 connections, 100 bytes, one process", MESSAGES),
    "relay": ("WebSocket echo on a hijacked Rack connection, 50 connections, two processes", MESSAGES),
}


# Lines of the README: work, what it is called there, its figures.
BRIEF: tuple[tuple[str, str, Cell], ...] = (
    ("wsgi", "Hello world, WSGI, requests/s", number("requests_per_second")),
    ("rack", "Hello world, Rack, requests/s", number("requests_per_second")),
    ("websocket", "WebSocket echo, ASGI, messages/s", number("messages_per_second")),
    ("download", "A response of 100 MiB, MB/s", number("mb_per_second")),
    ("spawn", "A further process is ready, ms", number("ms")),
    ("start", "From the command to the first answer, ms", number("ms")),
)


def _listed(figures: list[tuple[str, str]]) -> str:
    """``name: figure; name: figure``; ours without its name."""
    named = [(name.removeprefix("passenger_trio").removeprefix(", "), figure) for name, figure in figures]
    return "; ".join(f"{name}: {figure}" if name else figure for name, figure in named)


def _one_and_others(dates: list[str]) -> str:
    *first, last = dates
    return f"{', '.join(first)} and {last}" if first else last


def brief(summary: Figures) -> str:
    """The README's section: a line for each work, ours first, whoever is faster."""
    others = {run["date"] for work, *_ in BRIEF if (run := summary["works"].get(work, {}).get("run"))}
    parts = [
        f"Measured on {_one_and_others(sorted({summary['date'], *others}))}: load generator, server and application share a machine of two cores, two processes each.",
        "Compare the figures of one line only. All tables, and how to repeat them: [docs/performance.md](docs/performance.md).",
        "",
        "| | passenger_trio | others |",
        "|---|---:|---|",
    ]
    for work, heading, cell in BRIEF:
        if work in summary["works"]:
            figures = [(name, cell(row)) for name, row in summary["works"][work]["rows"].items()]
            ours = [(name, figure) for name, figure in figures if name.startswith("passenger_trio")]
            others = [(name, figure) for name, figure in figures if not name.startswith("passenger_trio")]
            parts.append(f"| {heading} | {_listed(ours)} | {_listed(others)} |")
    return "\n".join(parts)


def _measured(work: Figures, summary: Figures) -> list[str]:
    """When, if it was another run than the page's."""
    run = work.get("run")
    if run is None:
        return []
    versions = [f"{name} {what}" for name, what in run["versions"].items() if summary["versions"].get(name) != what]
    other = f" {', '.join(versions)}." if versions else ""
    return ["", f"(Measured on {run['date']}, {run['rounds']} alternating runs of {run['seconds']} s.{other})"]


def section(summary: Figures) -> str:
    """The tables of docs/performance.md."""
    supervisors = " and on ".join(summary["supervisors"].values())
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    parts = [
        f"Measured on {summary['date']} with `python3 noxfile.py -s bench`; the supervisor on {supervisors}. Load generator, server and application share one machine,",
        'so read the ratios ("ours / it", one for each interpreter), not the figures. Two processes each, `wrk -t1 -c32`, '
        + f"{summary['rounds']} alternating runs of {summary['seconds']} s, medians. "
        + f"Load of the machine before it began: {summary['load_before']:g}.",
        '"Server" is what runs no application: ours and Passenger\'s; with the others the workers are the server.',
        f"Versions: {versions}.",
    ]
    for work, (heading, columns) in TABLES.items():
        if work in summary["works"]:
            parts += ["", f"| {heading} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
            for name, row in summary["works"][work]["rows"].items():
                parts.append(f"| {name} | {' | '.join(cell(row) for cell in columns.values())} |")
            parts += _measured(summary["works"][work], summary)
    if "growth" in summary["works"]:
        parts += ["", "![CPU for each request as groups, processes and connections grow](growth.svg)"]
    return "\n".join(parts)


def with_section(text: str, made: str) -> str:
    """The document ``text`` with another section.

    :raises ValueError: the markers are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"a document has no markers for its performance section: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def summarised(run: Figures) -> Figures:
    """Without the single samples."""
    works = {
        work: {
            **{name: fact for name, fact in found.items() if name == "run"},
            "rows": {name: {k: v for k, v in row.items() if k != "all"} for name, row in found["rows"].items()},
        }
        for work, found in run["works"].items()
    }
    return {**run, "works": works}


def main() -> None:
    summary: Figures = {"works": {}}
    for path in sys.argv[1:]:
        run = summarised(json.loads(Path(path).read_text()))
        if summary["works"].keys() <= run["works"].keys():  # a whole run: the page is of that one
            summary = {**run, "works": {**summary["works"], **run["works"]}}
        else:
            facts = {name: run[name] for name in ("date", "rounds", "seconds", "versions")}
            works = {name: {**work, "run": facts} for name, work in run["works"].items()}
            summary = {**summary, "works": {**summary["works"], **works}}
        if "growth" in run["works"] and Path(path).resolve() != SUMMARY:
            shutil.copy(Path(path).parent / "growth.svg", PLOT)
    if sys.argv[1:]:
        SUMMARY.write_text(json.dumps(_rounded(summary), indent=1) + "\n")
    summary = json.loads(SUMMARY.read_text())
    for document, made in ((README, brief(summary)), (PAGE, section(summary))):
        document.write_text(with_section(document.read_text(), made))


def _rounded(value: Any) -> Any:
    """Four digits say all that a benchmark knows."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


if __name__ == "__main__":
    main()
