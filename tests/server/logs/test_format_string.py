"""OB5: format strings of the access log: each directive, and whatever a client sends."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.errors import OptionError
from passenger_trio.server.logs.access_record import AccessRecord
from passenger_trio.server.logs.format_string import DIRECTIVES_OF_OURS, compile_format

RECORD = AccessRecord(
    "203.0.113.7",
    1763883781.25,
    b"GET",
    b"/a/b?x=1",
    b"1.1",
    200,
    5120,
    b"http://localhost/",
    b"curl/8.5",
    0.01234,
    0.001,
    4711,
    "shop",
    b"3f2a-1",
    app_time=0.011,
    proxy_time=0.25,
    traceparent=b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    fields=[(b"Host", b"example.com"), (b"X-Tag", b"a"), (b"x-tag", b"b")],
)
NONE = AccessRecord("", 1763883781.25, b"", b"", b"?", 400, 0, b"", b"", 0.0, 0.0, 0, "", b"", refusal="bad_request")


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("%h %l %u", "203.0.113.7 - -"),
        ("%a|%m|%U|%q|%H|%s|%>s|%b|%B", "203.0.113.7|GET|/a/b|?x=1|HTTP/1.1|200|200|5120|5120"),
        ('"%r"', '"GET /a/b?x=1 HTTP/1.1"'),
        ("%D %T %{s}T %{ms}T %{us}T", "12340 0 0 12 12340"),
        ("%{Host}i %{X-Tag}i %{Cookie}i", "example.com a, b -"),
        ("100 %% of %s", "100 % of 200"),
        (
            '%(h)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
            '203.0.113.7 "GET /a/b?x=1 HTTP/1.1" 200 5120 "http://localhost/" "curl/8.5"',
        ),
        ("%(q)s %(M)s %(L)s %(p)s %({host}i)s", "x=1 12 0.012340 <4711> example.com"),
        ("%{total}x %{queue}x %{app}x", "0.012340 0.001000 0.011000"),
        (
            "%{start}x %{proxy}x %{trace}x %{span}x",
            "1763883781.000000 0.250000 0af7651916cd43dd8448eb211c80319c b7ad6b7169203331",
        ),
        ("%{pid}x %{group}x %{id}x %{retries}x %{spilled}x %{received}x %{refused}x", "4711 shop 3f2a-1 0 0 0 -"),
    ],
)
def test_OB5_directives(format: str, line: str) -> None:
    assert compile_format(format)(RECORD).decode() == line + "\n"


def test_OB5_time_is_as_apache_writes_it() -> None:
    for format in ("%t", "%(t)s"):
        assert re.fullmatch(rb"\[\d\d/[A-Z][a-z][a-z]/2025:\d\d:43:01 [+-]\d{4}\]\n", compile_format(format)(RECORD))


def test_OB5_what_is_not_known_is_a_dash() -> None:
    line = compile_format('%h "%r" %>s %b %{Host}i %{group}x %{id}x %{trace}x %{span}x %{refused}x')(NONE).decode()
    assert line == '- "-" 400 - - - - - - bad_request\n'


@pytest.mark.parametrize(
    "format",
    [
        "",
        "plain",
        "%",
        "%s %",
        "%y",
        "%(y)s",
        "%(h)",
        "%{nothing}x",
        "%{m}T",
        "%{Set-Cookie}o",
        "%({Set-Cookie}o)s",
        "%s\n%b",
        "%{x}s",
    ],
)
def test_OB5_what_is_no_format_is_an_error_of_the_option(format: str) -> None:
    with pytest.raises(OptionError) as caught:
        compile_format(format)
    assert "--access-log-format" in str(caught.value)
    assert "combined, json" in str(caught.value)


BYTES = st.binary(max_size=40)


@given(target=BYTES, agent=BYTES, field=BYTES, method=BYTES)
def test_OB5_R37_an_entry_is_one_line_that_can_be_split(
    target: bytes, agent: bytes, field: bytes, method: bytes
) -> None:
    record = RECORD._replace(target=target, agent=agent, method=method, fields=[(b"x", field)])
    line = compile_format('"%r" "%(a)s" "%{X}i" "%U%q" end')(record).decode()
    assert line.endswith('" end\n')
    assert line[:-1].isprintable()
    assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) == 8


def test_OB5_the_documentation_has_each_directive_of_ours() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "monitoring.md").read_text()
    named = dict(re.findall(r"^\| `%\{([a-z]+)\}x` \| (.+) \|$", page, re.M))
    assert named == DIRECTIVES_OF_OURS
