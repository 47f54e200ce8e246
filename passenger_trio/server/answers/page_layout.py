"""The layout of an error page: one self-contained document, light or dark as the reader prefers,
without scripts and without external resources.

Only ``escape`` turns text into HTML. It makes control characters visible, so that terminal colours
in an application's output cannot disturb the page. It cuts off the beginning of a long text,
because the end of an output shows the failure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "Page",
    "document",
    "escape",
    "paragraphs",
    "preformatted",
    "section",
    "small_document",
    "table",
    "wants_json",
]

_LONGEST = 128 * 1024
"""Characters of one text on a page."""

_HTML = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord('"'): "&quot;", ord("'"): "&#39;"}
_CONTROLS = {code: f"\\x{code:02x}" for code in [*range(0x20), *range(0x7F, 0xA0)] if code not in (0x09, 0x0A)}
_ESCAPES = {**_HTML, **_CONTROLS, 0x0D: None}
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Page(NamedTuple):
    """The response for the client: the value of ``Content-Type``, and the body."""

    content_type: bytes
    body: bytes


def wants_json(accept: bytes) -> bool:
    """Whether an ``Accept`` field prefers JSON to HTML. A mere ``*/*`` does not."""
    best_json = best_html = best_any = 0.0
    for item in accept[:4096].lower().split(b","):
        media, *parameters = (part.strip() for part in item.split(b";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media in (b"application/json", b"application/*") or media.endswith(b"+json"):
            best_json = max(best_json, quality)
        elif media in (b"text/html", b"application/xhtml+xml", b"text/*"):
            best_html = max(best_html, quality)
        elif media == b"*/*":
            best_any = max(best_any, quality)
    return best_json > best_html and best_json >= best_any


def escape(text: str) -> str:
    """Escape text for use as HTML text, or as a quoted attribute value."""
    if len(text) > _LONGEST:
        text = f"... ({len(text) - _LONGEST} characters cut off)\n{text[-_LONGEST:]}"
    return _COLOURS.sub("", text).translate(_ESCAPES)


def paragraphs(text: str) -> str:
    """Prose: an empty line separates paragraphs."""
    return "".join(f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())


def preformatted(text: str) -> str:
    return f"<pre>{escape(text.rstrip())}</pre>"


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of texts; ``""`` if there are none."""
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{cells}</table>" if cells else ""


def section(title: str, html: str, *, folded: bool = False, hopeful: bool = False) -> str:
    """A part of the page under a heading; ``""`` if the part is empty.

    :param html: made by the functions above.
    :param folded: show only the heading until it is clicked.
    :param hopeful: highlight the part as the one that helps.
    """
    if not html:
        return ""
    if folded:
        return f"<details><summary>{escape(title)}</summary>{html}</details>"
    mark = ' class="hopeful"' if hopeful else ""
    return f"<section{mark}><h2>{escape(title)}</h2>{html}</section>"


def document(title: str, label: str, html: str, footer: str) -> Page:
    """A page with a diagnosis. ``label`` is a few words above the title."""
    return _page(
        title,
        _CSS,
        f'<header><p class="label">{escape(label)}</p><h1>{escape(title)}</h1></header>'
        f"<main>{html}</main><footer>{escape(footer)}</footer>",
    )


def small_document(title: str, text: str, error_id: str = "") -> Page:
    """A page without a diagnosis."""
    identity = f'<p class="id">Error ID: <code>{escape(error_id)}</code></p>' if error_id else ""
    return _page(title, _SMALL_CSS, f"<h1>{escape(title)}</h1><p>{escape(text)}</p>{identity}")


def _page(title: str, css: str, html: str) -> Page:
    text = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body>{html}</body></html>\n"
    )
    return Page(b"text/html; charset=utf-8", text.encode("utf-8", "backslashreplace"))


def _squeezed(css: str) -> str:
    return re.sub(r"\s*([{};,])\s*", r"\1", css.strip())


_SMALL_CSS = _squeezed("""
body { font: 16px/1.5 system-ui, sans-serif; max-width: 34em; margin: 18vh auto 0; padding: 0 1.5em; }
h1 { font-size: 1.5em; }
.id { opacity: .7; font-size: .9em; }
""")

_CSS = _squeezed("""
:root {
  --text: #1d2430; --soft: #5c6675; --ground: #f4f5f7; --card: #fff; --line: #dfe3e8;
  --bad: #b3261e; --bad-ground: #fdecea; --good: #1b7f4b; --code: #f7f8fa;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e8ee; --soft: #9aa5b5; --ground: #14181f; --card: #1c222b; --line: #303945;
    --bad: #ff8a80; --bad-ground: #33201f; --good: #6fd3a0; --code: #151a21;
  }
}
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.55 system-ui, sans-serif; color: var(--text); background: var(--ground); }
header, main, footer { max-width: 62em; margin: 0 auto; padding: 0 1.5em; }
header { padding-top: 2.2em; }
h1 { font-size: 1.6em; line-height: 1.25; margin: .1em 0 .8em; overflow-wrap: anywhere; }
h2, summary { font-size: 1em; font-weight: 600; margin: 0 0 .5em; }
p { margin: 0 0 .6em; }
.label { color: var(--bad); font-weight: 600; letter-spacing: .02em; margin: 0; }
section, details {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 1em 1.2em; margin: 0 0 1em;
}
section.hopeful { border-left: 4px solid var(--good); }
summary { cursor: pointer; margin: 0; }
details[open] summary { margin-bottom: .7em; }
pre {
  margin: 0; padding: .9em 1em; overflow: auto; max-height: 32em; background: var(--code); border: 1px solid var(--line);
  border-radius: 6px; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
}
pre b { color: var(--bad); }
code { font: 13px ui-monospace, monospace; }
ol { list-style: none; margin: 0; padding: 0; }
li { display: flex; gap: .8em; padding: .3em .6em; border-radius: 5px; }
li span:first-child { width: 1em; }
li span:nth-child(2) { flex: 1; }
li.performed span:first-child { color: var(--good); }
li.errored { background: var(--bad-ground); color: var(--bad); font-weight: 600; }
li.not_started { color: var(--soft); }
li time { color: var(--soft); font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font: 13px/1.5 ui-monospace, monospace; }
td { border-top: 1px solid var(--line); padding: .25em .6em .25em 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { color: var(--soft); max-width: 22em; }
footer { color: var(--soft); font-size: .87em; max-width: 71.2em; padding: 0 1.72em 3em; }
@media (max-width: 40em) {
  header, main { padding-left: 1em; padding-right: 1em; }
  footer { padding-left: 1.15em; padding-right: 1.15em; }
  section, details { padding: .8em .9em; }
  td { min-width: 4.5em; }
}
""")
