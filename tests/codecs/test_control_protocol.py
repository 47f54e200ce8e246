"""The control protocol: every message is read with its types, nothing else is, and it does not matter how the bytes are cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from control_lines import ALL, CHILD_EXITED, ERROR, EVENT, FORK_FAILED, FORKED, HELLO, READY, STEP, line, read, read_one
from hypothesis import given, settings
from hypothesis import strategies as st
from session_model import cut

from passenger_trio.codecs.control_protocol import (
    MAX_LINE,
    AppEvent,
    Backtrace,
    ChildExited,
    Failed,
    Forked,
    ForkFailed,
    Hello,
    LineReader,
    Ready,
    SocketSpec,
    StepReport,
    encode_fork,
    encode_options,
    encode_serve,
    encode_shutdown,
)
from passenger_trio.core.fork_safety import Hazard
from passenger_trio.core.model import ErrorCategory
from passenger_trio.errors import SpawnServerError

INT32 = 2**31 - 1

# --- what is read -----------------------------------------------------------------------------------------------------


def test_every_message_is_read() -> None:
    found, refused = read([b"".join(map(line, ALL))])
    assert not refused
    assert found == [
        Hello("abc", 1, "worker", "python", "3.12.1", 17),
        StepReport("listen", "performed", 0.5),
        Ready(
            (SocketSpec("unix:/tmp/a", "session", 4),),
            "app:application",
            (Hazard("thread", "the thread APScheduler"),),
        ),
        Failed(ErrorCategory.APPLICATION, "It raised", "a problem", "a solution", "Traceback ...", "details"),
        Forked("abc", 18),
        ForkFailed("abc", "EAGAIN"),
        ChildExited(18, 256),
        AppEvent("moon", {"count": 2}),
        Backtrace(7, "main thread"),
    ]


def test_members_that_may_be_missing_may_be_missing() -> None:
    assert read_one({"type": "ready"}) == Ready((), "")
    assert read_one({"type": "step", "name": "a", "state": "in_progress"}) == StepReport("a", "in_progress", None)
    assert read_one({"type": "error", "category": "loader", "summary": "s"}) == Failed(
        ErrorCategory.LOADER, "s", "", "", "", ""
    )
    assert read_one({"type": "event", "name": "n"}) == AppEvent("n", {})


def test_members_that_nobody_knows_are_ignored() -> None:
    for message in ALL:
        assert read_one({**message, "x": [1], "zzz": None}) == read_one(message)


def test_a_category_that_nobody_knows_is_the_loaders() -> None:
    assert read_one({**ERROR, "category": "moon"}) == read_one({**ERROR, "category": "loader"})


REQUIRED = [
    *((HELLO, name) for name in ("token", "contract", "role", "language", "version", "pid")),
    *((STEP, name) for name in ("name", "state")),
    *((ERROR, name) for name in ("category", "summary")),
    *((message, name) for message in (FORKED, FORK_FAILED) for name in message if name != "type"),
    *((CHILD_EXITED, name) for name in ("pid", "status")),
    (EVENT, "name"),
]


@pytest.mark.parametrize(
    ("message", "name"), REQUIRED, ids=lambda value: value if isinstance(value, str) else value["type"]
)
def test_members_that_must_be_there_must_be_there(message: dict[str, Any], name: str) -> None:
    with pytest.raises(SpawnServerError, match=name):
        read_one({key: value for key, value in message.items() if key != name})


WRONG: dict[type, list[Any]] = {
    str: [None, 0, 1.5, True, [], ["a"], {}, {"a": "b"}],
    int: [None, "1", 1.5, 1.0, True, False, [], {}, -1, INT32 + 1, 10**30],
    float: ["1", True, [], {}, -0.1, -1, 1e10, 10**30],
    dict: [None, 0, "a", True, []],
    list: [None, 0, "a", True, {}, ["a"], [None], [[]], [{}], [1]],
}


@pytest.mark.parametrize(
    ("message", "name", "wrong"),
    [
        (message, name, wrong)
        for message in ALL
        for name, value in message.items()
        if name != "type"
        for wrong in WRONG[type(value)]
    ],
)
def test_every_wrong_type_and_size_is_refused(message: dict[str, Any], name: str, wrong: Any) -> None:
    if (message["type"], name, wrong) == ("step", "duration", None):
        return
    with pytest.raises(SpawnServerError):
        read_one({**message, name: wrong})


def test_a_socket_may_say_that_it_takes_websockets() -> None:
    assert [spec.websocket for spec in read_one(READY).sockets] == [False]
    for said in (True, False):
        told = read_one({**READY, "sockets": [{**READY["sockets"][0], "websocket": said}]})
        assert [spec.websocket for spec in told.sockets] == [said]
    for wrong in (1, "true", None, []):
        with pytest.raises(SpawnServerError):
            read_one({**READY, "sockets": [{**READY["sockets"][0], "websocket": wrong}]})


@pytest.mark.parametrize("name", ["kind", "what"])
def test_every_member_of_a_hazard_has_its_type(name: str) -> None:
    """OP15: what a preloader found is short, and text. A kind that nobody knows is kept: loaders of other languages have their own."""
    for wrong in WRONG[str]:
        with pytest.raises(SpawnServerError):
            read_one({**READY, "hazards": [{**READY["hazards"][0], name: wrong}]})
    with pytest.raises(SpawnServerError):
        read_one({**READY, "hazards": READY["hazards"] * 65})
    for kind in ("", "x" * 65):
        with pytest.raises(SpawnServerError):
            read_one({**READY, "hazards": [{"kind": kind, "what": "x"}]})
    assert read_one({**READY, "hazards": [{"kind": "moon", "what": "x" * 501}]}).hazards == (Hazard("moon", "x" * 500),)


@pytest.mark.parametrize("name", ["address", "protocol", "concurrency"])
def test_every_member_of_a_socket_has_its_type(name: str) -> None:
    for wrong in WRONG[type(READY["sockets"][0][name])]:
        with pytest.raises(SpawnServerError):
            read_one({**READY, "sockets": [{**READY["sockets"][0], name: wrong}]})
    with pytest.raises(SpawnServerError):
        read_one({**READY, "sockets": READY["sockets"] * 17})


@pytest.mark.parametrize(
    "change",
    [
        {**HELLO, "role": "boss"},
        {**HELLO, "contract": 2},
        {**HELLO, "contract": 0},
        {**HELLO, "pid": 0},
        {**STEP, "state": "done"},
        {**STEP, "name": ""},
        {**STEP, "name": "x" * 65},
        {**FORKED, "pid": 0},
        {**HELLO, "type": "Hello"},
        {**HELLO, "type": ""},
        {**HELLO, "type": None},
        {**HELLO, "type": ["hello"]},
        {**HELLO, "type": {}},
        {"type": "shutdown"},
        {"type": "options"},
        {"type": "fork", "token": "a"},
        {},
    ],
)
def test_values_that_the_contract_does_not_have_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SpawnServerError):
        read_one(change)


# --- what is no message -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r",
        b"null",
        b"1",
        b'"hello"',
        b"[]",
        b"[{}]",
        b"{",
        b"{]",
        b"\x00",
        b"\xff",
        b'{"type": "event", "name": "\xff"}',
        b'{"type": "event", "name": "\xed\xa0\x80"}',  # half a surrogate pair, as bytes: not UTF-8
        b'\xef\xbb\xbf{"type": "event", "name": "a"}',  # a byte order mark
        '{"type": "event", "name": "a"}'.encode("utf-16-le"),
        '{"type": "event", "name": "a"}'.encode("utf-16"),
        '{"type": "event", "name": "a"}'.encode("utf-32-be"),
        b'{"type": "event", "name": "a"} {}',
        b"{'type': 'event', 'name': 'a'}",
        b'{"type": "event", "name": "a\x01"}',
        b'{"type": "step", "name": "a", "state": "performed", "duration": NaN}',
        b'{"type": "step", "name": "a", "state": "performed", "duration": Infinity}',
        b'{"type": "step", "name": "a", "state": "performed", "duration": -Infinity}',
        b'{"type": "step", "name": "a", "state": "performed", "duration": 1e999}',
        b'{"type": "event", "name": "a", "fields": {"a": NaN}}',
        b'{"type": "forked", "token": "a", "pid": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_not_utf_8_json_is_refused(raw: bytes) -> None:
    reader = LineReader()
    reader.feed(raw + b"\n")
    with pytest.raises(SpawnServerError):
        reader.next_message()


@pytest.mark.parametrize("depth", [20, 100, 500, 900, 950, 990, 2000, 20000])
@pytest.mark.parametrize("open_close", [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_and_overflows_nobody(depth: int, open_close: tuple[str, str]) -> None:
    """Whoever shows the fields of an event walks them by recursion: what could be read could not be logged."""
    opening, closing = open_close
    raw = '{"type":"event","name":"a","fields":{"a":' + opening * depth + "1" + closing * depth + "}}"
    assert len(raw) <= MAX_LINE * 2
    reader = LineReader()
    reader.feed(raw.encode() + b"\n")
    with pytest.raises(SpawnServerError):
        reader.next_message()


def test_shallow_nesting_comes_through() -> None:
    fields = {"a": [{"b": [1, {"c": None}]}], "d": "e"}
    assert read_one({"type": "event", "name": "n", "fields": fields}) == AppEvent("n", fields)


def test_half_a_surrogate_pair_becomes_something_that_can_be_written() -> None:
    found = read([b'{"type":"error","category":"application","summary":"a\\ud800b","traceback":"\\udfff"}\n'])[0][0]
    assert isinstance(found, Failed)
    assert found.summary == "a?b"
    assert (found.summary + found.traceback).encode()
    assert str(read([b'{"type":"event","name":"\\udc00","fields":{"\\ud800":"\\ud800"}}\n'])[0][0]).encode()


def test_all_of_unicode_comes_through() -> None:
    text = "\0\x1b\u2028é漢\U0001f600"
    found = read_one({**ERROR, "summary": text})
    assert isinstance(found, Failed)
    assert found.summary == text
    raw = json.dumps({**ERROR, "summary": "é漢\U0001f600"}, ensure_ascii=False).encode()
    assert read([raw + b"\n"]) == ([read_one({**ERROR, "summary": "é漢\U0001f600"})], "")


# --- lines ------------------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    """A message whose line is ``size`` bytes long, newline included."""
    empty = line({**FORK_FAILED, "problem": ""})
    return line({**FORK_FAILED, "problem": "x" * (size - len(empty))})


def test_the_longest_line_is_read_and_one_byte_more_is_refused() -> None:
    assert len(padded(MAX_LINE)) == MAX_LINE
    for pieces in ([padded(MAX_LINE)], cut(padded(MAX_LINE), range(0, MAX_LINE, 1000))):
        found, refused = read(pieces)
        assert len(found) == 1
        assert not refused
    for pieces in ([padded(MAX_LINE + 1)], cut(padded(MAX_LINE + 1), range(0, MAX_LINE, 1000)), [b"x" * MAX_LINE]):
        found, refused = read(pieces)
        assert not found
        assert "longer than 65536 bytes" in refused


def test_a_line_that_is_too_long_is_refused_before_it_ends() -> None:
    """The reader's memory is bounded by a line and what was fed at once."""
    reader = LineReader()
    reader.feed(b"x" * (MAX_LINE - 1))
    assert reader.next_message() is None
    reader.feed(b"x")
    for _ in range(2):
        with pytest.raises(SpawnServerError, match="longer"):
            reader.next_message()


