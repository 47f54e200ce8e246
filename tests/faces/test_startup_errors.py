"""An application that does not start: what the browser and the log say, that the server lives on, and that mending the file is all there is to do.

Starts the command: applications that do not start are the subject, each in a directory of its own.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from faces_tools import HELLO, in_threads, run_command, write_app

from passenger_trio.testing import Response, Supervisor, eventually
from passenger_trio.testing.harness import MARK

pytestmark = pytest.mark.os

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])

NEVER = "from wsgiref.simple_server import demo_app as application\n"
"""Makes a file look like an application to whoever reads its syntax."""

FAULTS: dict[str, tuple[str, str, str]] = {
    "a module that is not installed": (
        "import not_there_at_all\n" + HELLO,
        "not_there_at_all",
        "pip install not_there_at_all",
    ),
    "a syntax error": ("def application(environ, start_response:\n    return []\n", "syntax error", "Fix the line"),
    "an exception": (
        HELLO + "\nraise ValueError('the moon is full')\n",
        "ValueError: the moon is full",
        "Fix the application",
    ),
    "an exception far down": (
        "import json\n" + HELLO + "\ndef load():\n    json.loads('{')\nload()\n",
        "JSONDecodeError",
        "Fix the application",
    ),
    "sys.exit": (HELLO + "\nimport sys; sys.exit('enough')\n", "sys.exit('enough')", "__main__"),
    "os._exit": (HELLO + "\nimport os; print('so long'); os._exit(9)\n", "exit status 9", "Look at the output"),
    "a signal": (HELLO + "\nimport os; os.kill(os.getpid(), 11)\n", "SIGSEGV", "Look at the output"),
    "no application": (
        "from os.path import *\nprint('nothing here')\n",
        "There is no WSGI application",
        "module:object",
    ),
    "no callable": ("import os\napplication = os.environ['PWD']\n", "cannot be called", "module:object"),
    "a factory that fails": (
        "from wsgiref.simple_server import demo_app\n\ndef create_app():\n    {}['database']\n    return demo_app\n",
        "KeyError: 'database'",
        "Fix the application",
    ),
}


def diagnosis(server: Supervisor) -> dict[str, Any]:
    """The error page as a program gets it."""
    answer = server.get("/", Accept="application/json")
    assert (answer.status, answer.complete) == (500, True)
    assert (answer.header("Content-Type") or "").startswith("application/json")
    found: dict[str, Any] = json.loads(answer.body)["error"]
    return found


class TestDevelopment:
    @METHODS
    @pytest.mark.parametrize("fault", FAULTS)
    def test_the_page_says_what_happened_how_far_it_came_and_what_to_try(
        self, fault: str, method: str, tmp_path: Path
    ) -> None:
        source, happened, to_try = FAULTS[fault]
        root = write_app(tmp_path / "app", source)
        with Supervisor.start(root, "--spawn-method", method) as server:
            error = diagnosis(server)
            assert happened in error["summary"] + error["traceback"], error
            assert to_try in error["solution"], error
            steps = {step["name"]: step["state"] for step in error["journey"]["steps"]}
            assert "errored" in steps.values(), steps
            assert steps["start_program"] == "performed"
            page = server.get("/", Accept="text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
            assert page.status == 500
            assert (page.header("Content-Type") or "").startswith("text/html")
            # Each is of an attempt of its own if the back-off was over in between.
            (shown,) = re.findall(r"Error ID: ([0-9a-f]{8}) ", page.text)
            for heading in ("What happened", "What to try", "How far it came"):
                assert heading in page.text
            assert not re.search(r"<script|<img|https?://(?!www\.w3\.org)", page.text.split("Environment")[0]), (
                "the page loads nothing"
            )
            assert server.process.poll() is None
            for found in (error["id"], shown, server.group()["last_error"]["id"]):
                server.wait_log(f"[error {found}]")
            assert server.pids == []

    def test_its_output_is_on_the_page_and_in_the_log(self, tmp_path: Path) -> None:
        source = (
            NEVER
            + "import sys\nprint('one step')\nprint('<b>two</b> steps', file=sys.stderr)\nraise OSError('a stumble')\n"
        )
        with Supervisor.start(write_app(tmp_path / "app", source)) as server:
            error = diagnosis(server)
            assert error["output"][:2] == ["one step", "<b>two</b> steps"]
            page = server.get("/", Accept="text/html").text
            assert "&lt;b&gt;two&lt;/b&gt; steps" in page
            assert "<b>two" not in page
            assert json.loads(server.wait_log("one step"))["group"] == "app"

    def test_the_output_of_a_program_that_says_nothing_else(self, tmp_path: Path) -> None:
        """A flood before the end: the tail is kept."""
        source = NEVER + "import os\nfor n in range(5_000): print('line', n)\nos.abort()\n"
        with Supervisor.start(write_app(tmp_path / "app", source)) as server:
            error = diagnosis(server)
            assert "line 4999" in error["output"]
            assert len(error["output"]) <= 200
            assert "SIGABRT" in error["summary"]

    def test_secrets_of_the_environment_are_left_out(self, tmp_path: Path) -> None:
        """F62."""
        env = {
            "DJANGO_SECRET_KEY": "oh-so-secret-1",
            "DATABASE_URL": "postgres://me:oh-so-secret-2@db/shop",
            "HARMLESS": "well known",
        }
        options = ("--env", "API_TOKEN=oh-so-secret-3")
        with Supervisor.start(write_app(tmp_path / "app", HELLO + "\n1/0\n"), *options, env=env) as server:
            for accept in ("application/json", "text/html"):
                page = server.get("/", Accept=accept).text
                assert "oh-so-secret" not in page
                assert "well known" in page
                assert MARK in page
                assert "SPAWN_TOKEN" not in page
            assert "oh-so-secret" not in json.dumps(server.status())

    def test_an_import_that_hangs_is_ended_when_its_time_is_over(self, tmp_path: Path) -> None:
        """F8; with the children it has started."""
        source = (
            NEVER
            + "import subprocess\nprint('waiting for', subprocess.Popen(['sleep', '600']).pid)\nimport time; time.sleep(600)\n"
        )
        with Supervisor.start(write_app(tmp_path / "app", source), "--start-timeout", "1500ms") as server:
            error = diagnosis(server)
            assert error["category"] == "timeout"
            assert "1.5 seconds" in error["summary"]
            assert error["output"][0].startswith("waiting for ")
            assert "--start-timeout" in error["solution"]
            eventually(lambda: not any("sleep 600" in line for line in server.marked_processes()))

    def test_an_interpreter_that_vanishes(self, tmp_path: Path) -> None:
        python = tmp_path / "python"
        import sys

        python.symlink_to(sys.executable)
        root = write_app(tmp_path / "app")
        with Supervisor.start(root, "--python", str(python), "--min-instances", "0") as server:
            python.unlink()
            error = diagnosis(server)
            assert "cannot be started" in error["summary"]
            assert "--python" in error["solution"]
            python.symlink_to(sys.executable)
            assert eventually(lambda: server.get("/").status == 200)

    def test_an_application_directory_that_vanishes_and_comes_back(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app")
        with Supervisor.start(root, "--min-instances", "0") as server:
            root.rename(tmp_path / "gone")
            assert diagnosis(server)["category"] in ("operating_system", "application", "configuration", "exited")
            (tmp_path / "gone").rename(root)
            assert eventually(lambda: server.get("/").status == 200)

    @METHODS
    def test_mending_the_file_is_enough(self, method: str, tmp_path: Path) -> None:
        """No command, no signal: the next request, or one of the following two seconds, finds it mended."""
        root = write_app(tmp_path / "app", HELLO + "\nboom\n")
        with Supervisor.start(root, "--spawn-method", method) as server:
            assert "NameError" in diagnosis(server)["summary"]
            for _ in range(4):  # the back-off grows, but not for a person who presses reload
                diagnosis(server)
            write_app(tmp_path / "app")
            begun = time.monotonic()
            eventually(lambda: server.get("/").status == 200)
            took = time.monotonic() - begun
            print(f"mended after {took:.2f} s")
            # Generous: 1 second of back-off and a start; the machine is shared.
            assert took < 6
            assert server.group()["last_error"] is None
            assert server.group()["backing_off_for"] is None

    def test_many_clients_at_once_share_one_attempt(self, tmp_path: Path) -> None:
        """R42: requests do not make a program start as often as they come."""
        source = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n" + HELLO + "\nboom\n"
        with Supervisor.start(write_app(tmp_path / "app", source)) as server:
            answers = in_threads(16, lambda _: [server.get("/").status for _ in range(20)])
            assert {status for several in answers for status in several} == {500}
            assert (tmp_path / "starts").stat().st_size < 12

    def test_an_old_process_goes_on_serving_when_new_ones_do_not_start(self, tmp_path: Path) -> None:
        """F7. The first processes live on; the code on the disk is broken when more are wanted."""
        root = write_app(tmp_path / "app")
        options = ("--spawn-method", "direct", "--max-pool-size", "3")
        with Supervisor.start(root, *options) as server:
            [pid] = server.pids
            write_app(tmp_path / "app", "def application(\n")
            answers = in_threads(8, lambda _: [server.get("/").status for _ in range(25)])
            assert {status for several in answers for status in several} == {200}
            assert server.pids == [pid]

    def test_a_request_with_a_body_gets_the_page_too_and_the_connection_lives(self, tmp_path: Path) -> None:
        with Supervisor.start(write_app(tmp_path / "app", "boom\n" + HELLO)) as server:
            with server.connect() as client:
                for size in (10, 100_000):
                    assert client.request("POST", "/", body=b"x" * size).status == 500
                    assert client.request("HEAD", "/").body == b""


class TestProduction:
    @pytest.mark.parametrize("variable", ["RAILS_ENV", "RACK_ENV", "NODE_ENV", "PASSENGER_APP_ENV"])
    def test_OP10_the_platform_says_that_it_is_production(self, variable: str, tmp_path: Path) -> None:
        """OP10, fault 24: it ran as development, and the page showed a traceback to the world."""
        root = write_app(tmp_path / "app", HELLO + "\nraise ValueError('the moon is full')\n")
        with Supervisor.start(root, env={variable: "production"}) as server:
            answer = server.get("/")
            assert answer.status == 500
            assert "moon" not in answer.text
            assert server.status()["groups"][0]["environment"] == "production"

    @METHODS
    @pytest.mark.parametrize("fault", ["an exception", "a syntax error", "os._exit"])
    def test_the_page_has_only_an_id_that_is_in_the_log(self, fault: str, method: str, tmp_path: Path) -> None:
        source = FAULTS[fault][0]
        root = write_app(tmp_path / "treasury", source)
        with Supervisor.start(root, "--spawn-method", method, "-e", "production", "--env", "TREASURE=gold") as server:
            for accept in ("text/html", "application/json", "*/*"):
                answer = server.get("/", Accept=accept)
                assert answer.status == 500
                for word in (
                    "moon",
                    "Traceback",
                    "treasury",
                    "gold",
                    str(tmp_path),
                    "passenger_wsgi",
                    "Error:",
                    "python",
                ):
                    assert word not in answer.text, word
                match = re.search(r"\b[0-9a-f]{8}\b", answer.text)
                assert match is not None, answer.text
                server.wait_log(match[0])
            logged = "\n".join(server.log)
            if fault != "os._exit":
                assert "Error" in logged
                assert "passenger_wsgi.py" in logged

    def test_it_recovers_by_itself_when_the_file_is_mended(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app", HELLO + "\nboom\n")
        with Supervisor.start(root, "-e", "production") as server:
            refused: Response = server.get("/")
            assert refused.status == 500
            write_app(tmp_path / "app")
            eventually(lambda: server.get("/").status == 200, 45)

    def test_friendly_pages_can_be_had_there_and_forbidden_in_development(self, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app", HELLO + "\nraise ValueError('tell me')\n")
        with Supervisor.start(root, "-e", "production", "--friendly-error-pages", "on") as server:
            assert "tell me" in server.get("/").text
        with Supervisor.start(root, "--friendly-error-pages", "off") as server:
            assert "tell me" not in server.get("/").text


class TestAborting:
    @METHODS
    def test_the_server_ends_with_3_and_says_why(self, method: str, tmp_path: Path) -> None:
        root = write_app(tmp_path / "app", HELLO + "\nraise ValueError('the moon is full')\n")
        done = run_command("start", str(root), "-p", "0", "--abort-on-startup-error", "--spawn-method", method)
        assert done.returncode == 3
        assert "passenger-trio: The application raised ValueError: the moon is full\n" in done.stderr
        assert "passenger_wsgi.py" in done.stderr  # where: the log has the application's own traceback
        assert "trio" not in re.sub(r"passenger.trio", "", done.stderr), "nothing of ours is in it"

    def test_one_that_starts_is_served(self, tmp_path: Path) -> None:
        with Supervisor.start(write_app(tmp_path / "app"), "--abort-on-startup-error") as server:
            assert server.get("/").status == 200

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        root = write_app(
            tmp_path / "app",
            HELLO + "\nimport subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)\nboom\n",
        )
        with Supervisor.start(root, "--abort-on-startup-error", wait=False) as server:
            assert server.wait() == 3
