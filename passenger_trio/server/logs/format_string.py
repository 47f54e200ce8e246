r"""Format strings of the access log (OB5): Apache's directives, gunicorn's, and ours. Compiled once, at the start.

    %h %l %u %t "%r" %>s %b            Apache (mod_log_config): %a %b %B %D %h %H %l %m %q %r %s %>s %t %T %{UNIT}T %u %U
                                       %{NAME}i, and %%
    %(h)s %(t)s "%(r)s" %(s)s          gunicorn: %(h)s (l u t r m U q H s b B f a T D M L p) and %({NAME}i)s
    %{queue}x %{group}x                ours, see ``_OURS``

Where Apache and gunicorn give a letter different meanings, the form of the directive decides: ``%a`` is the address of the
client, and ``%(a)s`` its user agent.

Law (R37): whatever a client sent, an entry is one line of printable UTF-8. Quotes and backslashes of the client are
escaped, so that the entry can be split. An unknown directive is an error of the option, and never an empty word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from passenger_trio.errors import OptionError
from passenger_trio.server.logs.access_format import apache_time, printable
from passenger_trio.server.logs.access_record import AccessRecord

__all__ = ["DIRECTIVES_OF_OURS", "compile_format"]

Value = Callable[[AccessRecord], object]

_DIRECTIVE = re.compile(r"%(?:%|\((?:\{([^{}]+)\}([io])|([A-Za-z]))\)s|>?(?:\{([^{}]+)\})?([A-Za-z]))")
_STRAY = re.compile(r"%")


def _client(part: bytes) -> str:
    """Bytes of a client, escaped."""
    return printable(part) if part else "-"


def _path(record: AccessRecord) -> str:
    return _client(record.target.partition(b"?")[0])


def _query(record: AccessRecord) -> bytes:
    return record.target.partition(b"?")[2]


def _apache_query(record: AccessRecord) -> str:
    query = _query(record)
    return f"?{printable(query)}" if query else ""


def _request_line(record: AccessRecord) -> str:
    if not record.method:
        return "-"
    return printable(b"%b %b HTTP/%b" % (record.method, record.target, record.version))


def _protocol(record: AccessRecord) -> str:
    return f"HTTP/{printable(record.version)}"


def _remote(record: AccessRecord) -> str:
    return _client(record.remote.encode("utf-8", "surrogateescape"))


def _size_or_dash(record: AccessRecord) -> object:
    return record.bytes_sent or "-"


_BOTH: dict[str, Value] = {
    "h": _remote,
    "l": lambda record: "-",
    "u": lambda record: "-",
    "t": lambda record: apache_time(record.time),
    "r": _request_line,
    "m": lambda record: _client(record.method),
    "U": _path,
    "H": _protocol,
    "s": lambda record: record.status,
    "b": _size_or_dash,
    "B": lambda record: record.bytes_sent,
    "T": lambda record: int(record.duration),
    "D": lambda record: int(record.duration * 1e6),
}
_APACHE: dict[str, Value] = {**_BOTH, "a": _remote, "q": _apache_query}
_GUNICORN: dict[str, Value] = {
    **_BOTH,
    "q": lambda record: printable(_query(record)),
    "f": lambda record: _client(record.referer),
    "a": lambda record: _client(record.agent),
    "M": lambda record: int(record.duration * 1e3),
    "L": lambda record: f"{record.duration:.6f}",
    "p": lambda record: f"<{record.pid}>",
}
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_OURS: dict[str, tuple[str, Value]] = {
    "total": ("seconds from the first byte of the request to the last of the response", lambda r: f"{r.duration:.6f}"),
    "queue": ("seconds of waiting for a process", lambda r: f"{r.queue_time:.6f}"),
    "app": ("seconds for which a process had the request", lambda r: f"{r.app_time:.6f}"),
    "pid": ("of the process that answered; 0: none", lambda r: r.pid),
    "group": ("name of the application", lambda r: printable(r.group.encode("utf-8", "surrogateescape")) or "-"),
    "id": ("the request's id", lambda r: _client(r.request_id)),
    "start": (
        "when it was first seen, by a trusted proxy or by us: seconds since 1970",
        lambda r: f"{r.time - r.proxy_time:.6f}",
    ),
    "proxy": ("seconds of waiting in front of us, as a trusted proxy says", lambda r: f"{r.proxy_time:.6f}"),
    "trace": ("the id of its trace (W3C Trace Context)", lambda r: r.trace[0] or "-"),
    "span": ("the id of the parent of the application's spans", lambda r: r.trace[1] or "-"),
    "retries": ("how often it was sent to another process", lambda r: int(r.retried)),
    "spilled": ("bytes that were buffered on disk", lambda r: r.spilled),
    "received": ("bytes from the client of an upgraded connection", lambda r: r.received),
    "refused": ("why it was refused before it had an application", lambda r: r.refusal or "-"),
    "front": ("pid of the server's process that had the connection", lambda r: os.getpid()),
}
DIRECTIVES_OF_OURS = {name: meaning for name, (meaning, _) in _OURS.items()}


def compile_format(text: str) -> Callable[[AccessRecord], bytes]:
    """A function that formats a record as one line, with its newline.

    :raises OptionError: a directive is unknown, or the text has none.
    """
    template: list[str] = []
    values: list[Value] = []
    place = 0
    for match in _DIRECTIVE.finditer(text):
        template.append(_plain(text, place, match.start()))
        place = match.end()
        if match[0] == "%%":
            template.append("%%")
            continue
        template.append("%s")
        values.append(_value(text, match))
    template.append(_plain(text, place, len(text)))
    if not values:
        raise _error(text, "it has no directive")
    form = "".join(template) + "\n"

    def format_string(record: AccessRecord) -> bytes:
        return (form % tuple([value(record) for value in values])).encode("utf-8", "replace")

    return format_string


def _plain(text: str, start: int, end: int) -> str:
    part = text[start:end]
    if _STRAY.search(part):
        raise _error(text, f"{part[part.index('%') :][:12]!r} is no directive")
    if not part.isprintable():
        raise _error(text, "it has a character that cannot be printed")
    return part


def _value(text: str, match: re.Match[str]) -> Value:
    field, kind, gunicorn, argument, letter = match.groups()
    if field is not None or (letter == "i" and argument is not None):
        if kind == "o":
            raise _error(text, f"{match[0]} is not known: fields of responses are not in the log")
        return _field((field or argument).lower().encode("utf-8", "surrogateescape"))
    if gunicorn is not None:
        found = _GUNICORN.get(gunicorn)
    elif letter == "x" and argument is not None:
        found = _OURS[argument][1] if argument in _OURS else None
    elif letter == "T" and argument is not None:
        found = _in_unit(_UNITS[argument]) if argument in _UNITS else None
    else:
        found = _APACHE.get(letter) if argument is None else None
    if found is None:
        ours = f"; ours are {' '.join(f'%{{{name}}}x' for name in DIRECTIVES_OF_OURS)}" if letter == "x" else ""
        raise _error(text, f"{match[0]} is not known{ours}")
    return found


def _in_unit(scale: int) -> Value:
    return lambda record: int(record.duration * scale)


def _field(name: bytes) -> Value:
    def value(record: AccessRecord) -> str:
        return _client(b", ".join(value for key, value in record.fields if key.lower() == name))

    return value


def _error(text: str, why: str) -> OptionError:
    return OptionError(
        "--access-log-format",
        text,
        f"{why}; combined, json, or a format such as '%h %l %u %t \"%r\" %>s %b %{{queue}}x' (docs/monitoring.md has the directives)",
    )
