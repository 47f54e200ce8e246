"""The log on standard error: one line per event, for people (``console``) or for programs
(``json``).

Every module logs through the standard library's ``logging.getLogger("passenger_trio.<layer>")``.
This module writes the records when the supervisor is a standalone program. In an embedding program
nothing here runs; that program's own handlers get the same records.

::

    2025-11-23T07:43:01.204Z info     process 4711 of shop (development) is ready after 212 ms (forked)
    2025-11-23T07:43:02.001Z [shop 4711] a line that the application wrote
    {"time":"2025-11-23T07:43:01.204Z","level":"info","logger":"passenger_trio.pool",
     "event":"process 4711 of ...","kind":"process_ready","group":"shop","environment":"development","pid":4711, ...}

(the last on one line). The ``extra`` of a call becomes a JSON member. On a console it follows as
``key=value``, but not behind a line of ``log_lines``: that is a sentence, which shows its fields. An
``extra`` named ``traceback`` is formatted as a traceback. Times are those of ``system/times.py``. Laws:

* An event is one line, whatever it contains: control characters are escaped (R37). Only a traceback
  has more lines. Each begins with a bar, so that none can be mistaken for an event; in JSON the
  traceback is a member.
* Writing never blocks and never raises (F54). If the reader of standard error is too slow, lines
  are dropped and counted, and the next line that is written reports the number.
* The lines of applications (logger ``passenger_trio.app``, with ``group`` and ``app_pid``) are
  written at every level. They come in large numbers, so no records are made of them where only our
  handler would see those (``AppOutput``).
* ``bare``: lines are written as they are, without time, group and pid; in JSON, only lines that are
  JSON objects themselves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import time

from passenger_trio.late_patterns import late
from passenger_trio.system.times import rfc3339

__all__ = ["APP_LOGGER", "ROOT_LOGGER", "AppOutput", "LogOutput", "configure", "extra_of"]

ROOT_LOGGER = "passenger_trio"
APP_LOGGER = "passenger_trio.app"

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_CHUNK = select.PIPE_BUF
"""Bytes that a writable pipe takes without blocking."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of every record; all others came as ``extra``."""

