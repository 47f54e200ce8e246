"""The access log: what a line says, that nobody can forge one, and that writing never holds anything up (R37, F54, F55)."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions, Config, ServerOptions
from passenger_trio.server.logs import access_format
from passenger_trio.server.logs.access_format import format_combined, format_json
from passenger_trio.server.logs.access_log import FLUSH_BYTES, AccessLog
from passenger_trio.server.logs.access_record import AccessRecord

RECORD = AccessRecord(
    remote="127.0.0.1",
    time=1763883781.25,
    method=b"GET",
    target=b"/a/b?x=1",
    version=b"1.1",
    status=200,
    bytes_sent=5120,
    referer=b"http://localhost/",
    agent=b"curl/8.5",
    duration=0.01234,
    queue_time=0.001,
    pid=4711,
    group="shop",
    request_id=b"3f2a-1",
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_format.clock, "localtime", access_format.clock.gmtime)
    access_format._combined_time[0] = access_format._json_time[0] = -1


class TestCombined:
    def test_a_line(self) -> None:
        assert format_combined(RECORD) == (
            b'127.0.0.1 - - [23/Nov/2025:07:43:01 +0000] "GET /a/b?x=1 HTTP/1.1" 200 5120 "http://localhost/" "curl/8.5"'
            b" id=3f2a-1 pid=4711 group=shop time=0.012 queue=0.001\n"
        )

    def test_what_is_missing_is_a_dash(self) -> None:
        line = format_combined(
            RECORD._replace(
                remote="", method=b"", target=b"", version=b"", referer=b"", agent=b"", request_id=b"", pid=0
            )
        )
        assert line.startswith(b'- - - [23/Nov/2025:07:43:01 +0000] "-" 200 5120 "-" "-" id=- pid=0 ')

    def test_a_second_process_is_told(self) -> None:
        assert format_combined(RECORD._replace(retried=1)).endswith(b" retried=1\n")

    def test_the_time_moves_on(self) -> None:
        format_combined(RECORD)
        assert b"07:43:02" in format_combined(RECORD._replace(time=RECORD.time + 1))

    def test_a_group_of_several_words_is_one_word(self) -> None:
        assert b" group=my\\x20shop\\x22\xc3\xa9 time" in format_combined(RECORD._replace(group='my shop"é'))

    @pytest.mark.parametrize(
        ("sent", "logged"),
        [
            (b"a\nb\r\x00", rb"a\x0ab\x0d\x00"),
            (b'quote " end', rb"quote \" end"),
            (b"back\\slash", rb"back\\slash"),
            (b"\xff\xfe", rb"\xff\xfe"),
            ("grüße".encode(), "grüße".encode()),
            ("\u202egnp.exe".encode(), rb"\xe2\x80\xaegnp.exe"),
            ("\x85\u2028".encode(), rb"\xc2\x85\xe2\x80\xa8"),
            (b"\x1b[31mred\x7f", rb"\x1b[31mred\x7f"),
        ],
    )
    def test_what_a_client_sends_is_escaped(self, sent: bytes, logged: bytes) -> None:
        """R37"""
        assert b' "' + logged + b'" id=' in format_combined(RECORD._replace(agent=sent))
        assert b'"GET ' + logged + b" HTTP/1.1" in format_combined(RECORD._replace(target=sent))


class TestRefused:
    """ED14: a request that was refused before it was anybody's says why, and whom it asked for as far as that is known."""

    REFUSED = RECORD._replace(group="", request_id=b"", pid=0, refusal="missing_host")

    def test_ED14_combined(self) -> None:
        assert format_combined(self.REFUSED).endswith(
            b" id=- pid=0 group=- time=0.012 queue=0.001 refused=missing_host\n"
        )
        line = format_combined(self.REFUSED._replace(host=b'a" b\n\xff'))
        assert line.endswith(b" refused=missing_host host=a\\x22\\x20b\\x0a\\xff\n"), "R37"

    def test_ED14_json(self) -> None:
        said = json.loads(format_json(self.REFUSED._replace(host=b'a" b\n\xff')))
        assert (said["refused"], said["host"]) == ("missing_host", 'a" b\\x0a\\xff')
        assert "refused" not in json.loads(format_json(RECORD))


