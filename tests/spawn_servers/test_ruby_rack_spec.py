"""Rack to the specification (2 and 3, whichever a Ruby has): what applications get, what they may give back. Rack::Lint stands between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruby_rack import APPS, can_fork, command, environment, rubies, worker_of

from passenger_trio.testing.conformance import (
    FakeSupervisor,
    Loader,
    LoaderFailed,
    Response,
    Stream,
    eventually,
    frame,
    request_head,
)

pytestmark = pytest.mark.os

RUBIES = rubies()
FORKING = {name: ruby for name, ruby in RUBIES.items() if can_fork(ruby)}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features")
    (path / "file").write_bytes(bytes(range(256)) * 1000)
    return path


@pytest.fixture(scope="module", params=RUBIES.values(), ids=RUBIES.keys())
def worker(request: pytest.FixtureRequest, directory: Path) -> Iterator[Loader]:
    env = {"FEATURES_LOG": str(directory / "log"), "FEATURES_FILE": str(directory / "file")}
    with worker_of(request.param, "features", env=env, threads=2) as loader:
        yield loader
        assert "Lint" not in loader.output.text()


@pytest.fixture
def log(directory: Path) -> Path:
    path = directory / "log"
    path.write_text("")
    return path


def good(response: Response) -> bytes:
    assert response.error is None, response.error
    assert response.complete
    assert response.status == 200
    return response.body


def rest_of(stream: Stream) -> bytes:
    """What comes behind an upgrade, to its end."""
    came = stream._buffer
    while data := stream.socket.recv(65536):
        came += data
    return came


def test_the_environment(worker: Loader) -> None:
    fields = {"REQUEST_SCHEME": "https", "SCRIPT_NAME": "/base", "PATH_INFO": "/env"}
    lines = good(worker.request("GET", "/env", fields=fields)).decode().splitlines()
    env = dict(line.split("=", 1) for line in lines)
    assert env["rack.url_scheme"] == "String https"
    assert env["HTTPS"] == "String on"
    assert env["SCRIPT_NAME"] == "String /base"
    assert env["rack.multithread"].split() == ["TrueClass", "true"]
    assert env["rack.run_once"].split() == ["FalseClass", "false"]
    assert "rack.hijack" in env


def test_paths_come_as_they_were_sent(worker: Loader) -> None:
    fields = {"PATH_INFO": "/env"}
    assert b"PATH_INFO=String /env" in good(worker.request("GET", "/%65nv", fields=fields))


def test_bodies_are_closed_once(worker: Loader, log: Path) -> None:
    for path, body in (("/enumerable", b"abc"), ("/utf8", "€".encode() + b"\xff")):
        log.write_text("")
        response = worker.request("GET", path)
        assert good(response) == body
        assert eventually(lambda: log.read_text() == "closed\n"), log.read_text()
    log.write_text("")
    assert good(worker.request("HEAD", "/enumerable")) == b""
    assert eventually(lambda: log.read_text() == "closed\n"), log.read_text()


def test_files_are_sent_by_the_kernel(worker: Loader, log: Path, directory: Path) -> None:
    response = worker.request("GET", "/file")
    assert good(response) == (directory / "file").read_bytes()
    assert response.header("content-length") == "256000"
    assert eventually(lambda: log.read_text() == "closed\n"), log.read_text()
    assert worker.request("HEAD", "/file").body == b""


@pytest.mark.parametrize("path", ["/proc/version", "/sys/devices/system/cpu/online"])
def test_a_file_that_the_kernel_makes_up_is_read(worker: Loader, path: str) -> None:
    assert good(worker.request("GET", f"/made-up?{path}")) == Path(path).read_bytes()


def test_a_pipe_is_not_waited_for(worker: Loader, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert good(worker.request("GET", f"/pipe?{tmp_path / 'pipe'}")) == b"read"


@pytest.mark.parametrize("how", ["array", "spaces", "number"])
def test_a_content_length_in_any_writing(worker: Loader, how: str) -> None:
    response = worker.request("GET", f"/length?{how}")
    assert good(response) == b"hello"
    assert [value for name, value in response.headers if name.lower() == "content-length"] == ["5"]


def test_a_body_that_has_no_path_after_all_is_read(worker: Loader) -> None:
    assert good(worker.request("GET", "/no-path")) == b"read"


def test_fields_that_come_more_than_once(worker: Loader) -> None:
    response = worker.request("GET", "/cookies")
    good(response)
    assert [value for name, value in response.headers if name == "set-cookie"] == ["a=1", "b=2"]


def test_errors_go_to_the_output(worker: Loader) -> None:
    assert good(worker.request("GET", "/errors")) == b"errors"
    assert worker.output.wait_for("to rack.errors\nmore\n")


@pytest.mark.parametrize("size", [10, 200_000])
def test_the_input(worker: Loader, size: int) -> None:
    body = b"line\nabcd\n" + b"x" * size
    first, second, rest, end, again = good(worker.request("POST", "/input", body)).split(b"|")
    assert (first, second, rest, end) == (b"line\n", b"abc", b"d\n" + b"x" * size, b"nil")
    assert again in (b"", str(len(body)).encode())


def test_the_input_streams_and_is_bounded(worker: Loader) -> None:
    with worker.open() as stream:
        stream.send(frame("H", request_head("POST", "/input")), frame("D", b"line\nab"))
        stream.send(frame("D", b"cd"), frame("E"))
        assert stream.response().body.startswith(b"line\n|abc|d|nil")
        assert good(stream.request("GET", "/enumerable")) == b"abc"


def test_early_hints(worker: Loader) -> None:
    response = worker.request("GET", "/hints")
    assert good(response) == b"hinted"
    assert response.frames[0] == ("I", b"103\0Early Hints\0link\0</a.css>; rel=preload\0")


def test_what_is_done_afterwards(worker: Loader, log: Path) -> None:
    assert good(worker.request("GET", "/afterwards")) == b"done"
    assert eventually(lambda: log.read_text() == "after_reply\nfinished 200 nil\n")


@pytest.mark.parametrize("how", ["each", "stream"])
def test_what_is_done_afterwards_hears_that_the_client_left(worker: Loader, log: Path, how: str) -> None:
    with worker.open() as stream:
        stream.begin("GET", f"/ticks?{how}")
        assert stream.next_frame() is not None
    assert eventually(lambda: "finished 200 PassengerTrio::ClientGone\n" in log.read_text()), log.read_text()


def test_a_body_that_is_whole_and_kept_open_keeps_nobody_waiting(worker: Loader, tmp_path: Path) -> None:
    with worker.open() as stream:
        response = stream.request("GET", f"/kept?{tmp_path / 'go'}")
        assert (good(response), response.flags) == (b"one", 0)
        assert good(stream.request("GET", "/callable")) == b"onetwo"
    (tmp_path / "go").touch()


def test_a_body_that_is_made_whole_elsewhere_is_the_last_of_its_stream(worker: Loader, tmp_path: Path) -> None:
    with worker.open() as stream:
        response = stream.request("GET", f"/kept?{tmp_path / 'go'},late")
        assert (good(response), response.flags) == (b"one", 1)
        (tmp_path / "go").touch()
        assert stream.ended()


@pytest.mark.parametrize(("path", "body"), [("/callable", b"onetwo"), ("/partial", b"hijacked")])
def test_bodies_that_write_for_themselves(worker: Loader, path: str, body: bytes) -> None:
    with worker.open() as stream:
        for _ in range(2):
            assert good(stream.request("GET", path)) == body


def test_a_body_that_is_written_after_the_application_has_returned(worker: Loader, tmp_path: Path) -> None:
    """Two sessions at the same time on the worker's two threads show that the first session's thread has handed its stream over.

    Section F: one other request does not show that. JRuby's first thread was once in nine runs still on its way when the body ended.
    """
    gate = tmp_path / "go"
    with worker.open() as stream, worker.open() as second, worker.open() as third:
        stream.begin("GET", f"/later?{gate}")
        assert stream.next_frame() is not None
        assert stream.next_frame() == ("D", b"one")
        ends = []
        for other in (second, third):
            head, end = other.encode("POST", "/answers")
            ends.append(end)
            other.send(head)
            assert other.next_frame() is not None
            other.send(frame("D", b"one"))
            assert other.next_frame() == ("D", b"got one")
        gate.touch()
        assert stream.next_frame() == ("D", b"two")
        assert stream.next_frame() == ("E", b"\1")
        assert stream.ended()
        for other, end in zip((second, third), ends, strict=True):
            other.send(end)
            assert other.next_frame() == ("E", b"")


def test_a_body_that_another_thread_ends_before_the_application_returns(worker: Loader) -> None:
    """Section F: nobody writes to such a stream any more, so it carries the next session."""
    with worker.open() as stream:
        for _ in range(3):
            assert good(stream.request("GET", "/joined")) == b"onetwo"


def test_a_body_answers_to_what_has_come_of_the_request(worker: Loader) -> None:
    with worker.open() as stream:
        head, end = stream.encode("POST", "/answers")
        stream.send(head)
        assert stream.next_frame() is not None
        for word in (b"one", b"two"):
            stream.send(frame("D", word))
            assert stream.next_frame() == ("D", b"got " + word)
        stream.send(end)
        assert stream.next_frame() == ("E", b"")
    assert good(worker.request("POST", "/answers", b"whole")) == b"got whole"


@pytest.mark.parametrize("path", ["/tunnel", "/full"])
def test_an_upgrade_makes_the_stream_a_tunnel(worker: Loader, path: str) -> None:
    with worker.open() as stream:
        stream.begin("GET", path)
        head = stream.next_frame()
        if path == "/tunnel":
            assert head is not None
            assert head[1].startswith(b"101\0Switching Protocols\0")
            head = stream.next_frame()
        assert head == ("U", b"")
        stream.send(b"hello\n")
        assert rest_of(stream).endswith(b"you said hello\n")
    assert good(worker.request("GET", "/enumerable")) == b"abc"


def test_a_hijack_waits_for_the_end_of_a_body_that_nobody_reads(worker: Loader) -> None:
    with worker.open() as stream:
        stream.send(frame("H", request_head("POST", "/taken")))
        for _ in range(32):
            stream.send(frame("D", bytes(65536)))
        stream.send(frame("E"))
        assert stream.next_frame() == ("U", b"")
        assert rest_of(stream) == b"taken"


@pytest.mark.parametrize("path", ["/taken?raise", "/switched"])
def test_an_error_behind_a_hijack_ends_the_connection(worker: Loader, path: str) -> None:
    with worker.open() as stream:
        stream.begin("GET", path)
        while (head := stream.next_frame()) != ("U", b""):
            assert head is not None
        assert rest_of(stream) == b"taken"
    assert worker.output.wait_for("behind the hijack (RuntimeError)")


def test_a_streaming_body_may_read_in_one_thread_and_write_in_another(worker: Loader) -> None:
    with worker.open() as stream:
        stream.send(frame("H", request_head("POST", "/duet")))
        assert stream.next_frame() is not None
        for heard in range(1, 1000):
            stream.send(frame("D", b"x"))
            while stream.next_frame() != ("D", b"%08d" % heard):
                pass
        stream.send(frame("E"))
        while (last := stream.next_frame()) is not None and last[0] == "D":
            pass
        assert last == ("E", b"")


@pytest.mark.parametrize("ruby", RUBIES.values(), ids=RUBIES.keys())
def test_a_body_that_is_written_elsewhere_and_that_nobody_wants_keeps_no_worker(ruby: str, tmp_path: Path) -> None:
    with worker_of(ruby, "features") as loader:
        with loader.open() as stream:
            stream.begin("GET", f"/later?{tmp_path / 'go'}")
            assert stream.next_frame() is not None
            assert stream.next_frame() == ("D", b"one")
        (tmp_path / "go").touch()
        loader.shut_down()
        assert loader.exit_status() == 0


def test_framing_that_the_application_did_is_taken_off(worker: Loader) -> None:
    response = worker.request("GET", "/chunked")
    assert good(response) == b"hello world"
    assert response.header("transfer-encoding") is None


def test_out_of_band_work_is_asked_for(worker: Loader) -> None:
    response = worker.request("GET", "/oob")
    assert good(response) == b"oob"
    assert response.flags == 2
    assert response.header("x-passenger-request-oob-work") is None


def test_an_application_that_empties_its_environment(worker: Loader) -> None:
    with worker.open() as stream:
        for _ in range(2):
            assert good(stream.request("GET", "/emptied")) == b"emptied"


def test_an_error_in_a_file_with_any_name(worker: Loader) -> None:
    response = worker.request("GET", "/any-name")
    assert response.error is not None
    assert response.error[:2] == ("RuntimeError", "caf\u00e9")


@pytest.mark.parametrize(
    ("path", "why"), [("/nul", "has a NUL byte"), ("/no-name", "has an empty name"), ("/too-long", "is longer than")]
)
def test_a_head_that_cannot_be_sent_is_the_applications_error(worker: Loader, path: str, why: str) -> None:
    with worker.open() as stream:
        response = stream.request("GET", path)
        assert response.error is not None
        assert response.error[0] == "ArgumentError"
        assert why in response.error[1]
        assert good(stream.request("GET", "/chunked")) == b"hello world"


def test_a_thread_that_the_application_ends_is_replaced(worker: Loader, tmp_path: Path) -> None:
    for _ in range(2):
        assert not worker.request("GET", "/thread-exit").complete
    with worker.open() as one, worker.open() as two:
        one.begin("GET", f"/meet?{tmp_path / 'one'},{tmp_path / 'two'}")
        assert good(two.request("GET", f"/meet?{tmp_path / 'two'},{tmp_path / 'one'}")) == b"met"
        assert good(one.response()) == b"met"


@pytest.mark.parametrize("ruby", FORKING.values(), ids=FORKING.keys())
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("how", "status"), [("exit", b"3"), ("raise", b"0")])
def test_a_process_that_comes_back_out_of_a_request_leaves_the_worker_its_socket(
    ruby: str, threads: int, how: str, status: bytes
) -> None:
    with worker_of(ruby, "features", threads=threads) as loader:
        for _ in range(2):
            assert good(loader.request("GET", f"/fork?{how}")) == status
        loader.shut_down()
        assert loader.exit_status() == 0


def test_the_socket_is_closed_to_other_users(worker: Loader) -> None:
    assert Path(worker.socket_path).stat().st_mode & 0o777 == 0o600


def test_errors_have_rubys_backtrace_and_their_cause(worker: Loader) -> None:
    error = worker.request("GET", "/cause").error
    assert error is not None
    assert error[:2] == ("RuntimeError", "the outer error")
    assert "features/config.ru:" in error[2]
    assert "Caused by:" in error[2]
    assert "spawn_servers/ruby" not in error[2]
    assert worker.request("GET", "/nothing").error is not None


@pytest.mark.parametrize("ruby", FORKING.values(), ids=FORKING.keys())
def test_events(ruby: str, tmp_path: Path) -> None:
    env = {"EVENTS_FILE": str(tmp_path / "events"), **environment(ruby)}
    for preload in (False, True):
        with FakeSupervisor() as supervisor:
            worker = supervisor.start(
                command(ruby, preload=preload), APPS / "events", "config.ru", app_type="rack", env=env
            )
            if preload:
                worker = supervisor.fork(worker)
            assert good(worker.request("GET", "/")) == f"starting {'true' if preload else 'false'},thread".encode()
            worker.shut_down()
            worker.wait_gone()
        assert (tmp_path / "events").read_text() == "stopping\n"
        os.unlink(tmp_path / "events")


@pytest.mark.parametrize("ruby", RUBIES.values(), ids=RUBIES.keys())
@pytest.mark.parametrize(
    ("file", "category", "summary", "hint"),
    [
        ("missing_gem.ru", "application", "there_is_no_such_gem", "gem install there_is_no_such_gem"),
        ("syntax_error.ru", "application", "syntax error", "--ruby"),
        ("not_callable.ru", "configuration", "cannot be called", "run"),
        ("raises.ru", "application", "ArgumentError: it is broken", "Fix"),
    ],
)
def test_a_failed_start_is_explained(ruby: str, file: str, category: str, summary: str, hint: str) -> None:
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(
            command(ruby), APPS / "fails_to_start", file, app_type="rack", env=environment(ruby), wait=False
        )
        with pytest.raises(LoaderFailed) as failure:
            loader.expect("ready", timeout=30)
        message = failure.value.message
        assert message["category"] == category, message
        assert summary in message["summary"], message
        assert hint in message["solution"], message
        assert "spawn_servers/ruby" not in message["traceback"]
        if file == "raises.ru":
            assert (
                message["traceback"].splitlines()[0].endswith("raises.ru:2:in `deep': it is broken (ArgumentError)")
                or "deep" in message["traceback"]
            )


@pytest.mark.parametrize(
    ("gemfile", "summary", "hint"),
    [
        ('ruby "2.0.0"\ngem "rack"\n', "RubyVersionMismatch", "Choose the Ruby that the Gemfile asks for"),
        ('gem "there_is_no_such_gem"\n', "GemNotFound", "bundle install"),
    ],
)
def test_what_bundler_refuses_is_explained(gemfile: str, summary: str, hint: str, tmp_path: Path) -> None:
    ruby = RUBIES[min(FORKING)]
    (tmp_path / "config.ru").write_text("run ->(env) { [200, {}, []] }\n")
    (tmp_path / "Gemfile").write_text(gemfile)
    with FakeSupervisor() as supervisor:
        loader = supervisor.start(
            command(ruby), tmp_path, "config.ru", app_type="rack", env=environment(ruby), wait=False
        )
        with pytest.raises(LoaderFailed) as failure:
            loader.expect("ready")
        message = failure.value.message
        assert message["category"] == "configuration"
        assert summary in message["summary"]
        assert hint in message["solution"]
