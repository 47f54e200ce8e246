r"""Two formats of a line in the access log: text (combined) and JSON.

Combined is the format that every log reader knows, with more words at the end. Readers that do not
know these ignore them::

    127.0.0.1 - - [23/Nov/2025:07:43:01 +0000] "GET /a?b HTTP/1.1" 200 5120 "-" "curl/8.5"
        id=3f2a9c1e-1 pid=4711 group=shop time=0.012 queue=0.000

(on one line). Times are in UTC (``system/times.py``). The size is that of the body. The words:

* ``id``: the request id, also in ``X-Request-Id`` and on error pages
* ``pid``: the process that answered; 0: none
* ``time``: seconds from the request's first byte to the response's last
* ``queue``: the part of these seconds spent waiting for a process
* ``retried=1``: the request was sent to a second process
* ``spilled``: bytes that were buffered on disk, if there were any
* ``proxy``: seconds that the request waited in front of the server, if a trusted proxy says so (``X-Request-Start``)
* ``trace``: the id of its trace, if it has one
* ``refused``: the reason for which the request was refused before it had a route. It has no ``id`` and no ``group`` then, and ``host``
  if it named one

Law (R37): whatever a client sent, an entry is one line of printable UTF-8. Control characters,
invalid UTF-8 and unprintable characters (also those that change the text direction) become ``\xNN``
for each of their bytes. A backslash is escaped with a backslash, so that the escaping is
reversible; in combined, quotes are escaped, too. JSON's own escaping is applied on top.

Written for speed: the parts are nearly always plain ASCII, which one step recognises for all of
them. Each second is formatted once.
"""

from __future__ import annotations

import json
import time as clock
from functools import lru_cache
from typing import Any

from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.system.times import utc_second

__all__ = ["apache_time", "format_combined", "format_json", "printable"]


def format_combined(record: AccessRecord) -> bytes:
    """The line, with its newline."""
    remote, time, method, target, version, status, size, referer, agent = record[:9]
    duration, queue, pid, group, rid, retried, spilled, received, refusal, _, _, _, proxy, trace = record[9:]
    if (second := int(time)) != _combined_time[0]:
        _combined_time[:] = second, _stamp(second).encode()
    if (b"%b%b%b%b%b%b" % (method, target, version, referer, agent, rid)).translate(None, _PLAIN):
        method, target, version, referer, agent, rid = [
            _escape(part).replace('"', '\\"').encode() for part in (method, target, version, referer, agent, rid)
        ]
    return b'%b - - [%b] "%b" %d %d "%b" "%b" id=%b pid=%d group=%b time=%.3f queue=%.3f%b\n' % (
        _address(remote),
        _combined_time[1],
        b"%b %b HTTP/%b" % (method, target, version) if method else b"-",
        status,
        size,
        referer or b"-",
        agent or b"-",
        rid or b"-",
        pid,
        _WORDS.get(group) or _word(group),
        duration,
        queue,
        _rest(record) if retried or spilled or received or refusal or proxy or trace else b"",
    )


def _rest(record: AccessRecord) -> bytes:
    trace, _ = record.trace
    words = (
        " retried=1" if record.retried else "",
        f" spilled={record.spilled}" if record.spilled else "",
        f" received={record.received}" if record.received else "",
        f" proxy={record.proxy_time:.3f}" if record.proxy_time else "",
        f" trace={trace}" if trace else "",
        f" refused={record.refusal}" if record.refusal else "",
        f" host={_one_word(record.host)}" if record.host else "",
    )
    return "".join(words).encode()


