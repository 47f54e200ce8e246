"""KE6, fault 10: a live process that closes connections without answering, beside two that are well.

Starts the command: the processes that it starts by itself are the subject.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from passenger_trio.testing import Supervisor, eventually

pytestmark = pytest.mark.os

PROGRAM = """
import os, socket, time
try:
    os.close(os.open("bad", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    bad = True
except FileExistsError:
    bad = False
    time.sleep(0.5)  # requests one after another go to the process that was ready first: let that be the bad one
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
print("I am", "bad" if bad else "well", os.getpid(), flush=True)
while True:
    stream, _ = listener.accept()
    with stream:
        request = b""
        while b"\\r\\n\\r\\n" not in request:
            piece = stream.recv(65536)
            if not piece:
                break
            request += piece
        else:
            if not bad:
                stream.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok")
"""


def start(directory: Path, *options: str) -> Supervisor:
    (directory / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} program.py"
    return Supervisor.start(
        directory, "--app-start-command", command, "--min-instances", "3", "--max-pool-size", "3", *options
    )


def test_no_client_notices_and_the_bad_one_is_replaced(tmp_path: Path) -> None:
    """30 of 30 GETs were 502 while two healthy processes were idle."""
    with start(tmp_path) as server:
        bad = int(server.wait_log("I am bad").split("I am bad ")[1].split('"')[0])
        assert bad in server.pids
        assert [server.get("/").status for _ in range(30)] == [200] * 30
        server.wait_log("it closes connections without a response")
        eventually(lambda: bad not in server.pids and len(server.pids) == 3)


def test_without_a_second_try_a_few_requests_fail_until_it_is_replaced(tmp_path: Path) -> None:
    with start(tmp_path, "--retry", "off") as server:
        answers = [server.get("/").status for _ in range(30)]
        assert set(answers) == {200, 502}
        assert answers.count(502) == 3