def test_an_empty_line_is_a_line() -> None:
    """HO5: at the beginning of what is read, behind a message, and before what is too long."""
    for start in (b"", line(STEP)):
        reader = LineReader()
        reader.feed(start[:-1])
        assert reader.next_message() is None
        reader.feed(start[-1:])
        if start:
            assert isinstance(reader.next_message(), StepReport)
        reader.feed(b"\n" + b"x" * MAX_LINE)
        with pytest.raises(SpawnServerError, match="not JSON"):
            reader.next_message()
        with pytest.raises(SpawnServerError, match="longer"):
            reader.next_message()


def test_messages_before_a_bad_one_are_read() -> None:
    found, refused = read([line(STEP) + line(EVENT) + b"garbage\n"])
    assert [type(message) for message in found] == [StepReport, AppEvent]
    assert refused == "a control message is not JSON"


messages = st.one_of(
    st.sampled_from(ALL).map(line),
    st.builds(
        lambda message, name, value: line({**message, name: value}),
        st.sampled_from(ALL),
        st.sampled_from(["type", "token", "pid", "state", "duration", "sockets", "fields", "summary", "x"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({})),
    ),
    st.binary(max_size=30),
    st.just(b"\n"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(messages, max_size=5).map(b"".join), st.lists(st.integers(0, 400), max_size=6))
def test_whole_byte_by_byte_and_any_cut_give_the_same_messages(data: bytes, places: list[int]) -> None:
    right = read([data])
    assert read([data[at : at + 1] for at in range(len(data))]) == right
    assert read(cut(data, places)) == right


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
        max_leaves=5,
    )
)
def test_any_json_at_all_is_a_message_or_is_refused(value: Any) -> None:
    read([json.dumps(value).encode() + b"\n"])
    if isinstance(value, dict):
        for message in ALL:
            read([line({**message, **value})])
            read([line({**value, "type": message["type"]})])


# --- what is written --------------------------------------------------------------------------------------------------


def test_what_is_written_is_one_line_of_ascii() -> None:
    assert encode_shutdown() == b'{"type":"shutdown"}\n'
    assert encode_shutdown(1.5) == b'{"type":"shutdown","within":1.5}\n'
    assert encode_serve() == b'{"type":"serve"}\n'
    assert json.loads(encode_fork("a\nb")) == {"type": "fork", "token": "a\nb"}
    options = {"app_root": "/srv/\u00e9\udcff\n", "threads": 3, "entry_is_factory": False}
    raw = encode_options(options)
    assert raw.isascii()
    assert raw.count(b"\n") == 1
    assert json.loads(raw) == {"type": "options", **options}


def test_no_line_is_written_that_is_too_long() -> None:
    frame = len(encode_options({"a": ""}))
    assert len(encode_options({"a": "x" * (MAX_LINE - frame)})) == MAX_LINE
    with pytest.raises(ValueError, match="longer than 65536"):
        encode_options({"a": "x" * (MAX_LINE - frame + 1)})