def format_json(record: AccessRecord) -> bytes:
    """The line, with its newline: an object with the attribute names of ``AccessRecord``. ``time`` has
    the form of all of the server's logs (``system/times.py``).
    """
    remote, time, method, target, version, status, size, referer, agent = record[:9]
    duration, queue, pid, group, rid, retried, spilled, received, refusal, host, app, _, proxy, trace = record[9:]
    if (second := int(time)) != _json_time[0]:
        _json_time[:] = second, utc_second(second)
    parts = (remote.encode("utf-8", "surrogateescape"), method, target, version, referer, agent, rid)
    wire = b"%b\n%b\n%b\n%b\n%b\n%b\n%b" % parts
    if wire.translate(None, _PLAIN) == b"\n\n\n\n\n\n":
        remote, method_, target_, version_, referer_, agent_, rid_ = wire.decode("ascii").split("\n")
    else:
        remote, method_, target_, version_, referer_, agent_, rid_ = [
            json.dumps(_escape(part), ensure_ascii=False)[1:-1] for part in parts
        ]
    return (
        f'{{"time":"{_json_time[1]}.{int((time - second) * 1000):03d}Z","event":"access",'
        f'"remote":"{remote}","method":"{method_}","target":"{target_}","version":"{version_}","status":{status},'
        f'"bytes_sent":{size},"referer":"{referer_}","agent":"{agent_}","duration":{duration:.6f},'
        f'"queue_time":{queue:.6f},"app_time":{app:.6f},"pid":{pid},"group":{_STRINGS.get(group) or _string(group)},'
        f'"request_id":"{rid_}","retried":{retried:d},"spilled":{spilled},"received":{received}'
        f"{_traced(record) if proxy or trace else ''}{_refused(refusal, host)}}}\n"
    ).encode()


def _traced(record: AccessRecord) -> str:
    trace, span = record.trace
    proxy = f',"proxy_time":{record.proxy_time:.6f}' if record.proxy_time else ""
    return f'{proxy},"trace_id":"{trace}","span_id":"{span}"' if trace else proxy


def _refused(refusal: str, host: bytes) -> str:
    return f',"refused":"{refusal}","host":{json.dumps(_escape(host), ensure_ascii=False)}' if refusal else ""


_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
"""Bytes that are written unescaped."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""English whatever the locale is: log readers expect that."""

# The last second that was formatted.
_combined_time: list[Any] = [-1, b""]
_json_time: list[int | str] = [-1, ""]

# Formatted group names. There are few.
_WORDS: dict[str, bytes] = {}
_STRINGS: dict[str, str] = {}


def _escape(part: bytes) -> str:
    text = part.decode("utf-8", "surrogateescape")
    return "".join(_ESCAPES.get(char) or (char if char.isprintable() else _hex(char)) for char in text)


_ESCAPES = {"\\": "\\\\"}


def printable(part: bytes) -> str:
    """Bytes of a client as one line of printable text, with quotes and backslashes escaped (R37)."""
    return part.decode("ascii") if not part.translate(None, _PLAIN) else _escape(part).replace('"', '\\"')


def apache_time(time: float) -> str:
    """``[23/Nov/2025:07:43:01 +0000]``"""
    if (second := int(time)) != _combined_time[0]:
        _combined_time[:] = second, _stamp(second).encode()
    return f"[{_combined_time[1].decode()}]"


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _one_word(part: bytes) -> str:
    """Escape white space and quotes."""
    return _escape(part).replace(" ", "\\x20").replace('"', "\\x22")


def _word(group: str) -> bytes:
    """The name of a group as one word, without quotes."""
    word = _one_word(group.encode("utf-8", "surrogateescape"))
    return _WORDS.setdefault(group, word.encode() or b"-")


@lru_cache(1024)
def _address(remote: str) -> bytes:
    return _escape(remote.encode("utf-8", "surrogateescape")).replace('"', '\\"').encode() or b"-"


def _string(group: str) -> str:
    return _STRINGS.setdefault(group, json.dumps(group))


def _stamp(second: int) -> str:
    now = clock.gmtime(second)
    return (
        f"{now.tm_mday:02d}/{_MONTHS[now.tm_mon - 1]}/{now.tm_year:04d}"
        f":{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d} +0000"
    )
