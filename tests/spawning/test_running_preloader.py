"""A preloader that runs already (--preloader-socket): whom the server believes, and what it hands over. (TH2's tests serve applications by it.)"""

from __future__ import annotations

import array
import json
import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from passenger_trio.spawning.running_preloader import is_ours, take_into_use, take_when_it_listens
from passenger_trio.system.unix_peers import PeerCredentials


def test_only_a_process_of_our_user_is_believed() -> None:
    """TH2, R47: one test for yes and one for no."""
    assert is_ours(PeerCredentials(1, os.getuid(), 0))
    assert not is_ours(PeerCredentials(1, os.getuid() + 1, os.getgid()))


async def test_it_gets_its_environment_and_its_output(tmp_path: Path) -> None:
    path, huge = str(tmp_path / "p"), "x" * 100_000
    with socket.socket(socket.AF_UNIX) as listener, open(tmp_path / "output", "wb") as output:
        listener.bind(path)
        listener.listen()
        pidfd = take_into_use(path, {"A": "1", "B": huge}, output.fileno())
        assert pidfd.pid == os.getpid(), "the process that listens"
        pidfd.close()
        with listener.accept()[0] as server:
            text, messages, _, _ = server.recvmsg(1 << 20, socket.CMSG_SPACE(4))
            while not text.endswith(b"\n"):
                text += server.recv(1 << 20)
    assert json.loads(text) == {"environment": {"A": "1", "B": huge}}
    [(_, _, payload)] = messages
    given = array.array("i", payload)[0]
    assert os.fstat(given).st_ino == (tmp_path / "output").stat().st_ino
    os.close(given)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take_into_use(str(tmp_path / "p"), {}, 1)


async def test_TH3_who_has_just_started_it_need_not_wait_until_it_listens(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """For two seconds, also where the socket has its name and does not listen yet."""
    path = str(tmp_path / "p")
    with socket.socket(socket.AF_UNIX) as listener, open(os.devnull, "wb") as output:

        async def begin() -> None:
            await trio.sleep(0.9)
            listener.bind(path)
            await trio.sleep(0.9)
            listener.listen()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            pidfd = await take_when_it_listens(path, {}, output.fileno())
        assert pidfd.pid == os.getpid()
        pidfd.close()
        with pytest.raises(FileNotFoundError):
            await take_when_it_listens(str(tmp_path / "none"), {}, output.fileno())
        assert 3.8 < trio.current_time() < 4
