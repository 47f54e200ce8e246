"""What a trusted proxy says of the client (ED1, fault 25, R11), and what it cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passenger_trio.codecs.forwarded_client import MAX_HOPS, Origin, read_origin

TRUSTED = ("10.", "127.", "fd00:")
PEER = b"REQUEST_SCHEME\0http\0SERVER_NAME\x00127.0.0.1\0SERVER_PORT\x003000\0REMOTE_ADDR\x0010.0.0.9\0REMOTE_PORT\x0040000\0"


def origin(*lines: bytes) -> Origin | None:
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return read_origin(fields, lambda address: address.startswith(TRUSTED))


def client(*lines: bytes) -> tuple[str, int]:
    found = origin(*lines)
    assert found is not None
    return found.client, found.client_port


def test_ED1_nothing_is_said() -> None:
    assert origin(b"X-Forwarded: a", b"Accept: b", b"X-Forwarded-Prefix: /c", b"X_Forwarded_For: 1.2.3.4") is None
    assert origin(b"X-Forwarded-For:") == Origin()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"192.0.2.1", ("192.0.2.1", 0)),
        (b"192.0.2.1:4711", ("192.0.2.1", 4711)),
        (b"2001:db8::1", ("2001:db8::1", 0)),
        (b"[2001:DB8::1]", ("2001:db8::1", 0)),
        (b"[2001:db8::1]:4711", ("2001:db8::1", 4711)),
        (b"::ffff:192.0.2.1", ("192.0.2.1", 0)),
        (b"spoofed, 192.0.2.66, 192.0.2.1", ("192.0.2.1", 0)),
        (b"192.0.2.1, 10.0.0.1, 10.0.0.2", ("192.0.2.1", 0)),
        (b"192.0.2.66, 192.0.2.1,10.0.0.1", ("192.0.2.1", 0)),
        (b"10.0.0.3, 10.0.0.1", ("10.0.0.3", 0)),
        (b" ,192.0.2.1 , ,", ("192.0.2.1", 0)),
        (b"192.0.2.1, unknown, 10.0.0.1", ("10.0.0.1", 0)),
        (b"192.0.2.1, unknown", ("", 0)),
        (b"192.0.2.1, 1.2.3", ("", 0)),
        (b"192.0.2.1, 1.2.3.4:99999", ("", 0)),
        (b"192.0.2.1, 1.2.3.4:x", ("", 0)),
        (b"192.0.2.1, fe80::1%eth0", ("", 0)),
        (b"192.0.2.1, \xff", ("", 0)),
        (b"192.0.2.1, 1.2.3.4 5.6.7.8", ("", 0)),
    ],
)
def test_ED1_the_client_is_the_rightmost_that_is_not_trusted(value: bytes, expected: tuple[str, int]) -> None:
    assert client(b"X-Forwarded-For: " + value) == expected


@pytest.mark.parametrize("filler", [b", ", b";\t", b";  ", b" ,\t"])
def test_ED1_a_long_forwarded_of_nothing_but_separators(filler: bytes) -> None:
    """Each separator by itself took 0.4 s for 64 KiB."""
    found = origin(
        *[b"Forwarded: " + filler * (16000 // len(filler))] * 3, b"Forwarded: ,;for=192.0.2.1;" + filler * 5000
    )
    assert found == Origin(client="192.0.2.1")


def test_ED1_lines_of_one_name_are_one_list() -> None:
    assert (
        client(b"X-Forwarded-For: 192.0.2.66", b"x-forwarded-for: 192.0.2.1", b"X-FORWARDED-FOR: 10.0.0.1")[0]
        == "192.0.2.1"
    )


def test_ED1_only_so_many_hops_are_looked_at() -> None:
    assert client(b"X-Forwarded-For: 192.0.2.1" + b", 10.0.0.1" * (MAX_HOPS - 1))[0] == "192.0.2.1"
    assert client(b"X-Forwarded-For: 192.0.2.1" + b", 10.0.0.1" * MAX_HOPS)[0] == "10.0.0.1"


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        ([b"X-Forwarded-Proto: https"], b"https"),
        ([b"X-Forwarded-Proto: HTTPS"], b"https"),
        ([b"X-Forwarded-Proto: wss"], b"https"),
        ([b"X-Forwarded-Proto: ws"], b"http"),
        ([b"X-Forwarded-Proto: gopher"], b""),
        ([b"X-Forwarded-Proto: https, http"], b"http"),
        ([b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http"], b"http"),
        ([b"X-Forwarded-Proto: https", b"X-Forwarded-For: 192.0.2.1, 10.0.0.1"], b"https"),
        ([b"X-Forwarded-Proto: https, http", b"X-Forwarded-For: 192.0.2.1, 10.0.0.1"], b"https"),
        ([b"X-Forwarded-Proto: https, http", b"X-Forwarded-For: 192.0.2.66, 192.0.2.1"], b"http"),
        ([b"X-Forwarded-Proto: https, http, http", b"X-Forwarded-For: 192.0.2.1, 10.0.0.1"], b"http"),
    ],
)
def test_ED1_the_scheme_in_the_clients_place_or_the_last(lines: list[bytes], scheme: bytes) -> None:
    found = origin(*lines)
    assert found is not None
    assert found.scheme == scheme


@pytest.mark.parametrize(
    ("lines", "authority"),
    [
        ([b"X-Forwarded-Host: shop.example"], b"shop.example"),
        ([b"X-Forwarded-Host: shop.example:8443"], b"shop.example:8443"),
        ([b"X-Forwarded-Host: evil.example, shop.example"], b"shop.example"),
        ([b"X-Forwarded-Host: a/b"], b"own"),
        ([b"X-Forwarded-Host: <a>"], b"own"),
        ([b"X-Forwarded-Host: "], b"own"),
        ([b"X-Forwarded-Host: shop.example", b"X-Forwarded-Port: 8443"], b"shop.example:8443"),
        ([b"X-Forwarded-Host: shop.example:", b"X-Forwarded-Port: 8443"], b"shop.example:8443"),
        ([b"X-Forwarded-Host: shop.example:81", b"X-Forwarded-Port: 8443"], b"shop.example:81"),
        ([b"X-Forwarded-Host: [::1]", b"X-Forwarded-Port: 8443"], b"[::1]:8443"),
        ([b"X-Forwarded-Port: 8443"], b"own:8443"),
        ([b"X-Forwarded-Port: 443", b"X-Forwarded-Proto: https"], b"own"),
        ([b"X-Forwarded-Port: 80"], b"own"),
        ([b"X-Forwarded-Port: 80", b"X-Forwarded-Proto: https"], b"own:80"),
        ([b"X-Forwarded-Port: 0"], b"own"),
        ([b"X-Forwarded-Port: 65536"], b"own"),
        ([b"X-Forwarded-Port: 8o"], b"own"),
        ([b"X-Forwarded-Port: " + b"9" * 6000], b"own"),
    ],
)
def test_ED1_host_and_port(lines: list[bytes], authority: bytes) -> None:
    found = origin(*lines)
    assert found is not None
    assert found.authority(b"own") == authority


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"for=192.0.2.1;proto=https;host=shop.example", Origin("192.0.2.1", 0, b"https", b"shop.example")),
        (b'For="[2001:db8::1]:4711" ; Proto=HTTPS', Origin("2001:db8::1", 4711, b"https")),
        (b'for="192.0.2.1:4711"', Origin("192.0.2.1", 4711)),
        (
            b'for=192.0.2.66, for=192.0.2.1;host="a.example:81";by=_x, for=10.0.0.1;proto=https',
            Origin("192.0.2.1", 0, b"", b"a.example:81"),
        ),
        (b"for=_hidden;proto=https", Origin("", 0, b"https")),
        (b"proto=https", Origin("", 0, b"https")),
        (b'for="\\1\\92.0.2.1"', Origin("192.0.2.1")),
        (b", ,for=192.0.2.1,,", Origin("192.0.2.1")),
        (b'for=192.0.2.1;proto=gopher;host="a/b"', Origin("192.0.2.1")),
        (b"for=192.0.2.1;for=192.0.2.2", None),
        (b"for=192.0.2.1 for=192.0.2.2", None),
        (b"for", None),
        (b'for="192.0.2.1', None),
        (b'for="a"b', None),
        (b"for=192.0.2.1;proto=https, =x", None),
        (b"", Origin()),
    ],
)
def test_ED1_forwarded_by_RFC_7239(value: bytes, expected: Origin | None) -> None:
    assert origin(b"Forwarded: " + value) == expected


def test_ED1_forwarded_is_heard_alone_only() -> None:
    """Proxies that write the others pass it on as the client has sent it."""
    for line in (
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: a",
        b"X-Forwarded-Port: 81",
    ):
        found = origin(b"Forwarded: for=192.0.2.66;proto=https;host=evil.example", line)
        assert found is not None
        assert found.client in ("", "192.0.2.1")
        assert found.scheme in (b"", b"http")
        assert found.host in (b"", b"a")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Origin(), (b"http", b"127.0.0.1", b"3000", b"10.0.0.9", b"40000")),
        (Origin("192.0.2.1"), (b"http", b"127.0.0.1", b"3000", b"192.0.2.1", b"0")),
        (Origin("192.0.2.1", 7, b"https"), (b"https", b"127.0.0.1", b"3000", b"192.0.2.1", b"7")),
        (Origin(scheme=b"https", host=b"a"), (b"https", b"a", b"443", b"10.0.0.9", b"40000")),
        (Origin(host=b"[::1]:81"), (b"http", b"[::1]", b"81", b"10.0.0.9", b"40000")),
        (Origin(host=b"a:81", port=b"82"), (b"http", b"a", b"82", b"10.0.0.9", b"40000")),
        (Origin(port=b"82"), (b"http", b"127.0.0.1", b"82", b"10.0.0.9", b"40000")),
    ],
)
def test_ED1_the_pairs_of_the_connection(said: Origin, expected: tuple[bytes, ...]) -> None:
    parts = said.pairs(PEER)[:-1].split(b"\0")
    assert parts[1::2] == list(expected)
    assert parts[::2] == PEER[:-1].split(b"\0")[::2]


def test_ED1_a_websockets_scheme_stays_one() -> None:
    peer = PEER.replace(b"http\0", b"ws\0", 1)
    assert Origin(scheme=b"https").pairs(peer).startswith(b"REQUEST_SCHEME\0wss\0")
    assert Origin(scheme=b"http").pairs(peer).startswith(b"REQUEST_SCHEME\0ws\0")


values = st.text('0123456789abcdef.:[]"\\,;= \t_forphst\x01é', max_size=80).map(
    lambda text: text.encode("latin-1", "replace")
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Forwarded-Port", b"Forwarded"]
            ),
            values,
        ),
        max_size=4,
    )
)
def test_ED1_whatever_is_said_no_byte_of_it_breaks_a_head(fields: list[tuple[bytes, bytes]]) -> None:
    found = read_origin(fields, lambda address: address.startswith(TRUSTED))
    if found is not None:
        parts = found.pairs(PEER)[:-1].split(b"\0")
        assert parts[::2] == PEER[:-1].split(b"\0")[::2]
        assert all(part.isascii() and b" " not in part for part in parts)
        assert found.scheme in (b"", b"http", b"https")


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"Forwarded", b"X-Forwarded-Host"])
def test_ED1_looking_costs_no_more_than_the_bytes(name: bytes) -> None:
    """16 KiB of each kind of byte come to an end: nothing looks at one of them again for each other."""
    for byte in (b"1", b"a", b":", b"[", b'"', b"\\", b" ", b",", b";", b"=", b"for=", b"1.", b'"\\'):
        found = origin(name + b": for=" + byte * (16384 // len(byte)) + b"x")
        assert found is None or found.authority(b"own") == b"own" or name == b"X-Forwarded-Host"


def test_ports_are_a_list_and_a_forwarded_is_cut_by_its_own_grammar() -> None:
    """HO5: what tells that the lines are read each in its way."""
    found = origin(b"X-Forwarded-Port: 8442, 8443")
    assert found is not None
    assert found.port == b"8443"
    assert origin(b"Forwarded: ,") is None
    for port, expected in ((b"65535", b"65535"), (b"065535", b"65535"), (b"100000", b"")):
        assert origin(b"X-Forwarded-Port: " + port) == Origin(port=expected)
    assert origin(b"X-Forwarded-Port:\t8443\t,") == Origin(port=b"8443")
