"""PEP 3333, clause by clause, over real worker processes."""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import needs
from python_wsgi import APPS, command, worker_of

from passenger_trio.testing.conformance import FakeSupervisor, Loader, Response, frame, request_head

pytestmark = pytest.mark.os


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, Loader]]:
    """One worker for each sample application, started when it is first asked for."""
    with FakeSupervisor() as supervisor:

        class Workers(dict[str, Loader]):
            def __missing__(self, app: str) -> Loader:
                self[app] = supervisor.start(command(), APPS / app, "app.py")
                return self[app]

        yield Workers()


def kinds(response: Response) -> str:
    """The frames of a response as a word: ``RDDE``."""
    return "".join(kind for kind, _ in response.frames)


# The environ


def dump(
    worker: Loader, method: str = "GET", target: str = "/", body: bytes = b"", **fields: str
) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = json.loads(worker.request(method, target, body, fields).body)
    return found


def test_environ_has_what_the_pep_demands(workers: dict[str, Loader]) -> None:
    """A builtin dict with the CGI variables as native strings and the wsgi ones with their values."""
    environ = dump(
        workers["environ_dump"], "POST", "/some/path?a=b%20c", b"x=y", CONTENT_TYPE="text/plain", HTTP_ACCEPT="*/*"
    )
    for name, value in {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/some/path",
        "QUERY_STRING": "a=b%20c",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_ACCEPT": "*/*",
        "REQUEST_URI": "/some/path?a=b%20c",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "passenger_trio/test",
        "wsgi.url_scheme": "http",
    }.items():
        assert environ[name] == ["str", value], name
    assert environ["wsgi.version"] == ["tuple", "(1, 0)"]
    assert environ["wsgi.multithread"] == ["bool", "False"]
    assert environ["wsgi.multiprocess"] == ["bool", "True"]
    assert environ["wsgi.run_once"] == ["bool", "False"]
    assert environ["wsgi.input_terminated"] == ["bool", "True"]
    assert environ["wsgi.errors"][0] == "TextIOWrapper"
    assert "HTTPS" not in environ


def test_environ_has_nothing_that_the_request_has_not(workers: dict[str, Loader]) -> None:
    environ = dump(workers["environ_dump"])
    assert not {"CONTENT_TYPE", "CONTENT_LENGTH"} & environ.keys()
    assert "HTTP_PROXY" not in environ


def test_an_environ_belongs_to_its_request(workers: dict[str, Loader]) -> None:
    """The application may change it in any way; the next one is fresh (the application asserts it)."""
    with workers["environ_dump"].open() as stream:
        for _ in range(3):
            assert stream.request().status == 200


@pytest.mark.parametrize(
    ("path", "decoded"),
    [
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("/caf%e9", "/caf\xe9"),
        ("/%41%62%7a", "/Abz"),
        ("/a%2Fb%2f", "/a/b/"),
        ("/a+b", "/a+b"),
        ("/%25%32%35", "/%25"),
        ("/nul%00lf%0a", "/nul\0lf\n"),
        ("/no%escape%", "/no%escape%"),
        ("/%4", "/%4"),
        ("/%zz%4z%z4%", "/%zz%4z%z4%"),
        ("/%+1%-1% 1%0x", "/%+1%-1% 1%0x"),
        ("/%%41", "/%A"),
        ("", ""),
        ("*", "*"),
    ],
)
def test_path_info_is_decoded_to_latin_1(workers: dict[str, Loader], path: str, decoded: str) -> None:
    """R6. Once, to the characters whose codes are the bytes."""
    environ = dump(workers["environ_dump"], PATH_INFO=path, REQUEST_URI=path)
    assert environ["PATH_INFO"] == ["str", decoded]
    assert environ["REQUEST_URI"] == ["str", path]


def test_bytes_beyond_ascii_are_latin_1(workers: dict[str, Loader]) -> None:
    text = "".join(chr(code) for code in range(1, 256))
    assert dump(workers["environ_dump"], HTTP_X=text)["HTTP_X"] == ["str", text]


def test_script_name_is_the_base_uri(workers: dict[str, Loader]) -> None:
    environ = dump(workers["environ_dump"], "GET", "/inside", SCRIPT_NAME="/base")
    assert (environ["SCRIPT_NAME"][1], environ["PATH_INFO"][1]) == ("/base", "/inside")


def test_https_is_told(workers: dict[str, Loader]) -> None:
    environ = dump(workers["environ_dump"], REQUEST_SCHEME="https")
    assert environ["wsgi.url_scheme"][1] == "https"
    assert environ["HTTPS"][1] == "on"


def test_multithread_is_true_with_threads() -> None:
    with worker_of("environ_dump", threads=2) as worker:
        assert dump(worker)["wsgi.multithread"] == ["bool", "True"]


def test_a_name_of_ours_cannot_be_sent(workers: dict[str, Loader]) -> None:
    """A head that has ``wsgi.input`` in it is not of the contract."""
    with workers["environ_dump"].open() as stream:
        stream.send(frame("H", request_head(fields={"wsgi.errors": "forged"})), frame("E"))
        assert stream.ended()


# The input


@pytest.mark.parametrize(
    ("calls", "results"),
    [
        ("read", ["one\ntwo\n\nfour"]),
        ("read:-1,read", ["one\ntwo\n\nfour", ""]),
        ("read:None", ["one\ntwo\n\nfour"]),
        ("read:0,read:4,read:100,read:1", ["", "one\n", "two\n\nfour", ""]),
        ("readline,readline,readline,readline,readline", ["one\n", "two\n", "\n", "four", ""]),
        ("readline:2,readline:2,readline:0,readline:-1,readline:None", ["on", "e\n", "", "two\n", "\n"]),
        ("readlines", [["one\n", "two\n", "\n", "four"]]),
        ("readlines:1,readlines:5,readlines", [["one\n"], ["two\n", "\n"], ["four"]]),
        ("readlines:0", [["one\n", "two\n", "\n", "four"]]),
        ("iter,iter,read", [["one\n", "two\n", "\n", "four"], [], ""]),
        ("read:5,readline,iter", ["one\nt", "wo\n", ["\n", "four"]]),
    ],
)
def test_input_is_read_like_a_file(workers: dict[str, Loader], calls: str, results: list[object]) -> None:
    """Whole, in small frames, and byte by byte."""
    body = b"one\ntwo\n\nfour"
    head = frame("H", request_head("POST", f"/?{calls}", {"CONTENT_LENGTH": str(len(body))}))
    with workers["reads_input"].open() as stream:
        for size in (len(body), 3, 1):
            stream.send(head, *[frame("D", body[at : at + size]) for at in range(0, len(body), size)], frame("E"))
            assert json.loads(stream.response().body) == results
        for byte in head + frame("D", body[:5]) + frame("D", body[5:]) + frame("E"):
            stream.send(bytes((byte,)))
        assert json.loads(stream.response().body) == results


def test_input_ends_without_a_body(workers: dict[str, Loader]) -> None:
    response = workers["reads_input"].request("GET", "/?read,read:1,readline,readlines,iter,read")
    assert json.loads(response.body) == ["", "", "", [], [], ""]


def test_input_ends_where_the_body_ends(workers: dict[str, Loader]) -> None:
    """``CONTENT_LENGTH`` is for the application: a body of unknown length has none, and still ends."""
    with workers["reads_input"].open() as stream:
        stream.send(frame("H", request_head("POST", "/?read:5,read:1000000")), frame("D", b"x" * 70_000), frame("E"))
        assert json.loads(stream.response().body) == ["xxxxx", "x" * 69_995]


def test_input_is_streamed(workers: dict[str, Loader]) -> None:
    """What has come can be read before the rest has."""
    with workers["reads_input"].open() as stream:
        stream.send(frame("H", request_head("POST", "/?readline,read")), frame("D", b"line\n"))
        stream.send(frame("D", b"rest"), frame("E"))
        assert json.loads(stream.response().body) == ["line\n", "rest"]


# start_response


def test_a_list_of_one_gets_a_content_length(workers: dict[str, Loader]) -> None:
    response = workers["starts_response"].request("GET", "/ok")
    assert (response.status, response.reason) == (200, "OK")
    assert response.headers == [("Content-Type", "text/plain"), ("Content-Length", "4")]
    assert kinds(response) == "RDE"


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/no-reason", 200, ""),
        ("/empty-reason", 404, ""),
        ("/none", 200, "OK"),
        ("/no-headers", 299, "Strange"),
        ("/subclass", 200, "OK"),
        ("/keyword", 201, "Made"),
        ("/bad-length", 200, "OK"),
        ("/only-with-exc-info", 500, "Only"),
    ],
)
def test_what_a_status_may_be(workers: dict[str, Loader], path: str, status: int, reason: str) -> None:
    response = workers["starts_response"].request("GET", path)
    assert (response.status, response.reason) == (status, reason)
    assert response.complete


def test_headers_are_sent_as_they_were_given(workers: dict[str, Loader]) -> None:
    """Order, case, repetitions, empty values, bytes beyond ASCII; what HTTP forbids is for the supervisor to judge."""
    with workers["starts_response"].open() as stream:
        response = stream.request("GET", "/repeated")
        assert response.headers[:3] == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("x-lower", "")]
        response = stream.request("GET", "/latin-1")
        assert (response.reason, response.headers[0]) == ("D\xe9j\xe0", ("X-Name", "\xff\x80"))
        response = stream.request("GET", "/hop-by-hop")
        assert response.headers[:2] == [("Connection", "close"), ("Bad Name", "a\r\nb")]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/never", "AssertionError: the application did not call start_response"),
        ("/never-in-generator", "AssertionError: the application did not call start_response"),
        ("/never-and-empty", "AssertionError: the application did not call start_response"),
        ("/twice", "AssertionError: start_response was called a second time"),
        ("/status-bytes", "TypeError: the status must be str, not bytes"),
        ("/status-int", "TypeError: the status must be str, not int"),
        ("/status-short", "ValueError: not the status of a response: '20'"),
        ("/status-word", "ValueError: not the status of a response: 'OK'"),
        ("/status-joined", "ValueError: not the status of a response: '200OK'"),
        ("/status-interim", "ValueError: not the status of a response: '103 Early Hints'"),
        ("/status-nul", "ValueError: the status"),
        ("/status-unicode", "ValueError: the status"),
        ("/status-digits", "ValueError: the status"),
        ("/headers-tuple", "TypeError: the headers must be a list of tuples, not tuple"),
        ("/headers-dict", "TypeError: the headers must be a list of tuples, not dict"),
        ("/headers-none", "TypeError: the headers must be a list of tuples, not NoneType"),
        ("/header-single", "TypeError: a response header must be a tuple of a name and a value"),
        ("/header-triple", "TypeError: a response header must be a tuple of a name and a value"),
        ("/header-none", "TypeError: a response header must be a tuple of a name and a value"),
        ("/name-bytes", "TypeError: the response header b'Content-Type': a name or value must be str, not bytes"),
        ("/value-bytes", "TypeError: the response header 'Content-Type': a name or value must be str, not bytes"),
        ("/value-int", "TypeError: the response header 'Content-Length': a name or value must be str, not int"),
        ("/value-none", "TypeError: the response header 'X-None': a name or value must be str, not NoneType"),
        ("/value-nul", "ValueError: the response header 'X-Nul' has a character that HTTP cannot carry"),
        ("/name-nul", "ValueError: the response header 'X-\\x00' has a character"),
        ("/value-unicode", "ValueError: the response header 'X-Euro' has a character"),
        ("/name-empty", "ValueError: a response header has an empty name"),
        ("/too-long", "ValueError: the response head is longer than 131072 bytes"),
    ],
)
def test_what_start_response_refuses(workers: dict[str, Loader], path: str, error: str) -> None:
    """Reported before anything was sent, with a text that says what is wrong; the stream goes on."""
    with workers["starts_response"].open() as stream:
        response = stream.request("GET", path)
        assert response.error is not None
        assert f"{response.error[0]}: {response.error[1]}".startswith(error)
        # The traceback shows the application's part; a report that consists of our frames alone has none.
        assert "passenger_trio_loader" not in response.error[2].partition("app.py")[0]
        assert stream.request("GET", "/ok").body == b"body"


def test_start_response_raises_into_the_application(workers: dict[str, Loader]) -> None:
    """Errors in headers are raised when it is called, so that the application can handle them."""
    assert workers["starts_response"].request("GET", "/recovered").body == b"recovered"


def test_start_response_may_be_called_by_a_generator(workers: dict[str, Loader]) -> None:
    """The head goes out with the first chunk that is not empty."""
    response = workers["starts_response"].request("GET", "/in-generator")
    assert (kinds(response), response.chunks) == ("RDE", [b"late"])


def test_exc_info_replaces_a_head_that_was_not_sent(workers: dict[str, Loader]) -> None:
    """The headers of the first call count no more, nor does its Content-Length."""
    response = workers["starts_response"].request("GET", "/replaced")
    assert (response.status, response.body, response.complete) == (500, b"replaced", True)
    assert response.header("X-First") is None
    assert response.header("Content-Length") == "8"


def test_exc_info_is_raised_again_when_the_head_was_sent() -> None:
    with worker_of("starts_response") as worker:
        response = worker.request("GET", "/too-late")
        assert (response.status, response.body, response.complete) == (200, b"sent", False)
        assert worker.output.wait_for("LookupError: noticed too late\n")
        assert "not reached" not in worker.output.text()


def test_an_exception_behind_a_complete_response_is_only_logged() -> None:
    with worker_of("starts_response") as worker, worker.open() as stream:
        response = stream.request("GET", "/again-after-the-end")
        assert (response.body, response.complete) == (b"body", True)
        assert worker.output.wait_for("AssertionError")
        assert stream.request("GET", "/ok").body == b"body"


# write()


def test_write_sends_at_once() -> None:
    with FakeSupervisor() as supervisor:
        worker = supervisor.start(command(), APPS / "write_callable", "app.py")
        gate = supervisor.directory / "gate"
        with worker.open() as stream:
            stream.begin("GET", f"/gated?{gate}")
            assert [stream.next_frame() for _ in range(2)][1] == ("D", b"one")
            gate.touch()
            assert [stream.next_frame() for _ in range(2)] == [("D", b"two"), ("E", b"")]


@pytest.mark.parametrize(
    ("path", "frames", "chunks"),
    [
        ("/only", "RDDE", [b"one", b"two"]),
        ("/then-iterable", "RDDDE", [b"one", b"two", b"three"]),
        ("/with-length", "RDDE", [b"one", b"two"]),
        ("/too-much", "RDDE", [b"one", b"t"]),
    ],
)
def test_write_and_the_iterable(workers: dict[str, Loader], path: str, frames: str, chunks: list[bytes]) -> None:
    """What is written goes in front of what is iterated, and counts for the Content-Length."""
    with workers["write_callable"].open() as stream:
        response = stream.request("GET", path)
        assert (kinds(response), response.chunks) == (frames, chunks)
        assert stream.request("HEAD", path).frames[-1] == ("E", b"")


def test_write_takes_bytes_only(workers: dict[str, Loader]) -> None:
    response = workers["write_callable"].request("GET", "/text")
    assert response.error is not None
    assert response.error[:2] == ("TypeError", "write() takes bytes, not str")


def test_an_exception_after_write_leaves_the_response_incomplete(workers: dict[str, Loader]) -> None:
    response = workers["write_callable"].request("GET", "/raises")
    assert (kinds(response), response.complete) == ("RD", False)


# The iterable


@pytest.mark.parametrize(
    ("path", "chunks", "length"),
    [
        ("/list", [b"one"], "3"),
        ("/tuple", [b"one"], "3"),
        ("/list-of-three", [b"onethree"], "8"),
        ("/empty-list", [], "0"),
        ("/list-of-empty", [], "0"),
        ("/list-of-nothing", [], "0"),
        ("/generator", [b"one", b"three"], None),
        ("/empty-generator", [], "0"),
        ("/generator-of-empty", [], "0"),
        ("/generator-of-one", [b"one"], None),
        ("/iterator", [b"one", b"two"], None),
        ("/map", [b"one", b"two"], None),
        ("/sized-one", [b"one"], "3"),
        ("/sized-two", [b"one", b"two"], None),
        ("/sized-none", [], "0"),
        ("/indexed", [b"old", b"protocol"], None),
        ("/class", [b"an instance"], None),
        ("/subclass", [b"one"], "3"),
    ],
)
def test_what_an_iterable_may_be(
    workers: dict[str, Loader], path: str, chunks: list[bytes], length: str | None
) -> None:
    """Chunks go out as they come, empty ones not at all; the length is told where all of the body is known at the head."""
    with workers["iterables"].open() as stream:
        response = stream.request("GET", path)
        assert (response.chunks, response.header("Content-Length"), response.complete) == (chunks, length, True)
        head = stream.request("HEAD", path)
        assert kinds(head) == "RE"
        # A HEAD request may be answered with less than its GET would be: nothing is made up of that.
        assert head.header("Content-Length") == (length if length != "0" else None)


@pytest.mark.parametrize("path", ["/large-list", "/large-chunk", "/large-generator"])
def test_large_bodies(workers: dict[str, Loader], path: str) -> None:
    with workers["iterables"].open() as stream:
        response = stream.request("GET", path)
        wanted = {
            "/large-list": b"x" * 1_000_000,
            "/large-chunk": b"x" * 20_000_000,
            "/large-generator": b"x" * 17_000_000 + b"y" * 100_000 + b"z",
        }
        assert response.complete
        assert response.body == wanted[path]
        assert stream.request("GET", "/list").body == b"one"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/none", "the application returned None instead of an iterable"),
        ("/str", "the application returned str instead of an iterable of bytes"),
        ("/bytes", "the application returned bytes instead of an iterable of bytes"),
        ("/number", "'int' object is not iterable"),
        ("/list-of-str", "the application yielded str instead of bytes"),
        ("/list-of-both", "the application yielded str instead of bytes"),
        ("/list-of-bytearray", "the application yielded bytearray instead of bytes"),
        ("/list-of-memoryview", "the application yielded memoryview instead of bytes"),
        ("/list-of-none", "the application yielded NoneType instead of bytes"),
        ("/generator-of-str", "the application yielded str instead of bytes"),
        ("/generator-of-arrays", "the application yielded array instead of bytes"),
    ],
)
def test_what_an_iterable_may_not_be(workers: dict[str, Loader], path: str, error: str) -> None:
    with workers["iterables"].open() as stream:
        response = stream.request("GET", path)
        assert response.error is not None
        assert response.error[:2] == ("TypeError", error)
        assert stream.request("GET", "/list").body == b"one"


def test_a_wrong_chunk_behind_the_head_leaves_the_response_incomplete(workers: dict[str, Loader]) -> None:
    response = workers["iterables"].request("GET", "/generator-of-both")
    assert (response.chunks, response.complete) == ([b"bytes"], False)


@pytest.mark.parametrize("path", ["/list-of-three", "/generator", "/sized-two"])
@pytest.mark.parametrize("length", [0, 1, 3, 5, 8, 9, 100])
def test_content_length_is_kept(workers: dict[str, Loader], path: str, length: int) -> None:
    """More is dropped, less is shown as incomplete."""
    whole = b"onetwo" if path == "/sized-two" else b"onethree"
    worker = workers["iterables"]
    response = worker.request("GET", f"{path}?{length}")
    assert response.body == whole[:length]
    assert response.header("Content-Length") == str(length)
    assert response.complete == (length <= len(whole))
    assert kinds(worker.request("HEAD", f"{path}?{length}")) == "RE"


def test_a_response_is_one_write_when_its_length_is_known(workers: dict[str, Loader]) -> None:
    """A generator with a Content-Length (as frameworks do): the end goes out with the chunk that completes it."""
    with workers["iterables"].open() as stream:
        for _ in range(20):
            stream.begin("GET", "/generator-of-one?3")
            data = stream.socket.recv(65536)
            assert data.endswith(frame("D", b"one") + frame("E"))


# close()


@pytest.mark.parametrize(
    "path",
    [
        "/normal",
        "/empty",
        "/sized",
        "/complete-early",
        "/too-short",
        "/not-modified",
        "/raises-at-once",
        "/raises-later",
        "/exits",
        "/interrupted",
        "/not-bytes",
        "/head-missing",
        "/raises-in-close",
        "/exits-in-close",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_close_is_called_once(workers: dict[str, Loader], path: str, method: str) -> None:
    worker = workers["closes"]
    with worker.open() as stream:
        response = stream.request(method, path)
        # The stream ends, or goes on, behind the close.
        if response.complete:
            assert json.loads(stream.request("GET", "/count").body)[path] == 1
        else:
            assert stream.ended()
            assert json.loads(worker.request("GET", "/count").body)[path] == 1


@pytest.mark.parametrize("how", ["abort", "half", "close"])
def test_close_is_called_once_when_the_client_is_gone(workers: dict[str, Loader], how: str) -> None:
    worker = workers["closes"]
    with worker.open() as stream:
        stream.begin("GET", "/endless")
        assert stream.next_frame() is not None
        if how == "abort":
            stream.send(frame("A"))
        elif how == "half":
            stream.socket.shutdown(socket.SHUT_WR)
        else:
            stream.close()
        while how != "close" and stream.next_frame() is not None:
            pass
    # A worker of one thread answers when it is done with the former session.
    assert json.loads(worker.request("GET", "/count").body)["/endless"] == 1


def test_a_raising_close_does_not_disturb_the_response() -> None:
    with worker_of("closes") as worker, worker.open() as stream:
        response = stream.request("GET", "/raises-in-close")
        assert (response.body, response.complete) == (b"one", True)
        assert worker.output.wait_for("raised by close()")
        assert stream.request("GET", "/count").status == 200


# wsgi.file_wrapper


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3_000_000))
    return path


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 1_048_576, 3_000_000])
@pytest.mark.parametrize("path", ["/plain", "/raw"])
def test_files_are_sent_whole(workers: dict[str, Loader], file: Path, path: str, size: int) -> None:
    os.truncate(file, size)
    with workers["file_wrapper"].open() as stream:
        response = stream.request("GET", f"{path}?{file}")
        assert (response.body, response.complete) == (file.read_bytes(), True)
        assert response.header("Content-Length") == str(size)
        head = stream.request("HEAD", f"{path}?{file}")
        assert (kinds(head), head.header("Content-Length")) == ("RE", str(size))


def test_files_are_sent_from_their_position(workers: dict[str, Loader], file: Path) -> None:
    """From the position of the object, not that of the descriptor behind its buffer; no more than the Content-Length."""
    data = file.read_bytes()
    with workers["file_wrapper"].open() as stream:
        assert stream.request("GET", f"/offset?{file}").body == data[10:]
        assert stream.request("GET", f"/range?{file}").body == data[100:150]
        assert stream.request("GET", f"/at-end?{file}").body == b""


def test_a_file_shorter_than_its_content_length_is_incomplete(workers: dict[str, Loader], file: Path) -> None:
    response = workers["file_wrapper"].request("GET", f"/length-too-large?{file}")
    assert (len(response.body), response.complete) == (3_000_000, False)


def test_a_file_that_shrinks_is_incomplete(file: Path) -> None:
    os.truncate(file, 40_000_000)
    with worker_of("file_wrapper") as worker, worker.open() as stream:
        stream.begin("GET", f"/plain?{file}")
        assert stream.next_frame() is not None
        # The worker cannot be far: the stream holds less than a megabyte.
        os.truncate(file, 20_000_000)
        while stream.next_frame() is not None:
            pass
        assert worker.output.wait_for("the file became shorter while it was sent")
        assert worker.request("GET", "/closed").status == 200


@pytest.mark.parametrize("path", ["/plain", "/raw"])
@pytest.mark.parametrize("name", ["/proc/version", "/sys/devices/system/cpu/online"])
def test_files_that_the_kernel_makes_up_are_read(workers: dict[str, Loader], path: str, name: str) -> None:
    """Their size is 0 or that of a page, whatever they contain."""
    needs(os.path.exists(name), name)
    with workers["file_wrapper"].open() as stream:
        response = stream.request("GET", f"{path}?{name}")
        assert (response.body, response.complete) == (Path(name).read_bytes(), True)
        assert stream.request("HEAD", f"{path}?{name}").header("Content-Length") is None


def test_a_file_that_cannot_be_read_is_the_applications_error(file: Path) -> None:
    """Sending it fails then, but not because the client is gone."""
    with worker_of("file_wrapper") as worker, worker.open() as stream:
        response = stream.request("GET", f"/write-only?{file}")
        assert (response.body, response.complete) == (b"", False)
        assert worker.output.wait_for("Bad file descriptor")
        assert worker.request("GET", "/closed").status == 200


@pytest.mark.parametrize("path", ["/gzip", "/buffered-gzip"])
def test_objects_that_only_look_like_files_are_read(workers: dict[str, Loader], tmp_path: Path, path: str) -> None:
    """A GzipFile has a descriptor, of something else."""
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(b"unpacked" * 100_000))
    response = workers["file_wrapper"].request("GET", f"{path}?{packed}")
    assert (response.body, response.complete) == (b"unpacked" * 100_000, True)


def test_other_files_are_read(workers: dict[str, Loader], file: Path) -> None:
    with workers["file_wrapper"].open() as stream:
        assert stream.request("GET", "/memory").body == b"in memory " * 20_000
        assert stream.request("GET", "/temporary").body == b"just written"
        assert stream.request("GET", "/pipe").body == b"from a pipe"
        os.truncate(file, 1000)
        assert stream.request("GET", f"/wrapped?{file}").body == file.read_bytes().upper()
        assert stream.request("GET", f"/after-write?{file}").body == b"first " + file.read_bytes()
        error = stream.request("GET", "/text").error
        assert error is not None
        assert error[:2] == ("TypeError", "the file for wsgi.file_wrapper gave str, not bytes")


def test_files_are_closed(workers: dict[str, Loader], file: Path) -> None:
    worker = workers["file_wrapper"]
    before = int(worker.request("GET", "/closed").body)
    with worker.open() as stream:
        stream.request("GET", f"/watched?{file}")
        stream.request("HEAD", f"/watched?{file}")
        assert int(stream.request("GET", "/closed").body) == before + 2


def test_an_endless_file_ends_with_its_client(workers: dict[str, Loader]) -> None:
    worker = workers["file_wrapper"]
    with worker.open() as stream:
        stream.begin("GET", "/endless")
        assert stream.next_frame() is not None
        stream.send(frame("A"))
        while stream.next_frame() is not None:
            pass
    assert worker.request("GET", "/closed").status == 200


# Errors


@pytest.mark.parametrize(
    ("path", "name"),
    [("/sys-exit", "SystemExit"), ("/keyboard-interrupt", "KeyboardInterrupt"), ("/generator-exit", "GeneratorExit")],
)
def test_the_worker_survives(workers: dict[str, Loader], path: str, name: str) -> None:
    """``sys.exit()`` in a request ends the request."""
    worker = workers["exits"]
    with worker.open() as stream:
        response = stream.request("GET", path)
        assert response.error is not None
        assert response.error[0] == name
        assert f'Traceback (most recent call last):\n  File "{APPS / "exits" / "app.py"}"' in response.error[2]
        assert worker.output.wait_for(name)
        assert stream.request("GET", "/").body == b"alive"


@pytest.mark.parametrize(("path", "status"), [("/os-exit", 7), ("/crash", -11)])
def test_what_ends_the_process_ends_the_stream(path: str, status: int) -> None:
    with worker_of("exits") as worker:
        response = worker.request("GET", path)
        assert not response.frames
        assert worker.exit_status() == status


# Threads


def test_a_worker_of_one_thread_serves_in_the_main_thread(workers: dict[str, Loader]) -> None:
    """Some libraries want it (signals, asyncio)."""
    assert workers["threads"].request("GET", "/main").body == b"True"


def test_threads_serve_at_the_same_time() -> None:
    count = 8
    with worker_of("threads", threads=count) as worker:
        answers: list[bytes] = []

        def client() -> None:
            with worker.open() as stream:
                for _ in range(20):
                    answers.append(stream.request("GET", f"/meet?{count}").body)

        clients = [threading.Thread(target=client) for _ in range(count)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert len(set(answers)) == count
        assert len(answers) == 20 * count


# wsgiref.validate

CONFORMING = {
    "hello": ["/"],
    "environ_dump": ["/some/path?query"],
    "reads_input": ["/?read:5,readline:3,readlines:4,iter", "/?iter,read:1"],
    "starts_response": ["/ok", "/replaced", "/only-with-exc-info"],
    "write_callable": ["/only", "/with-length"],
    "iterables": ["/list", "/list-of-three", "/generator", "/empty-list", "/list-of-empty", "/iterator", "/sized-two"],
    "file_wrapper": ["/memory", "/temporary"],
    "closes": ["/normal", "/empty", "/complete-early", "/count"],
    "exits": ["/"],
    "threads": ["/main"],
    "conformance": ["/hello", "/echo", "/deaf", "/chunks", "/large", "/print?x", "/process"],
}


@pytest.mark.parametrize("app", CONFORMING)
def test_the_validator_is_silent(app: str) -> None:
    """``wsgiref.validate`` around every sample application, as a witness of what the loader gives and takes."""
    with worker_of("validated", env={"VALIDATED": str(APPS / app)}) as worker, worker.open() as stream:
        for path in CONFORMING[app]:
            for method, body in (("GET", b""), ("POST", b"one\ntwo\nthree" * 100), ("HEAD", b"")):
                fields = {"CONTENT_TYPE": "text/plain"} if body else {}
                response = stream.request(method, path, body, fields)
                assert response.complete, (path, method, worker.output.text())
                assert response.error is None, (path, method, response.error)
        worker.shut_down()
        worker.wait_gone()
        assert "validate" not in worker.output.text()


def test_wsgi_errors_is_the_standard_error() -> None:
    """What went wrong is there once."""
    with worker_of("starts_response") as worker:
        worker.request("GET", "/never")
        assert worker.output.wait_for("AssertionError: the application did not call start_response")
        assert worker.output.text().count("AssertionError") == 1