_UNPRINTABLE = late(r"[^\x20-\x7e\xa1-\U0010ffff]|[\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PLAIN_VALUE = re.compile(r"[\w.:/@+-]+")
_LEVEL_COLOURS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m", "debug": "\x1b[2m"}
_RESET = "\x1b[0m"


def configure(level: str = "info", format: str = "console", *, bare: bool = False, fd: int = 2) -> LogOutput:
    """Let the loggers of passenger_trio write to a descriptor, standard error by default. A second
    call replaces the first.

    :param level: the lowest level that is logged: ``debug``, ``info``, ``warning`` or ``error``.
    :param format: ``console`` or ``json``.
    :param bare: write the lines of applications as they are.
    """
    root = logging.getLogger(ROOT_LOGGER)
    for handler in root.handlers[:]:
        if isinstance(handler, LogOutput):
            root.removeHandler(handler)
    coloured = os.isatty(fd) and "NO_COLOR" not in os.environ
    output = LogOutput(fd)
    output.setFormatter(JsonFormatter(bare) if format == "json" else ConsoleFormatter(coloured, bare))
    root.addHandler(output)
    root.setLevel(_LEVELS[level])
    root.propagate = False
    logging.getLogger(APP_LOGGER).setLevel(logging.INFO)
    return output


class ConsoleFormatter(logging.Formatter):
    """``TIME level event key=value``; ``TIME [group pid] line`` for the lines of applications."""

    def __init__(self, coloured: bool = False, bare: bool = False) -> None:
        super().__init__()
        self._coloured = coloured
        self._bare = bare

    def lines(self, created: float, group: str, pid: int, lines: list[str]) -> list[str]:
        """Format lines of an application."""
        prefix = "" if self._bare else f"{rfc3339(created)} [{_one_line(group)} {pid}] "
        return [
            prefix + (line if line.isascii() and line.isprintable() else self._with_colours(line)) for line in lines
        ]

    def _with_colours(self, line: str) -> str:
        """Keep the colours that the application set, on a terminal; else remove them."""
        line = line if self._coloured and "\x1b" in line else _COLOUR.sub("", line)
        words = _COLOUR.split(line)
        if len(words) == 1:
            return _one_line(line)
        colours = [*_COLOUR.findall(line), _RESET]
        return "".join(_one_line(word) + colour for word, colour in zip(words, colours, strict=True))

    def format(self, record: logging.LogRecord) -> str:
        extra = extra_of(record)
        event = _message(record)
        if record.name == APP_LOGGER and "app_pid" in extra:
            return self.lines(record.created, str(extra.get("group", "")), int(str(extra["app_pid"])), [event])[0]
        level = record.levelname.lower()
        shown = (
            f"{_LEVEL_COLOURS[level]}{level:8}{_RESET}" if self._coloured and level in _LEVEL_COLOURS else f"{level:8}"
        )
        traceback = str(extra.pop("traceback", "")) + _traceback(self, record)
        # A line of ``log_lines`` is a sentence that shows its fields.
        fields = "" if "kind" in extra else "".join(f" {key}={_value(value)}" for key, value in extra.items())
        return f"{rfc3339(record.created)} {shown} {_one_line(event)}{fields}{_bars(traceback)}"


class JsonFormatter(logging.Formatter):
    """One object per line."""

    def __init__(self, bare: bool = False) -> None:
        super().__init__()
        self._bare = bare

    def lines(self, created: float, group: str, pid: int, lines: list[str]) -> list[str]:
        """Format lines of an application."""
        before = f'{{"time":"{rfc3339(created)}","level":"info","logger":"{APP_LOGGER}","event":'
        behind = f',"group":{json.dumps(group)},"app_pid":{pid}}}'
        return [
            line if self._bare and _is_json_object(line) else f"{before}{json.dumps(line)}{behind}" for line in lines
        ]

    def format(self, record: logging.LogRecord) -> str:
        members = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _message(record),
            **extra_of(record),
        }
        traceback = _traceback(self, record)
        if traceback:
            members["traceback"] = traceback
        return json.dumps(members, default=str, separators=(",", ":"))


def _is_json_object(line: str) -> bool:
    if not (line.startswith("{") and line.endswith("}") and line.isprintable()):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class LogOutput(logging.Handler):
    """Writes lines to a descriptor that it does not own. Never waits for it."""

    formatter: ConsoleFormatter | JsonFormatter | None

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._torn = False
        self.dropped = 0
        """Total number of lost lines."""
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._put([self.format(record)])

    def write_lines(self, group: str, pid: int, lines: list[str]) -> None:
        """Write lines of an application in one step: a record for each line would cost twenty times
        as much.
        """
        formatter = self.formatter
        assert formatter is not None
        self._put(formatter.lines(time.time(), group, pid, lines))

    def has_room(self) -> bool:
        """Whether the descriptor would take the next 4096 bytes (``PIPE_BUF``)."""
        try:
            return bool(self._poll.poll(0))
        except OSError:
            return True  # the lines will be lost, now or later

    def _put(self, lines: list[str]) -> None:
        lost = ""
        if self._unsaid:
            lost = f"{self._unsaid} line{'s' if self._unsaid > 1 else ''} of the log"
            lost += f" {'were' if self._unsaid > 1 else 'was'} lost here\n"
        text = ("\n" if self._torn else "") + lost + "\n".join(lines) + "\n"
        if self._write(text.encode("utf-8", "backslashreplace")):
            self._unsaid = 0
        else:
            self.dropped += len(lines)
            self._unsaid += len(lines)

    def _write(self, data: bytes) -> bool:
        """Whether the descriptor took all bytes."""
        for start in range(0, len(data), _CHUNK):
            chunk = data[start : start + _CHUNK]
            try:
                if not self._poll.poll(0) or os.write(self._fd, chunk) < len(chunk):
                    self._torn = self._torn or start > 0
                    return False
            except OSError:
                return False  # no reader, or no space is left
        self._torn = False
        return True


class AppOutput:
    """Receives the lines of one application. Passes them to ``logging``, or straight to
    ``LogOutput`` if that is the only handler.
    """

    def __init__(self, group: str) -> None:
        self._group = group
        self._logger = logging.getLogger(APP_LOGGER)

    def write(self, pid: int, lines: list[str]) -> None:
        """Write lines of one process, in order."""
        output = self._output()
        if output is not None:
            output.write_lines(self._group, pid, lines)
            return
        for line in lines:
            self._logger.info("%s", line, extra={"group": self._group, "app_pid": pid})

    def has_room(self) -> bool:
        """Whether lines would be written now. Always True for other handlers, where that is unknown."""
        output = self._output()
        return output is None or output.has_room()

    def _output(self) -> LogOutput | None:
        """The program's own handler, if it is the only one."""
        root = logging.getLogger(ROOT_LOGGER)
        if self._logger.handlers or self._logger.filters or root.propagate or len(root.handlers) != 1:
            return None
        handler = root.handlers[0]
        is_ours = isinstance(handler, LogOutput) and not handler.filters and self._logger.isEnabledFor(logging.INFO)
        return handler if is_ours and isinstance(handler, LogOutput) else None


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # The arguments do not fit the message: our bug, but the message must not be lost.
        return f"{record.msg} {record.args!r}"


def extra_of(record: logging.LogRecord) -> dict[str, object]:
    """The ``extra`` of the call that made a record."""
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
