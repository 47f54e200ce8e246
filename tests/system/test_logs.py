"""The log on standard error: one line an event, whatever is in it; written without waiting."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.system.logs import APP_LOGGER, ConsoleFormatter, JsonFormatter, LogOutput, configure

POOL = logging.getLogger("passenger_trio.pool")
APP = logging.getLogger(APP_LOGGER)


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK)
        os.set_blocking(self.writer, True)

    def read(self) -> str:
        try:
            return os.read(self.reader, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def fill(self) -> None:
        os.set_blocking(self.writer, False)
        try:
            while True:
                os.write(self.writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    root = logging.getLogger("passenger_trio")
    before = (root.handlers[:], root.level, root.propagate)
    yield pipe
    root.handlers[:], root.level, root.propagate = before
    APP.setLevel(logging.NOTSET)
    for fd in (pipe.reader, pipe.writer):
        try:
            os.close(fd)
        except OSError:
            pass


def test_a_line_for_people(pipe: Pipe) -> None:
    configure("info", "console", fd=pipe.writer)
    POOL.info("process %d of %s is ready", 4711, "shop", extra={"after": 0.2, "why": "a word"})
    line = pipe.read()
    assert datetime.fromisoformat(line[:24]).utcoffset() == timedelta(0)
    assert line[24:] == ' info     process 4711 of shop is ready after=0.2 why="a word"\n'


def test_a_line_for_programs(pipe: Pipe) -> None:
    configure("info", "json", fd=pipe.writer)
    POOL.warning("late\nby %d", 3, extra={"pid": 4711})
    said = json.loads(pipe.read())
    assert said.pop("time").endswith("Z")
    assert said == {"level": "warning", "logger": "passenger_trio.pool", "event": "late\nby 3", "pid": 4711}


def test_the_level_holds_for_us_and_not_for_the_application(pipe: Pipe) -> None:
    configure("error", fd=pipe.writer)
    POOL.warning("quiet")
    APP.info("%s", "hello", extra={"group": "shop", "app_pid": 12})
    assert pipe.read()[24:] == " [shop 12] hello\n"


def test_a_second_call_replaces_the_first(pipe: Pipe) -> None:
    configure(fd=pipe.writer)
    configure(fd=pipe.writer)
    POOL.info("once")
    assert pipe.read().count("once") == 1


def test_a_traceback_cannot_pass_for_an_event(pipe: Pipe) -> None:
    configure(fd=pipe.writer)
    try:
        raise ValueError("bad\n07:00:00 error    forged")
    except ValueError:
        POOL.exception("it failed")
    first, *others = pipe.read().splitlines()
    assert first.endswith("it failed")
    assert all(line.startswith("  | ") for line in others)
    assert others[-1] == "  | 07:00:00 error    forged"


def test_a_traceback_that_comes_as_a_text_is_readable_and_cannot_pass_for_an_event(pipe: Pipe) -> None:
    """Fault 35 and R37: its lines are lines, each behind a bar, and what else is in them is escaped."""
    configure(fd=pipe.writer)
    POOL.error(
        "internal error", extra={"traceback": "Traceback:\n  File x\x1b[2J\r07:00:00 error\nValueError", "id": "a\nb"}
    )
    first, *others = pipe.read().splitlines()
    assert first.endswith('internal error id="a\\\\x0ab"')
    assert others == ["  | Traceback:", "  |   File x\\x1b[2J", "  | 07:00:00 error", "  | ValueError"]


def test_a_traceback_that_comes_as_a_text_is_a_member_in_json(pipe: Pipe) -> None:
    configure(format="json", fd=pipe.writer)
    POOL.error("internal error", extra={"traceback": "Traceback:\nValueError"})
    text = pipe.read()
    assert (text.count("\n"), json.loads(text)["traceback"]) == (1, "Traceback:\nValueError")


def test_a_traceback_is_a_member_in_json(pipe: Pipe) -> None:
    configure(format="json", fd=pipe.writer)
    try:
        raise ValueError("bad")
    except ValueError:
        POOL.exception("it failed")
    assert "ValueError: bad" in json.loads(pipe.read())["traceback"]


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "passenger_trio.x", "msg": message, "levelname": "INFO", "levelno": 20, **extra}
    )
    made.created = 1763883781.25
    return made


def test_arguments_that_do_not_fit_lose_nothing() -> None:
    line = ConsoleFormatter().format(record("%d processes", args=("many",)))
    assert "%d processes ('many',)" in line


@given(st.text(), st.text())
def test_an_event_is_one_line(message: str, value: str) -> None:
    """R37"""
    line = ConsoleFormatter().format(record(message, value=value))
    assert len(line.splitlines()) == 1
    assert not set(line) & {*map(chr, range(9)), *map(chr, range(10, 32)), "\x7f", "\u202e", "\u2028"}
    assert "\n" not in JsonFormatter().format(record(message, value=value))


def test_an_applications_colours_stay_on_a_terminal_only() -> None:
    app = {"name": APP_LOGGER, "group": "shop", "app_pid": 12}
    line = record("\x1b[31mred\x1b[0m\x1b]0;title\x07", **app)
    assert ConsoleFormatter().format(line)[25:] == r"[shop 12] red\x1b]0;title\x07"
    assert ConsoleFormatter(coloured=True).format(line)[25:] == "[shop 12] \x1b[31mred\x1b[0m\\x1b]0;title\\x07\x1b[0m"


class TestTrouble:
    """F54"""

    def test_a_reader_that_sleeps_holds_up_nothing(self, pipe: Pipe) -> None:
        output = configure(fd=pipe.writer)
        pipe.fill()
        for _ in range(3):
            POOL.info("lost")
        assert output.dropped == 3
        pipe.read()
        POOL.info("back")
        first, second = pipe.read().splitlines()
        assert first == "3 lines of the log were lost here"
        assert second.endswith("back")

    def test_a_reader_that_is_gone(self, pipe: Pipe) -> None:
        output = configure(fd=pipe.writer)
        os.close(pipe.reader)
        POOL.info("lost")
        assert output.dropped == 1

    def test_a_long_line_is_not_torn_in_silence(self, pipe: Pipe) -> None:
        configure(fd=pipe.writer)
        POOL.info("x" * 200_000)
        pipe.read()
        POOL.info("next")
        lines = pipe.read().splitlines()
        assert lines[-1].endswith(" next")
        assert "1 line of the log was lost here" in lines

    def test_it_is_a_handler_like_others(self, pipe: Pipe) -> None:
        output = LogOutput(pipe.writer)
        output.handle(record("plain"))
        assert pipe.read() == "plain\n"