class TestJson:
    def test_a_line(self) -> None:
        line = format_json(RECORD)
        assert line.endswith(b"}\n")
        assert json.loads(line) == {
            "time": "2025-11-23T07:43:01.250Z",
            "event": "access",
            "remote": "127.0.0.1",
            "method": "GET",
            "target": "/a/b?x=1",
            "version": "1.1",
            "status": 200,
            "bytes_sent": 5120,
            "referer": "http://localhost/",
            "agent": "curl/8.5",
            "duration": 0.01234,
            "queue_time": 0.001,
            "app_time": 0.0,
            "pid": 4711,
            "group": "shop",
            "request_id": "3f2a-1",
            "retried": 0,
            "spilled": 0,
            "received": 0,
        }

    def test_escapes_can_be_undone(self) -> None:
        said = json.loads(format_json(RECORD._replace(agent=b'a"b\\x41\n\xff', group='sh"op')))
        assert said["agent"] == 'a"b\\\\x41\\x0a\\xff'
        assert said["group"] == 'sh"op'


wire = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(wire, wire, wire, wire, st.text(max_size=10), st.integers(100, 599))
def test_any_request_is_one_line_of_printable_text(
    method: bytes, target: bytes, referer: bytes, agent: bytes, group: str, status: int
) -> None:
    """R37"""
    record = RECORD._replace(method=method, target=target, referer=referer, agent=agent, group=group, status=status)
    for line in (format_combined(record), format_json(record)):
        assert line.endswith(b"\n")
        assert line[:-1].decode().isprintable()
    assert json.loads(format_json(record))["status"] == status
    # The quotes of a combined line can be paired again, so its fields cannot be forged.
    quoted = re.findall(rb'"((?:[^"\\]|\\.)*)"', format_combined(record))
    assert len(quoted) == 3


