"""A server in programs that have no Trio loop, as they begin and end in real life: a Django command, an exit in the middle (LI6)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from faces_tools import AS_OURSELVES, BEHAVIOURS
from test_library_face import config, nothing_left

import passenger_trio
from passenger_trio.errors import NotPossible
from passenger_trio.system.children import descendants
from passenger_trio.testing import RawClient, eventually

pytestmark = [pytest.mark.os, pytest.mark.usefixtures("runtime")]

SITE = Path(__file__).resolve().parents[2] / "examples" / "django_site"


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **AS_OURSELVES},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def line_of(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    return running.stdout.readline() or f"it has ended: {running.communicate(timeout=60)}"


class TestACommandOfDjango:
    """The example ``examples/django_site``: ``manage.py serve_trio``, in place of ``runserver``."""

    def test_it_serves_the_site_until_ctrl_c_and_until_it_is_stopped(self, runtime: str) -> None:
        """LI6."""
        for stop in ("Ctrl-C", "passenger-trio stop"):
            with program(str(SITE / "manage.py"), "serve_trio", "127.0.0.1:0", "--processes", "2") as django:
                found = re.match(r"serving at http://127\.0\.0\.1:(\d+)/", line := line_of(django))
                assert found, line
                with RawClient(("127.0.0.1", int(found[1]))) as client:
                    [pid] = re.findall(r"process (\d+)", client.get("/").text)
                assert int(pid) in descendants(django.pid)
                before = descendants(django.pid)
                if stop == "Ctrl-C":
                    django.send_signal(signal.SIGINT)
                else:
                    command = [sys.executable, "-m", "passenger_trio", "stop", "--instance", str(django.pid)]
                    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
                    assert done.returncode == 0, done
                out, errors = django.communicate(timeout=60)
                assert (django.returncode, "Traceback" in errors) == (0, False), (stop, out, errors)
                assert ("finishing the requests" in out) == (stop == "Ctrl-C")
                eventually(lambda before=before: not [one for one in before if Path(f"/proc/{one}").exists()])
                assert os.listdir(runtime) == []

    def test_what_is_wrong_is_one_line_in_its_words(self) -> None:
        """LI8: an error is the command's, and speaks of parameters."""
        with program(str(SITE / "manage.py"), "serve_trio", "127.0.0.1:0", "--processes", "0") as django:
            out, errors = django.communicate(timeout=60)
        assert (django.returncode, out) == (1, "")
        [line] = [line for line in errors.splitlines() if "CommandError" in line]
        assert "max_pool_size" in line
        assert "--" not in line
        assert "Traceback" not in errors


class TestTheEndOfAProgram:
    def test_that_never_leaves_the_block(self, runtime: str) -> None:
        """LI6: it exits, and the server ends with it, at once: it does not wait for a block that is never left."""
        lines = f"""
import os, sys, passenger_trio as p
it = p.run_in_thread(p.Config(server=p.ServerOptions(port=0, access_log="off"), apps=(p.AppOptions(root={str(BEHAVIOURS)!r}),)))
server = it.__enter__()
child = os.fork()  # has no server, and ends nothing
if child == 0:
    sys.exit()
print(os.waitpid(child, 0)[1], flush=True)
sys.exit(3)
"""
        with program("-c", lines) as running:
            assert line_of(running) == "0\n"
            errors = running.communicate(timeout=60)[1]
        assert (running.returncode, errors) == (3, "")
        assert os.listdir(runtime) == []

    def test_a_server_that_stops_by_itself_is_noticed(self) -> None:
        """LI6, LI8: ``wait_stopping`` returns; what is asked of it then is one plain error, in no other library's words."""

        async def forever(_: passenger_trio.RunningServer) -> None:
            await trio.sleep_forever()

        with nothing_left():
            with passenger_trio.run_in_thread(config()) as server:
                server.call(lambda running: running.stop())
                server.wait_stopping()
                with pytest.raises(NotPossible, match="the server has ended"):
                    server.wait(forever)
