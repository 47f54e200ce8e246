"""The log on standard error: one line an event, for people (``console``) or for programs (``json``).

Every module logs through the standard library's ``logging.getLogger("passenger_trio.<layer>")``; here is
where it comes out when the supervisor is a program of its own. Embedded, nothing here runs, and the embedding
program's own handlers see the same records.

::

07:43:01 info     process 4711 of shop (development) is ready after 212 ms 07:43:02 [shop 4711] a line that
the application wrote
{"time":"2025-11-23T07:43:01.204Z","level":"info","logger":"passenger_trio.pool","event":"process 4711 ..."}

What a caller passes as ``extra`` follows as ``key=value``, or becomes a member; an ``extra`` named ``traceback`` is shown as one. Laws:

* An event is one line whatever is in it: control characters are escaped (R37). Only a traceback has more
    lines, each begun by a bar, so that none can pass for an event; in JSON it is a member.
* Writing never blocks and never raises (F54): what the reader of standard error does not take at once is
    dropped and counted, and the next line that comes through says how many were.
* The lines of applications (logger ``passenger_trio.app``, with ``group`` and ``app_pid``) come out at every
    level.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import time

__all__ = ["APP_LOGGER", "ROOT_LOGGER", "LogOutput", "configure"]

ROOT_LOGGER = "passenger_trio"
APP_LOGGER = "passenger_trio.app"

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_CHUNK = select.PIPE_BUF
"""Bytes that a pipe that is ready takes without blocking."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; everything else came as ``extra``."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa1-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN_VALUE = re.compile(r"[\w.:/@+-]+")
_LEVEL_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m", "debug": "\x1b[2m"}
_RESET = "\x1b[0m"


def configure(level: str = "info", format: str = "console", *, fd: int = 2) -> LogOutput:
    """Let the loggers of passenger_trio write to a descriptor, standard error by default. A second call
    replaces the first.

    :param level: the least serious message that is logged: ``debug``, ``info``, ``warning`` or ``error``.
    :param format: ``console`` or ``json``.
    """
    root = logging.getLogger(ROOT_LOGGER)
    for handler in root.handlers[:]:
        if isinstance(handler, LogOutput):
            root.removeHandler(handler)
    coloured = os.isatty(fd) and "NO_COLOR" not in os.environ
    output = LogOutput(fd)
    output.setFormatter(JsonFormatter() if format == "json" else ConsoleFormatter(coloured))
    root.addHandler(output)
    root.setLevel(_LEVELS[level])
    root.propagate = False
    logging.getLogger(APP_LOGGER).setLevel(logging.INFO)
    return output


class ConsoleFormatter(logging.Formatter):
    """``HH:MM:SS level event key=value``; ``HH:MM:SS [group pid] line`` for the lines of applications."""

    def __init__(self, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second[0]:
            self._second = (second, time.strftime("%H:%M:%S", time.localtime(second)))
        extra = _extra(record)
        event = _message(record)
        if record.name == APP_LOGGER and "app_pid" in extra:
            # Its colours are the application's own affair, on a terminal.
            event = event if self._coloured and "\x1b" in event else _COLOUR.sub("", event)
            words = _COLOUR.split(event)
            if len(words) > 1:
                colours = [*_COLOUR.findall(event), _RESET]
                event = "".join(_one_line(word) + colour for word, colour in zip(words, colours, strict=True))
            else:
                event = _one_line(event)
            return f"{self._second[1]} [{_one_line(str(extra.get('group', '')))} {extra['app_pid']}] {event}"
        level = record.levelname.lower()
        shown = (
            f"{_LEVEL_COLOURS[level]}{level:8}{_RESET}" if self._coloured and level in _LEVEL_COLOURS else f"{level:8}"
        )
        traceback = str(extra.pop("traceback", "")) + _traceback(self, record)
        fields = "".join(f" {key}={_value(value)}" for key, value in extra.items())
        return f"{self._second[1]} {shown} {_one_line(event)}{fields}{_bars(traceback)}"


class JsonFormatter(logging.Formatter):
    """One object a line; times in UTC with milliseconds."""

    def format(self, record: logging.LogRecord) -> str:
        second, fraction = divmod(record.created, 1.0)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        members = {
            "time": f"{stamp}.{int(fraction * 1000):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
            **_extra(record),
        }
        traceback = _traceback(self, record)
        if traceback:
            members["traceback"] = traceback
        return json.dumps(members, default=str, separators=(",", ":"))


class LogOutput(logging.Handler):
    """Writes lines to a descriptor that it does not own, without ever waiting for it."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._torn = False
        self.dropped = 0
        """Lines that were lost, in all."""
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        lost = ""
        if self._unsaid:
            lost = f"{self._unsaid} line{'s' if self._unsaid > 1 else ''} of the log"
            lost += f" {'were' if self._unsaid > 1 else 'was'} lost here\n"
        text = ("\n" if self._torn else "") + lost + self.format(record) + "\n"
        if self._write(text.encode("utf-8", "backslashreplace")):
            self._unsaid = 0
        else:
            self.dropped += 1
            self._unsaid += 1

    def _write(self, data: bytes) -> bool:
        """Whether all of it was taken."""
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            try:
                if not self._poll.poll(0) or os.write(self._fd, chunk) < len(chunk):
                    self._torn = self._torn or start > 0
                    return False
            except OSError:
                return False  # nobody reads, or no space is left
        self._torn = False
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # Arguments that do not fit the message: our bug, but no reason to lose what it says.
        return f"{record.msg} {record.args!r}"


def _extra(record: logging.LogRecord) -> dict[str, object]:
    names = vars(record)
    return {name: names[name] for name in names if name not in _STANDARD} if len(names) > _FEWEST else {}


_FEWEST = len(vars(logging.makeLogRecord({})))


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


def _bars(text: str) -> str:
    return "".join(f"\n  | {_one_line(line)}" for line in text.splitlines())


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(_one_line(text), ensure_ascii=False)


def _one_line(text: str) -> str:
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    if match[0] == "\t":
        return "\t"
    return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogatepass"))
