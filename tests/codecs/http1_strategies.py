"""Hypothesis strategies for request heads: plain ones that the plain-request parser must parse, and their damaged neighbours."""

from __future__ import annotations

from hypothesis import strategies as st

TOKEN_CHARS = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TARGET_CHARS = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x23)
VALUE_CHARS = bytes((0x09, *range(0x20, 0x7F), *range(0x80, 0x100)))


def text_of(alphabet: bytes, most: int = 12, least: int = 0) -> st.SearchStrategy[bytes]:
    # As a text it is one choice; as a list of bytes it is two for each byte, and takes ten times as long to make.
    characters = st.text(alphabet.decode("latin-1"), min_size=least, max_size=most)
    return characters.map(lambda text: text.encode("latin-1"))


METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"REPORT", b"QUERY"]
)
HOSTS = st.sampled_from([b"a", b"example.com:8080", b"127.0.0.1", b"[::1]:3000", b"a_b.c"])
PLAIN_NAMES = st.one_of(
    st.sampled_from(
        [b"Accept", b"User-Agent", b"Cookie", b"X-A", b"x-a", b"X_A", b"Cache-Control", b"Upgrade-Insecure-Requests"]
    ),
    text_of(TOKEN_CHARS, least=1).map(lambda name: b"x" + name),
)
PLAIN_FIELDS = st.tuples(PLAIN_NAMES, st.sampled_from([b":", b": ", b":\t "]), text_of(VALUE_CHARS)).map(b"".join)


@st.composite
def plain_heads(draw: st.DrawFn) -> bytes:
    """A head in the plain-request parser's language."""
    target = b"/" + draw(text_of(TARGET_CHARS, 20))
    fields = draw(st.lists(PLAIN_FIELDS, max_size=6))
    fields.append(draw(st.sampled_from([b"Host: ", b"host:", b"HOST:\t"])) + draw(HOSTS))
    if draw(st.booleans()):
        fields.append(b"Connection: " + draw(st.sampled_from([b"close", b"keep-alive", b"Keep-Alive", b"CLOSE "])))
    if draw(st.booleans()):
        fields.append(b"Content-Length: %d" % draw(st.integers(0, 20)))
    if draw(st.booleans()):
        fields.append(b"Content-Type: text/plain")
    fields = draw(st.permutations(fields))
    return b"\r\n".join((b" ".join((draw(METHODS), target, b"HTTP/1.1")), *fields, b"", b""))


ODD_LINES = st.sampled_from(
    [
        b"Host: a",
        b"Host: a,b",
        b"Host:",
        b"Content-Length: 5",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: 00000000000000000005",
        b"Content-Length : 5",
        b"Content-Length: 134217729",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\x0b",
        b"Transfer-Encoding : chunked",
        b"transfer-encoding: gzip, chunked",
        b"Connection: upgrade",
        b"Connection: close, x",
        b"Connection: close",
        b"Connection:",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Expect: 100-continue",
        b"TE: trailers",
        b"Trailer: x",
        b"Authorization: a",
        b"Authorization: b",
        b"Content-Type: a/b",
        b" folded",
        b"\tfolded",
        b": nameless",
        b"colonless",
        b"X: \x00",
        b"X: \x7f",
        b"X: a\rb",
        b"X: a\nb",
        b"",
    ]
)
ODD_BYTES = st.sampled_from(b'\x00\t\n\x0b\x0c\r "#%,/:;?@\x7f\x80\xa0\xffaGHT019')


@st.composite
def near_heads(draw: st.DrawFn) -> bytes:
    """A head with odd lines, or other line ends, or some bytes changed; often with something behind it."""
    data = draw(plain_heads())
    lines = data.split(b"\r\n")
    for line in draw(st.lists(ODD_LINES, max_size=2)):
        lines.insert(draw(st.integers(1, len(lines) - 1)), line)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(lines) - 1))
        del lines[at]
    data = b"\r\n".join(lines)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 2))
        data = data[:at] + bytes(draw(st.lists(ODD_BYTES, max_size=2))) + data[at + cut :]
    return data + draw(
        st.sampled_from([b"", b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"])
    )


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data cut anywhere."""
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    pieces = [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in pieces if piece]