def run_log(log: AccessLog, use: Callable[[AccessLog], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.run)
                await use(log)
                nursery.cancel_scope.cancel()

    trio.run(main)


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


async def written(log: AccessLog, count: int) -> None:
    """Until that many lines are written or lost."""
    while log.statistics().written + log.statistics().dropped < count:  # noqa: ASYNC110  a thread writes
        await trio.sleep(0.005)


class TestWriting:
    def test_lines_come_out_in_order_and_once(self, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        log = AccessLog(str(path))

        async def use(log: AccessLog) -> None:
            for number in range(5000):
                log.record(RECORD._replace(status=number))
                if number % 500 == 0:
                    await trio.lowlevel.checkpoint()

        run_log(log, use)
        assert [int(line.split(b'"')[2].split()[0]) for line in lines(path)] == list(range(5000))
        assert log.statistics().written == 5000
        assert log.statistics().backlog == 0

    def test_a_single_line_comes_out_soon(self, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        log = AccessLog(str(path), "json")

        async def use(log: AccessLog) -> None:
            log.record(RECORD)
            await written(log, 1)
            assert len(lines(path)) == 1

        run_log(log, use)

    def test_much_comes_out_at_once(self, tmp_path: Path) -> None:
        """More than a batch does not wait for the interval; the clock here never moves by itself."""
        log = AccessLog(str(tmp_path / "access.log"))

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log.run)
                count = FLUSH_BYTES // len(format_combined(RECORD)) + 1
                for _ in range(count):
                    log.record(RECORD)
                while log.statistics().written < count:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()

        trio.run(main, clock=trio.testing.MockClock())

    def test_it_appends(self, tmp_path: Path) -> None:
        path = tmp_path / "access.log"
        path.write_bytes(b"before\n")

        async def use(log: AccessLog) -> None:
            log.record(RECORD)

        run_log(AccessLog(str(path)), use)
        assert len(lines(path)) == 2

    def test_what_comes_after_the_end_is_counted(self, tmp_path: Path) -> None:
        async def use(log: AccessLog) -> None:
            pass

        log = AccessLog(str(tmp_path / "access.log"))
        run_log(log, use)
        log.record(RECORD)
        assert log.statistics().dropped == 1

    def test_standard_output(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        async def use(log: AccessLog) -> None:
            log.record(RECORD)

        run_log(AccessLog("-"), use)
        assert capfdbinary.readouterr().out == format_combined(RECORD)
        os.fstat(1)  # it is not ours to close

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError) as caught:
            AccessLog(str(tmp_path / "no" / "access.log"))
        assert "No such file" in str(caught.value)

    def test_a_pipe_that_nobody_reads_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(OptionError):
            AccessLog(str(tmp_path / "fifo"))


class TestRotation:
    def test_no_line_is_lost_or_repeated(self, tmp_path: Path) -> None:
        """F55"""
        path, old = tmp_path / "access.log", tmp_path / "access.log.1"

        async def use(log: AccessLog) -> None:
            for number in range(300):
                log.record(RECORD._replace(status=number))
                if number == 100:
                    await written(log, 101)
                    path.rename(old)
                    log.record(RECORD._replace(status=1000))
                    log.reopen()
                    while not path.exists():  # noqa: ASYNC110  a thread makes it
                        await trio.sleep(0.001)

        run_log(AccessLog(str(path)), use)
        statuses = [int(line.split(b'"')[2].split()[0]) for line in lines(old) + lines(path)]
        assert sorted(statuses) == [*range(300), 1000]
        assert lines(path)

    def test_without_a_new_file_the_old_one_goes_on(self, tmp_path: Path) -> None:
        (tmp_path / "logs").mkdir()
        path = tmp_path / "logs" / "access.log"

        async def use(log: AccessLog) -> None:
            (tmp_path / "logs").rename(tmp_path / "moved")
            log.record(RECORD)
            log.reopen()
            await written(log, 1)
            log.record(RECORD)

        log = AccessLog(str(path))
        run_log(log, use)
        assert len(lines(tmp_path / "moved" / "access.log")) == 2
        assert log.statistics().errors == 1

    def test_KE2_the_new_file_is_opened_as_soon_as_it_can_be(self, tmp_path: Path) -> None:
        """Until then, lines go to the old one; that is one error, however often it is tried."""
        logs, moved = tmp_path / "logs", tmp_path / "moved"
        logs.mkdir()

        async def use(log: AccessLog) -> None:
            logs.rename(moved)
            log.reopen()
            for number in range(3):
                log.record(RECORD._replace(status=number))
                await written(log, number + 1)
            logs.mkdir()
            log.record(RECORD._replace(status=3))
            await written(log, 4)

        log = AccessLog(str(logs / "access.log"))
        run_log(log, use)
        assert len(lines(moved / "access.log")) == 3
        assert [line.split(b'"')[2].split()[0] for line in lines(logs / "access.log")] == [b"3"]
        assert log.statistics().errors == 1

    def test_standard_output_is_not_reopened(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        async def use(log: AccessLog) -> None:
            log.record(RECORD)
            log.reopen()
            await written(log, 1)

        run_log(AccessLog("-"), use)
        assert capfdbinary.readouterr().out == format_combined(RECORD)


class TestTrouble:
    """F54: counters only; nothing raises, nothing waits."""

    def test_no_reader(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        log = AccessLog(str(path))

        async def use(log: AccessLog) -> None:
            log.record(RECORD)
            await written(log, 1)
            assert os.read(reader, 65536) == format_combined(RECORD)
            os.close(reader)
            log.record(RECORD)
            await written(log, 2)
            again = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            log.record(RECORD)
            await written(log, 3)
            assert os.read(again, 65536) == format_combined(RECORD)
            os.close(again)

        run_log(log, use)
        found = log.statistics()
        assert (found.written, found.dropped, found.errors) == (2, 1, 1)
        assert found.last_error == "Broken pipe"

    def test_no_space_and_then_some(self, tmp_path: Path) -> None:
        """A line that broke off is ended before the next."""
        path = tmp_path / "access.log"
        log = AccessLog(str(path))
        line = format_combined(RECORD)
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        async def use(log: AccessLog) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(line) + 10, unlimited[1]))
            for _ in range(3):
                log.record(RECORD)
            await written(log, 3)
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            log.record(RECORD._replace(status=404))
            await written(log, 4)

        try:
            run_log(log, use)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            signal.signal(signal.SIGXFSZ, previous)
        assert lines(path) == [line[:-1], line[:10], format_combined(RECORD._replace(status=404))[:-1]]
        found = log.statistics()
        assert (found.written, found.dropped, found.errors) == (2, 2, 1)

    def test_a_reader_that_sleeps_holds_up_nothing_and_memory_is_bounded(self, tmp_path: Path) -> None:
        path = tmp_path / "fifo"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        log = AccessLog(str(path), max_backlog=256 * 1024)
        sent = 4 * 256 * 1024 // len(format_combined(RECORD))

        async def use(log: AccessLog) -> None:
            for number in range(sent):
                log.record(RECORD)
                if number % 100 == 0:
                    await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            found = log.statistics()
            assert found.backlog <= 256 * 1024
            assert found.dropped > 0

        # The writer is stuck in its pipe, and the end comes all the same.
        run_log(log, use)
        found = log.statistics()
        assert found.written + found.dropped == sent
        os.close(reader)


class TestWhichDestination:
    def test_in_development_standard_output(self) -> None:
        log = AccessLog.open(Config())
        assert log is not None
        assert log.destination == "-"

    def test_in_production_none(self) -> None:
        assert AccessLog.open(Config(apps=(AppOptions(environment="production"),))) is None

    def test_off(self) -> None:
        for name in ("off", "none"):
            assert AccessLog.open(Config(server=ServerOptions(access_log=name))) is None

    def test_a_file(self, tmp_path: Path) -> None:
        path = str(tmp_path / "access.log")
        log = AccessLog.open(Config(server=ServerOptions(access_log=path, access_log_format="json")))
        assert log is not None
        assert log.destination == path
