"""OB5: the access log goes to a local syslog daemon, here a socket of the test."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from passenger_trio.errors import OptionError
from passenger_trio.server.logs.access_log import AccessLog
from passenger_trio.server.logs.syslog import Syslog, syslog_path


def daemon(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.settimeout(10)
    return listener


@pytest.mark.parametrize(
    ("destination", "path"),
    [("syslog", "/dev/log"), ("syslog:/run/x", "/run/x"), ("./syslog", None), ("syslog:x", None)],
)
def test_OB5_what_names_a_daemon(destination: str, path: str | None) -> None:
    assert syslog_path(destination) == path


def test_OB5_a_daemon_that_was_started_again_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with daemon(path) as first:
        syslog = Syslog(str(path))
        assert syslog.send([b"one\n"]) == (0, "")
        assert first.recv(1000).endswith(b": one")
    path.unlink()
    lost, error = syslog.send([b"two\n"])
    assert lost == 1
    assert error
    with daemon(path) as second:
        assert syslog.send([b"three\n", b"four\n"]) == (0, "")
        assert [second.recv(1000)[-6:] for _ in range(2)] == [b" three", b": four"]
    syslog.close()


def test_OB5_no_daemon_is_an_error_of_the_option(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--access-log"):
        AccessLog(f"syslog:{tmp_path}/nobody")


async def test_OB5_each_line_is_a_datagram(tmp_path: Path) -> None:
    from test_access_log import RECORD

    with daemon(tmp_path / "log") as listener:
        log = AccessLog(f"syslog:{tmp_path}/log", "%m %>s")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            log.record(RECORD)
            log.record(RECORD)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()  # what is left is written first
        lines = [listener.recv(1000) for _ in range(2)]
    for line in lines:
        assert re.fullmatch(rb"<30>[A-Z][a-z][a-z] [ \d]\d \d\d:\d\d:\d\d passenger_trio\[\d+\]: GET 200", line)
    assert log.statistics().dropped == 0
