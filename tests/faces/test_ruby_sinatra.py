"""A Sinatra directory: ``passenger-trio start`` with no option, a real client that logs in, uploads, and reads a stream.

Starts the command: that it needs no option is the subject, and one Ruby is kept for all.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from passenger_trio.testing import Supervisor, eventually

RUBY_APPS = Path(__file__).resolve().parent.parent / "apps" / "ruby"
SINATRA = RUBY_APPS / "sinatra_login"
FAILS = RUBY_APPS / "fails_to_start"

pytestmark = [pytest.mark.os, pytest.mark.slow]


@pytest.fixture(scope="module")
def server() -> Iterator[Supervisor]:
    with Supervisor.start(SINATRA) as running:
        yield running


@pytest.fixture
def client(server: Supervisor) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, follow_redirects=True, timeout=30) as it:
        yield it


def test_the_banner_says_what_and_with_which_ruby(server: Supervisor) -> None:
    (app,) = server.ready["applications"]
    assert (app["app_type"], app["reason"]) == ("rack", "config.ru is a Rack application")
    assert app["interpreter_reason"].startswith("the first in PATH (Ruby ")


def test_a_login(client: httpx.Client) -> None:
    form = client.get("/")
    assert form.url.path == "/login"
    assert client.post("/login", data={"name": "ada", "password": "guess"}).status_code == 403
    welcome = client.post("/login", data={"name": "ada", "password": "sesame"})
    assert (welcome.url.path, welcome.text) == ("/", "hello ada")
    assert client.get("/").text == "hello ada"


def test_an_upload(client: httpx.Client) -> None:
    content = random.Random(5).randbytes(1_500_000)
    answer = client.post("/upload", files={"file": ("a picture.png", content)}, data={"title": "mine"})
    assert answer.text == f"a picture.png {hashlib.sha256(content).hexdigest()} mine"


def test_a_stream(client: httpx.Client) -> None:
    assert client.get("/stream").text == "part 0\npart 1\npart 2\n"


def test_an_exception_has_rubys_backtrace(client: httpx.Client) -> None:
    answer = client.get("/raise")
    assert answer.status_code == 500
    assert "sinatra raised" in answer.text
    assert "sinatra_login/config.ru:" in answer.text
    assert "spawn_servers/ruby" not in answer.text
    assert client.get("/login").status_code == 200


def test_curl(server: Supervisor) -> None:
    done = subprocess.run(["curl", "-sS", "-i", f"{server.url}/login"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HTTP/1.1 200 OK")


def test_further_processes_are_forked() -> None:
    with Supervisor.start(SINATRA, "--min-instances", "3", "--max-pool-size", "3") as server:
        pids = eventually(lambda: server.pids if len(server.pids) == 3 else [])
        preloader = server.preloader_pid
        parents = {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids}
        assert parents == {preloader}


def test_an_application_that_was_not_written_for_us(tmp_path: Path) -> None:
    """Rack's own lobster, which Rack 2 brings along."""
    (tmp_path / "config.ru").write_text('require "rack/lobster"\nuse Rack::ShowExceptions\nrun Rack::Lobster.new\n')
    with Supervisor.start(tmp_path, "--thread-count", "4") as server, httpx.Client(base_url=server.url) as client:
        assert "Lobstericious!" in client.get("/").text
        assert client.get("/", params={"flip": "left"}).status_code == 200
        assert "Lobster crashed" in client.get("/", params={"flip": "crash"}).text


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("missing_gem.ru", ["there_is_no_such_gem", "gem install there_is_no_such_gem"]),
        ("syntax_error.ru", ["syntax error", "syntax_error.ru"]),
        ("raises.ru", ["ArgumentError: it is broken", "raises.ru:2:in"]),
    ],
)
def test_a_failed_start_is_explained_on_the_page(file: str, words: list[str], tmp_path: Path) -> None:
    shutil.copy(FAILS / file, tmp_path / file)
    with Supervisor.start(tmp_path, "--startup-file", file) as server:
        answer = server.get("/", Accept="text/html")
        assert answer.status >= 500
        for word in words:
            assert word in answer.text, answer.text[-3000:]
