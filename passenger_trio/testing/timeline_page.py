"""A timeline as one HTML document: nothing is loaded, there is no script, and every value is escaped.

Each request is a row of bars on one axis: the client's (from its first byte to the last of the
response), the queue's, the process's and the application's.
"""

from __future__ import annotations

from html import escape

from passenger_trio.testing.timeline import Row, Timeline

__all__ = ["timeline_page"]

_STYLE = """
:root { color-scheme: light dark; --client: #4878a8; --queue: #c9a227; --process: #5a9367; --application: #9b5aa8; --bad: #c0392b; }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
h1 { font-size: 1.3em; overflow-wrap: anywhere; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .2em .6em .2em 0; vertical-align: top; }
.chart { position: relative; min-width: 20em; width: 50%; } .lane { position: relative; height: .7em; margin: .15em 0; background: #8881; }
.bar { position: absolute; top: 0; height: 100%; min-width: 2px; border-radius: 2px; }
.client { background: var(--client); } .queue { background: var(--queue); } .process { background: var(--process); }
.application { background: var(--application); } .bad { color: var(--bad); font-weight: 600; }
.legend span { display: inline-block; width: .9em; height: .7em; margin: 0 .3em 0 1em; border-radius: 2px; }
code, pre { font: 12px/1.5 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; } .small { opacity: .75; font-size: .9em; }
"""
_LANES = ("client", "queue", "process", "application")


def timeline_page(timeline: Timeline, failure: str = "") -> str:
    """:param failure: the failed test's report, as text."""
    end = max((value for row in timeline.rows for _, value in _spans(row).values()), default=0.0) or 0.001
    legend = "".join(f'<span class="{lane}"></span>{lane}' for lane in _LANES)
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(timeline.test)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(timeline.test)}</h1>",
        f'<p class="small">Times are seconds since the test began; the axis ends at {end:.3f}. --passenger-seed {timeline.seed}</p>',
    ]
    if failure:
        parts.append(f"<h2>Failure</h2><pre>{escape(failure)}</pre>")
    parts.append(f'<h2>Requests</h2><p class="legend small">{legend}</p><table>')
    parts.append("<tr><th>at<th>request<th>response<th>timeline<th>process")
    parts += [_row(row, end) for row in timeline.rows]
    parts.append("</table>")
    if timeline.faults:
        parts.append(
            "<h2>Faults</h2><ul>" + "".join(f"<li><code>{escape(it)}</code>" for it in timeline.faults) + "</ul>"
        )
    if timeline.findings:
        parts.append("<h2>Lint</h2><dl>")
        for it in timeline.findings:
            parts.append(
                f"<dt><code>{escape(it.rule)}</code> {escape(it.request)}: {escape(it.detail)}<dd>{escape(it.text)}"
            )
        parts.append("</dl>")
    parts.append("<h2>Log of this test</h2><table>")
    for line in timeline.log:
        bad = ' class="bad"' if line.level in ("error", "critical") else ""
        parts.append(f"<tr><td>{line.at:.3f}<td{bad}>{escape(line.level)}<td><code>{escape(line.text)}</code>")
    parts.append("</table></html>")
    return "\n".join(parts) + "\n"


def _spans(row: Row) -> dict[str, tuple[float, float]]:
    """Lane -> when it begins and ends."""
    spans = {}
    last = max((time for time in (row.ended, row.first_byte, row.sent, row.begun) if time is not None), default=None)
    if row.begun is not None and last is not None:
        spans["client"] = (row.begun, last)
    if row.arrived is not None and row.queued is not None and row.served is not None:
        spans["queue"] = (row.arrived, row.arrived + row.queued)
        spans["process"] = (row.arrived + row.queued, row.arrived + row.served)
    if row.app_begun is not None and row.app_ended is not None:
        spans["application"] = (row.app_begun, row.app_ended)
    return spans


def _row(row: Row, end: float) -> str:
    spans = _spans(row)
    lanes = []
    for lane in _LANES:
        bar = ""
        if lane in spans:
            begins, ends = (min(max(time / end * 100, 0), 100) for time in spans[lane])
            title = f"{lane}: {spans[lane][0]:.3f} to {spans[lane][1]:.3f}"
            bar = (
                f'<div class="bar {lane}" style="left:{begins:.2f}%;width:{ends - begins:.2f}%" title="{title}"></div>'
            )
        lanes.append(f'<div class="lane">{bar}</div>')
    bad = row.outcome not in ("complete", "not seen", "upgraded", "read as bytes") or (row.status or 0) >= 500
    response = f"{'none' if row.status is None else row.status}, {row.size} bytes, {row.outcome}"
    process = "" if row.pid is None else f"{row.pid}{', sent again' if row.retried else ''}"
    if row.raised:
        process += f'<br><span class="bad">{escape(row.raised)}</span>'
    return (
        f"<tr><td>{row.at:.3f}<td><code>{escape(row.method)} {escape(row.target)}</code>"
        f'<td{" class=bad" if bad else ""}>{escape(response)}<td class="chart">{"".join(lanes)}<td>{process}'
    )
