"""The corpus of the edge: requests that must be refused, and their neighbours that must not.

Data only, to be run against the codec and against a whole server alike. To run a case: send ``data``, then shut down the sending
side. ``expected`` is the status of the refusal, or ``"accept"`` when every request in ``data`` is served;
``before`` is how many requests are served before the verdict. ``code`` is the refusal's word. The limits are the default ones.
"""

from __future__ import annotations

from typing import Literal

import attrs

Expected = int | Literal["accept"]


@attrs.frozen
class Case:
    id: str
    rule: str
    data: bytes
    expected: Expected
    note: str = ""
    code: str = ""
    before: int = 0


CASES: list[Case] = []


def _case(
    rule: int, name: str, data: bytes, expected: Expected, code: str = "", note: str = "", *, before: int | None = None
) -> None:
    if before is None:
        before = 1 if expected == "accept" else 0
    CASES.append(Case(f"R{rule:02}-{name}", f"R{rule}", data, expected, note, code, before))


def _get(
    *lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: example.com", body: bytes = b""
) -> bytes:
    return b"\r\n".join((first, *((host,) if host else ()), *lines, b"", b"")) + body


def _post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return _get(*lines, first=b"POST /p HTTP/" + version, body=body)


def _chunked(body: bytes) -> bytes:
    return _post(b"Transfer-Encoding: chunked", body=body)


_NEXT = _get(first=b"GET /smuggled HTTP/1.1")
_PLAIN = _get()

# R1: line ends
_case(1, "plain", _PLAIN, "accept")
_case(1, "one-leading-crlf", b"\r\n" + _PLAIN, "accept", note="RFC 9112 2.2")
_case(1, "two-leading-crlf", b"\r\n\r\n" + _PLAIN, 400, "bad_request_line")
_case(1, "leading-lf", b"\n" + _PLAIN, 400, "bare_lf")
_case(1, "leading-cr", b"\r" + _PLAIN, 400, "bare_cr")
_case(1, "crlf-between-requests", _PLAIN + b"\r\n" + _PLAIN, "accept", before=2)
_case(1, "crlf-between-each", (_PLAIN + b"\r\n") * 3, "accept", before=3)
_case(1, "only-crlf", b"\r\n", "accept", before=0)
_case(1, "bare-lf-request-line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf")
_case(1, "bare-lf-field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, "bare_lf")
_case(1, "bare-lf-blank-line", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400, "bare_lf")
_case(1, "all-lf", b"GET / HTTP/1.1\nHost: a\n\n", 400, "bare_lf")
_case(1, "bare-cr-request-line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "bare_cr")
_case(1, "bare-cr-field", _get(b"X: a\rb"), 400, "bare_cr")
_case(1, "bare-cr-hides-field", _get(b"X: a\rTransfer-Encoding: chunked"), 400, "bare_cr")
_case(1, "cr-cr-lf", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, "bare_cr")
_case(
    1, "blank-line-cr-x", b"GET / HTTP/1.1\r\nHost: a\r\n\rX\r\n\r\n", 400, "bare_cr", "llhttp: head ended by CRLF CR X"
)
_case(1, "lf-cr-lf-end", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "bare_lf")
_case(1, "truncated-head", b"GET / HTTP/1.1\r\nHost: a\r\n", 400, "head_truncated")
_case(1, "truncated-first-byte", b"G", 400, "head_truncated")

# R2: methods
for _method in (
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"OPTIONS",
    b"PROPFIND",
    b"REPORT",
    b"MKCALENDAR",
    b"QUERY",
    b"LOCK",
    b"BREW",
    b"get",
    b"M-SEARCH",
    b"!#$%&'*+-.^_`|~09azAZ",
    b"A" * 60,
):
    _case(2, f"method-{_method.decode()}", _get(first=_method + b" /x HTTP/1.1"), "accept")
_case(
    2,
    "unknown-with-body",
    _get(b"Content-Length: 5", first=b"BREW /pot HTTP/1.1", body=b"hello") + _PLAIN,
    "accept",
    before=2,
    note="fault 26: any token (RFC 9110 16.1); --allowed-methods makes a list of it",
)
_case(2, "connect-lower-case", _get(first=b"connect /x HTTP/1.1"), "accept", note="another method: they know case")
_case(2, "pri", _get(first=b"PRI * HTTP/1.1"), 400, "bad_target")
_case(2, "not-token", _get(first=b"GE(T / HTTP/1.1"), 400, "bad_method")
_case(2, "colon", _get(first=b"GET: / HTTP/1.1"), 400, "bad_method")
_case(2, "non-ascii", _get(first=b"G\xc3\x89T / HTTP/1.1"), 400, "bad_method")
_case(2, "quoted", _get(first=b'"GET" / HTTP/1.1'), 400, "bad_method")
_case(2, "leading-space", b" " + _PLAIN, 400, "bad_request_line")
_case(2, "empty", _get(first=b" / HTTP/1.1"), 400, "bad_method")
_case(2, "connect", _get(first=b"CONNECT example.com:443 HTTP/1.1"), 501, "connect_refused")
_case(
    2, "connect-body", _get(b"Content-Length: 5", first=b"CONNECT a:1 HTTP/1.1", body=b"hello"), 501, "connect_refused"
)
_case(2, "tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "control_byte")

# R3: targets
_case(3, "query", _get(first=b"GET /a/b%20c?x=1&y=?/ HTTP/1.1"), "accept")
_case(3, "odd-visible", _get(first=b'GET /a|b[c]{d}"<e>\\^`?q[]=| HTTP/1.1'), "accept", note="browsers send these")
_case(3, "two-slashes", _get(first=b"GET //evil.example/x HTTP/1.1"), "accept", note="a path, not an authority")
_case(3, "question-mark-only", _get(first=b"GET /? HTTP/1.1"), "accept")
_case(3, "absolute", _get(first=b"GET http://example.com/x?y HTTP/1.1"), "accept")
_case(3, "absolute-no-path", _get(first=b"GET http://example.com HTTP/1.1"), "accept")
_case(3, "absolute-query-no-path", _get(first=b"GET http://example.com?x HTTP/1.1"), "accept")
_case(3, "absolute-case-and-port", _get(first=b"GET HTTP://EXAMPLE.com:80/ HTTP/1.1"), "accept")
_case(3, "absolute-other-host", _get(first=b"GET http://other.example/ HTTP/1.1"), "accept", note="RFC 9112 3.2.2")
_case(3, "absolute-other-port", _get(first=b"GET http://example.com:81/ HTTP/1.1"), "accept", note="RFC 9112 3.2.2")
_case(3, "absolute-empty-host-field", _get(first=b"GET http://a/ HTTP/1.1", host=b"Host:"), "accept")
_case(3, "absolute-bad-host-field", _get(first=b"GET http://a/ HTTP/1.1", host=b"Host: a/b"), 400, "bad_host")
_case(
    3, "absolute-two-hosts", _get(b"Host: b", first=b"GET http://a/ HTTP/1.1", host=b"Host: a"), 400, "duplicate_field"
)
_case(3, "absolute-port-only", _get(first=b"GET http://:80/ HTTP/1.1"), 400, "bad_target")
_case(3, "absolute-empty-port", _get(first=b"GET http://example.com:/ HTTP/1.1"), "accept")
_case(3, "absolute-userinfo", _get(first=b"GET http://u@example.com/ HTTP/1.1"), 400, "bad_target")
_case(3, "absolute-empty-host", _get(first=b"GET http:///x HTTP/1.1"), 400, "bad_target")
_case(3, "absolute-other-scheme", _get(first=b"GET ftp://example.com/ HTTP/1.1"), 400, "bad_target")
_case(3, "absolute-opaque", _get(first=b"GET http:example.com HTTP/1.1"), 400, "bad_target")
_case(3, "asterisk-options", _get(first=b"OPTIONS * HTTP/1.1"), "accept")
_case(3, "asterisk-get", _get(first=b"GET * HTTP/1.1"), 400, "bad_target")
_case(3, "asterisk-more", _get(first=b"OPTIONS *x HTTP/1.1"), 400, "bad_target")
_case(3, "authority", _get(first=b"GET example.com:80 HTTP/1.1"), 400, "bad_target")
_case(3, "relative", _get(first=b"GET foo HTTP/1.1"), 400, "bad_target")
_case(3, "query-first", _get(first=b"GET ?x HTTP/1.1"), 400, "bad_target")
_case(3, "fragment", _get(first=b"GET /a#b HTTP/1.1"), 400, "bad_target")
_case(3, "fragment-in-query", _get(first=b"GET /a?b#c HTTP/1.1"), 400, "bad_target")
_case(3, "space", _get(first=b"GET /a b HTTP/1.1"), 400, "bad_request_line")
_case(3, "empty", _get(first=b"GET  HTTP/1.1"), 400, "bad_target")
_case(3, "missing", _get(first=b"GET HTTP/1.1"), 400, "bad_request_line")
_case(3, "tab", _get(first=b"GET\t/ HTTP/1.1"), 400, "bad_request_line")
_case(3, "tab-in-target", _get(first=b"GET /a\tb HTTP/1.1"), 400, "bad_target")
_case(3, "nul", _get(first=b"GET /a\x00b HTTP/1.1"), 400, "control_byte")
_case(3, "ctl", _get(first=b"GET /a\x01b HTTP/1.1"), 400, "control_byte")
_case(3, "del", _get(first=b"GET /a\x7fb HTTP/1.1"), 400, "control_byte")
_case(3, "utf-8", _get(first=b"GET /caf\xc3\xa9 HTTP/1.1"), 400, "bad_target")
_case(3, "nbsp", _get(first=b"GET /a\xa0b HTTP/1.1"), 400, "bad_target")
_case(
    3, "longest", _get(first=b"GET /" + b"a" * (8192 - 14) + b" HTTP/1.1"), "accept", note="8192 bytes of request line"
)
_case(3, "one-too-long", _get(first=b"GET /" + b"a" * (8193 - 14) + b" HTTP/1.1"), 414, "request_line_too_long")
_case(3, "no-end", b"GET /" + b"a" * 9000, 414, "request_line_too_long", "refused before its end")
_case(3, "much-too-long", _get(first=b"GET /" + b"a" * 60000 + b" HTTP/1.1"), 414, "request_line_too_long")

# R4: versions
_case(4, "1.0", _get(first=b"GET / HTTP/1.0"), "accept")
for _version in (b"1.2", b"1.9"):
    _case(4, f"minor-{_version.decode()}", _get(first=b"GET / HTTP/" + _version), "accept", note="RFC 9110 2.5")
_case(4, "minor-lives-on", _get(first=b"GET / HTTP/1.2") + _PLAIN, "accept", before=2)
_case(4, "minor-no-host", _get(first=b"GET / HTTP/1.3", host=b""), 400, "missing_host")
_case(
    4,
    "minor-chunked",
    _post(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n", version=b"1.2") + _PLAIN,
    "accept",
    before=2,
)
_case(
    4,
    "minor-cl-te",
    _post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG", version=b"1.2"),
    400,
    "length_and_encoding",
)
for _version in (b"2.0", b"0.9", b"3.0", b"2.1"):
    _case(4, f"version-{_version.decode()}", _get(first=b"GET / HTTP/" + _version), 505, "version_not_supported")
for _name, _protocol in {
    "1.10": b"HTTP/1.10",
    "01.1": b"HTTP/01.1",
    "lower-case": b"http/1.1",
    "no-minor": b"HTTP/1",
    "comma": b"HTTP/1,1",
    "other-name": b"HTTQ/1.1",
    "sign": b"HTTP/+1.1",
    "trailing-ctl": b"HTTP/1.1x",
}.items():
    _case(4, f"version-{_name}", _get(first=b"GET / " + _protocol), 400, "bad_version")
_case(4, "trailing-space", _get(first=b"GET / HTTP/1.1 "), 400, "bad_request_line")
_case(4, "two-spaces", _get(first=b"GET /  HTTP/1.1"), 400, "bad_request_line")
_case(4, "tab-before", _get(first=b"GET /\tHTTP/1.1"), 400, "bad_request_line")
_case(4, "http-0.9", b"GET /\r\n", 400, "bad_request_line")
_case(4, "http2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_not_supported")

# R5: Host
for _value in (
    b"example.com:8080",
    b"EXAMPLE.com",
    b"127.0.0.1",
    b"a_b.c-d",
    b"[::1]",
    b"[2001:db8::1]:8080",
    b"x:65535",
    b"x:",
    b"x:0",
    b"x:000000080",
    b"[::1]:",
    b"[::ffff:192.0.2.1]:80",
    b"[v1.fe80::a+en1]",
    b"caf%C3%A9.example",
    b"a!$&'()*+;=b",
    b"",
):
    _case(5, f"host-{_value.decode()}", _get(host=b"Host: " + _value), "accept")
_case(5, "missing", _get(host=b""), 400, "missing_host")
_case(5, "missing-1.0", _get(first=b"GET / HTTP/1.0", host=b""), "accept")
_case(5, "missing-absolute", _get(first=b"GET http://example.com/ HTTP/1.1", host=b""), 400, "missing_host")
_case(5, "absolute-1.0-no-host", _get(first=b"GET http://example.com/ HTTP/1.0", host=b""), "accept")
for _name, _value in {
    "userinfo": b"user@example.com",
    "path": b"example.com/x",
    "comma": b"a.example,b.example",
    "space": b"a.example b.example",
    "tab": b"a.example\tb",
    "query": b"a?b",
    "fragment": b"a#b",
    "port-name": b"a:http",
    "port-large": b"a:65536",
    "port-huge": b"a:" + b"9" * 6000,
    "port-sign": b"a:+80",
    "port-two": b"a:80:81",
    "port-only": b":80",
    "ipv6-bare": b"::1",
    "ipv6-open": b"[::1",
    "ipv6-bad": b"[::1::2]",
    "ipv6-zone": b"[fe80::1%25eth0]",
    "utf-8": b"caf\xc3\xa9.example",
    "percent-half": b"a%0",
    "percent-not-hex": b"a%zzb",
    "percent-alone": b"%",
    "ipvfuture-empty": b"[v1.]",
    "ipvfuture-no-version": b"[v.a]",
    "ipv6-empty": b"[]",
    "ipv6-behind": b"[::1]x",
    "comma-at-end": b"a.example,",
    "empty-with-userinfo": b"@",
    "scheme": b"http://a",
    "quote": b'a"b',
    "angle": b"a<script>",
    "backslash": b"a\\b",
}.items():
    _case(5, f"bad-host-{_name}", _get(host=b"Host: " + _value), 400, "bad_host")
_case(5, "bad-host-1.0", _get(first=b"GET / HTTP/1.0", host=b"Host: a/b"), 400, "bad_host")
_case(5, "bad-host-nul", _get(host=b"Host: a\x00b"), 400, "control_byte")

# R6: percent-encoded bytes pass as they are, and do nothing
_case(6, "percent-crlf", _get(first=b"GET /a%0d%0aX:%20y HTTP/1.1"), "accept")
_case(6, "percent-nul", _get(first=b"GET /a%00b HTTP/1.1"), "accept")
_case(6, "percent-twice", _get(first=b"GET /a%250d%250a HTTP/1.1"), "accept")

# R7: field lines
_case(7, "empty-value", _get(b"X:"), "accept")
_case(7, "no-space", _get(b"X:y"), "accept")
_case(7, "tabs-around", _get(b"X:\t y\tz \t"), "accept")
_case(7, "latin-1-value", _get(b"X: caf\xe9"), "accept")
_case(7, "utf-8-value", _get("X: café".encode()), "accept")
_case(7, "all-token-chars", _get(b"!#$%&'*+-.^_`|~09azAZ: x"), "accept")
_case(7, "colons-in-value", _get(b"X: a:b::c"), "accept")
_case(7, "space-before-colon", _get(b"X : y"), 400, "space_before_colon")
_case(7, "tab-before-colon", _get(b"X\t: y"), 400, "space_before_colon")
_case(7, "te-space-before-colon", _post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), 400, "space_before_colon")
_case(7, "cl-space-before-colon", _post(b"Content-Length : 5", body=b"hello"), 400, "space_before_colon")
_case(7, "host-space-before-colon", _get(host=b"Host : a"), 400, "space_before_colon")
_case(7, "empty-name", _get(b": y"), 400, "empty_name")
_case(7, "only-colon", _get(b":"), 400, "empty_name")
_case(7, "missing-colon", _get(b"X-Nothing"), 400, "missing_colon")
_case(7, "space-in-name", _get(b"X Y: z"), 400, "bad_name")
_case(7, "paren-in-name", _get(b"X(Y): z"), 400, "bad_name")
_case(7, "slash-in-name", _get(b"X/Y: z"), 400, "bad_name")
_case(7, "latin-1-name", _get(b"X\xe9: z"), 400, "bad_name")
_case(7, "nbsp-name", _get(b"Transfer-Encoding\xa0: chunked"), 400, "bad_name")
_case(7, "kelvin-name", _get("\u212aeep-Alive: x".encode()), 400, "bad_name")
_case(7, "quoted-name", _get(b'"X": y'), 400, "bad_name")
_case(7, "obs-fold", _get(b"X: a", b" b"), 400, "obs_fold")
_case(7, "obs-fold-tab", _get(b"X: a", b"\tb"), 400, "obs_fold")
_case(7, "obs-fold-empty", _get(b"X: a", b" "), 400, "obs_fold")
_case(7, "obs-fold-first", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, "obs_fold")
_case(7, "obs-fold-te", _post(b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"), 400, "obs_fold")
_case(
    7, "obs-fold-te-identity", _post(b"Transfer-Encoding: chunked", b" , identity", body=b"0\r\n\r\n"), 400, "obs_fold"
)
_case(7, "obs-fold-cl", _post(b"Content-Length: 1", b" 0", body=b"0123456789"), 400, "obs_fold")
for _byte in (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F):
    _case(7, f"ctl-{_byte:02x}-in-value", _get(b"X: a" + bytes([_byte]) + b"b"), 400, "control_byte")
_case(7, "nul-in-name", _get(b"X\x00Y: z"), 400, "control_byte")
_case(7, "vt-around-value", _get(b"Content-Length:\x0b5"), 400, "control_byte")

# R8: sizes
_case(8, "hundred-fields", _get(*(b"X-%d: y" % n for n in range(99))), "accept", note="Host is the hundredth")
_case(8, "too-many-fields", _get(*(b"X-%d: y" % n for n in range(100))), 431, "too_many_fields")
_case(8, "two-thousand-fields", _get(*(b"X: y" for _ in range(2000))), 431, "too_many_fields")
_case(8, "longest-field", _get(b"X: " + b"a" * (16384 - 3)), "accept")
_case(8, "field-too-large", _get(b"X: " + b"a" * (16385 - 3)), 431, "field_too_large")
_case(8, "name-too-large", _get(b"X" * 16385 + b": y"), 431, "field_too_large")
_case(8, "field-without-end", _get()[:-2] + b"X: " + b"a" * 20000, 431, "field_too_large", "refused before its end")
_case(8, "headers-too-large", _get(*(b"X: " + b"a" * 9000 for _ in range(4))), 431, "headers_too_large")
_FULL = (b"X: " + b"a" * 10000, b"Y: " + b"a" * 10000, b"Z: " + b"a" * (32768 - 2 * 10005 - 3 - 2 - 19))
_case(8, "fullest-headers", _get(*_FULL), "accept", note="32768 bytes with their CRLFs, Host takes 19 of them")
_case(8, "one-byte-too-full", _get(*_FULL[:2], _FULL[2] + b"a"), 431, "headers_too_large")
_case(8, "headers-60-kb", _get(*(b"X: " + b"a" * 1000 for _ in range(60))), 431, "headers_too_large")
_case(8, "large-cookie", _get(b"Cookie: " + b"a=b; " * 1600), "accept", note="8 KB, beyond the plain-request parser")

# R9: names that are not CGI-safe are dropped for the application, not refused
_case(
    9,
    "underscore",
    _get(b"X_User: evil", b"X-User: good"),
    "accept",
    note="test_cgi_fields.py says which the application sees",
)
_case(9, "content-underscore-length", _get(b"Content_Length: 5"), "accept")
_case(9, "transfer-underscore-encoding", _get(b"Transfer_Encoding: chunked"), "accept")
_case(9, "proxy", _get(b"Proxy: http://evil"), "accept")

# R10: singletons
for _name, _first, _second in (
    ("host", b"Host: example.com", b"HOST: example.com"),
    ("host-other", b"Host: example.com", b"Host: evil.example"),
    ("content-type", b"Content-Type: a/b", b"content-type: a/b"),
    ("authorization", b"Authorization: Basic a", b"Authorization: Basic b"),
    ("expect", b"Expect: 100-continue", b"Expect: 100-continue"),
    ("content-length", b"Content-Length: 0", b"Content-Length: 0"),
    ("transfer-encoding", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ("websocket-version", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"),
):
    _case(
        10, f"twice-{_name}", _get(_first, _second, host=b"" if "host" in _name else b"Host: a"), 400, "duplicate_field"
    )
_case(10, "repeatable", _get(b"Accept: a/b", b"Accept: c/d", b"Cookie: a=b", b"Cookie: c=d"), "accept")

# R11: forwarded fields are a matter of trust, not of syntax
_case(11, "forwarded", _get(b"X-Forwarded-For: 1.2.3.4", b"Forwarded: for=1.2.3.4"), "accept")

# R12: both lengths
_case(
    12,
    "cl-te",
    _post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG"),
    400,
    "length_and_encoding",
)
_case(
    12,
    "te-cl",
    _post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"5c\r\n" + _NEXT),
    400,
    "length_and_encoding",
)
_case(
    12,
    "cl-zero-te",
    _post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    400,
    "length_and_encoding",
)
_case(
    12,
    "cl-te-unknown",
    _post(b"Content-Length: 6", b"Transfer-Encoding: x", body=b"0\r\n\r\nG"),
    400,
    "length_and_encoding",
)
_case(
    12,
    "cl-te-smuggled-pipeline",
    _post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + _NEXT),
    400,
    "length_and_encoding",
    "no request reaches the application",
)

# R13: Content-Length
_case(13, "length", _post(b"Content-Length: 5", body=b"hello"), "accept")
_case(13, "zero", _post(b"Content-Length: 0"), "accept")
_case(13, "leading-zeros", _post(b"Content-Length: 0005", body=b"hello"), "accept", note="1*DIGIT")
_case(13, "get-with-body", _get(b"Content-Length: 5", body=b"hello"), "accept")
_case(13, "body-then-request", _post(b"Content-Length: 5", body=b"hello" + _PLAIN), "accept", before=2)
_case(13, "short", _post(b"Content-Length: 10", body=b"hello"), 400, "body_truncated")
_case(
    13,
    "excess-is-next-request",
    _post(b"Content-Length: 5", body=b"helloCONNECT / HTTP/1.1\r\n"),
    501,
    "connect_refused",
    before=1,
)
for _name, _value in {
    "empty": b"",
    "plus": b"+5",
    "minus": b"-5",
    "hex": b"0x5",
    "underscore": b"1_0",
    "float": b"5.0",
    "exponent": b"5e0",
    "list-equal": b"5, 5",
    "list-differ": b"5, 6",
    "space-inside": b"5 5",
    "twenty-digits": b"00000000000000000005",
    "huge": b"9" * 40,
    "superscript": b"\xb2",
    "arabic-digits": "\u0665".encode(),
    "nbsp": b"\xa05",
    "semicolon": b"5;",
    "quoted": b'"5"',
    "word": b"five",
}.items():
    _case(13, f"bad-{_name}", _post(b"Content-Length: " + _value, body=b"hello"), 400, "bad_content_length")
_case(13, "twice-equal", _post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400, "duplicate_field")
_case(13, "twice-differ", _post(b"Content-Length: 5", b"content-length: 6", body=b"hello"), 400, "duplicate_field")
_case(13, "too-large", _post(b"Content-Length: 134217729"), 413, "body_too_large")
_case(
    13,
    "too-large-expect",
    _post(b"Content-Length: 134217729", b"Expect: 100-continue"),
    413,
    "body_too_large",
    "in place of 100",
)
_case(13, "nineteen-digits", _post(b"Content-Length: 9223372036854775807"), 413, "body_too_large")

# R14: Transfer-Encoding
_LAST = b"0\r\n\r\n"
_case(14, "chunked", _chunked(b"5\r\nhello\r\n" + _LAST), "accept")
_case(14, "case", _post(b"transfer-encoding: ChUnKeD", body=_LAST), "accept")
_case(14, "chunked-then-request", _chunked(b"5\r\nhello\r\n" + _LAST + _PLAIN), "accept", before=2)
_case(14, "on-1.0", _post(b"Transfer-Encoding: chunked", body=_LAST, version=b"1.0"), 400, "transfer_encoding_in_1_0")
for _name, _value in {
    "gzip": b"gzip",
    "gzip-chunked": b"gzip, chunked",
    "identity": b"identity",
    "xchunked": b"xchunked",
    "chunkedx": b"chunkedx",
    "unknown": b"cow",
}.items():
    _case(14, f"unknown-{_name}", _post(b"Transfer-Encoding: " + _value, body=_LAST), 501, "unknown_transfer_coding")
for _name, _value in {
    "empty": b"",
    "leading-comma": b",chunked",
    "trailing-comma": b"chunked,",
    "not-last": b"chunked, identity",
    "not-last-gzip": b"chunked, gzip",
    "twice": b"chunked, chunked",
    "parameter": b"chunked;a=b",
    "semicolon": b"chunked;",
    "quoted": b'"chunked"',
    "space-inside": b"chun ked",
    "kelvin": "chun\u212aed".encode(),
    "dotless-i": "\u0131dentity, chunked".encode(),
    "long-s": "chunked\u017f".encode(),
    "nbsp": b"chunked\xa0",
    "nbsp-before": b"\xa0chunked",
    "nel": b"chunked\x85",
    "colon": b": chunked",
    "bracket": b"[chunked]",
}.items():
    _case(14, f"bad-{_name}", _post(b"Transfer-Encoding: " + _value, body=_LAST), 400, "bad_transfer_encoding")
_case(14, "vt", _post(b"Transfer-Encoding: chunked\x0b", body=_LAST), 400, "control_byte")
_case(14, "ff-before", _post(b"Transfer-Encoding: \x0cchunked", body=_LAST), 400, "control_byte")
_case(14, "nul", _post(b"Transfer-Encoding: chunked\x00", body=_LAST), 400, "control_byte")
_case(14, "split-te", _post(b"Transfer-Encoding: chun", b"Transfer-Encoding: ked", body=_LAST), 400, "duplicate_field")
_case(
    14,
    "two-lines",
    _post(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=_LAST),
    400,
    "duplicate_field",
)

# R15: chunks
_case(15, "hex-digits", _chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n"), "accept")
_case(15, "leading-zeros", _chunked(b"0000000000000005\r\nhello\r\n" + _LAST), "accept", note="16 digits")
_case(15, "extension", _chunked(b'5;a;b=c;d="e;\\"f\tg\xe9"\r\nhello\r\n0;z\r\n\r\n'), "accept")
_case(
    15,
    "bws",
    _chunked(b'5 ;a\r\nhello\r\n1\t ; \tb = c\t;d =\t"e" ;f\r\nx\r\n0 ;z\r\n\r\n') + _PLAIN,
    "accept",
    before=2,
    note="fault 26: RFC 9112 7.1.1, 9110 5.6.3",
)
_case(15, "space-after", _chunked(b"5; a\r\nhello\r\n" + _LAST), "accept")
_case(15, "space-before-equals", _chunked(b"5;a =b\r\nhello\r\n" + _LAST), "accept")
_case(15, "space-after-equals", _chunked(b"5;a= b\r\nhello\r\n" + _LAST), "accept")
_case(15, "space-semicolon", _chunked(b"5 ;a\r\nhello\r\n" + _LAST), "accept")
_case(15, "longest-extension", _chunked(b"5;" + b"a" * 255 + b"\r\nhello\r\n" + _LAST), "accept")
_case(15, "crlf-in-data", _chunked(b"4\r\n\r\n\r\n\r\n" + _LAST), "accept")
for _name, _line in {
    "empty": b"",
    "prefix": b"0x5",
    "plus": b"+5",
    "minus": b"-5",
    "underscore": b"0_5",
    "leading-space": b" 5",
    "trailing-space": b"5 ",
    "trailing-tab": b"5\t",
    "space-equals": b"5 =a",
    "space-digit": b"5 5",
    "space-digit-semicolon": b"5 5;a",
    "not-hex": b"g",
    "superscript": b"\xb2",
    "seventeen-digits": b"00000000000000005",
    "twenty-digits": b"00000000000000000005",
    "overflow-64": b"10000000000000005",
    "comma": b"5,5",
    "only-extension": b";a",
}.items():
    _case(15, f"bad-size-{_name}", _chunked(_line + b"\r\nhello\r\n" + _LAST), 400, "bad_chunk_size")
for _name, _line in {
    "bare-semicolon": b"5;",
    "two-semicolons": b"5;;a",
    "empty-value": b"5;a=",
    "empty-name": b"5;=a",
    "trailing-space": b"5;a ",
    "trailing-tab": b"5 ;a=b\t",
    "spaces-only": b"5 ; ",
    "equals-then-nothing": b"5;a = ",
    "two-words": b"5;a b",
    "space-then-two-semicolons": b"5 ; ;a",
    "open-quote": b'5;a="b',
    "quote-then-more": b'5;a="b"c',
    "escaped-end": b'5;a="b\\"',
    "latin-1-name": b"5;\xe9",
    "two-equals": b"5;a=b=c",
}.items():
    _case(15, f"bad-extension-{_name}", _chunked(_line + b"\r\nhello\r\n" + _LAST), 400, "bad_chunk_extension")
_case(15, "lf-after-size", _chunked(b"5\nhello\r\n" + _LAST), 400, "bare_lf")
_case(15, "lf-in-extension", _chunked(b"5;a\nhello\r\n" + _LAST), 400, "bare_lf", "CVE-2025-55315")
_case(15, "lf-in-quoted-extension", _chunked(b'5;a="\n"\r\nhello\r\n' + _LAST), 400, "bare_lf")
_case(15, "crlf-in-quoted-extension", _chunked(b'5;a="\r\n"\r\nhello\r\n' + _LAST), 400, "bad_chunk_extension")
_case(15, "cr-after-size", _chunked(b"5\rhello\r\n" + _LAST), 400, "bare_cr")
_case(15, "cr-in-extension", _chunked(b"5;a\rb\r\nhello\r\n" + _LAST), 400, "bare_cr")
_case(15, "cr-cr-lf", _chunked(b"5\r\r\nhello\r\n" + _LAST), 400, "bare_cr")
_case(15, "ctl-in-extension", _chunked(b"5;a\x01\r\nhello\r\n" + _LAST), 400, "control_byte")
_case(15, "nul-in-size", _chunked(b"5\x00\r\nhello\r\n" + _LAST), 400, "control_byte")
_case(15, "vt-after-size", _chunked(b"5\x0b\r\nhello\r\n" + _LAST), 400, "control_byte")
_case(15, "extension-too-long", _chunked(b"5;" + b"a" * 256 + b"\r\nhello\r\n" + _LAST), 400, "chunk_line_too_long")
_case(15, "line-without-end", _chunked(b"5;" + b"a" * 400), 400, "chunk_line_too_long", "refused before its end")
_case(
    15,
    "extensions-too-large",
    _chunked((b"1;" + b"a" * 255 + b"\r\nx\r\n") * 65 + _LAST),
    400,
    "chunk_extensions_too_large",
)
_case(15, "extensions-many", _chunked((b"1;" + b"a" * 255 + b"\r\nx\r\n") * 64 + _LAST), "accept", note="16 KiB")
_case(15, "data-no-crlf", _chunked(b"5\r\nhelloXX0\r\n\r\n"), 400, "bad_chunk_end", "CVE-2025-43859")
_case(15, "data-lf", _chunked(b"5\r\nhello\n" + _LAST), 400, "bad_chunk_end")
_case(15, "data-cr-x", _chunked(b"5\r\nhello\rX" + _LAST), 400, "bad_chunk_end")
_case(15, "data-too-long", _chunked(b"4\r\nhello\r\n" + _LAST), 400, "bad_chunk_end")
_case(15, "data-too-short", _chunked(b"6\r\nhello\r\n" + _LAST), 400, "bad_chunk_end")
_case(15, "no-last-chunk", _chunked(b"5\r\nhello\r\n"), 400, "body_truncated")
_case(15, "no-final-crlf", _chunked(b"5\r\nhello\r\n0\r\n"), 400, "body_truncated")
_case(15, "half-final-crlf", _chunked(b"5\r\nhello\r\n0\r\n\r"), 400, "body_truncated")
_case(15, "final-cr-x", _chunked(b"5\r\nhello\r\n0\r\n\rX"), 400, "bare_cr")
_case(15, "final-lf", _chunked(b"5\r\nhello\r\n0\r\n\n"), 400, "bare_lf")
_case(15, "chunk-too-large", _chunked(b"8000001\r\nx"), 413, "body_too_large", "refused before its data")
_case(15, "chunk-far-too-large", _chunked(b"ffffffffffffffff\r\nx"), 413, "body_too_large")
_case(15, "chunk-sum-too-large", _chunked(b"5\r\nhello\r\n7fffffc\r\nx"), 413, "body_too_large")

# R16: many tiny chunks
_case(16, "some-tiny-chunks", _chunked(b"1\r\nx\r\n" * 4000 + _LAST), "accept")
_case(16, "too-many-tiny-chunks", _chunked(b"1\r\nx\r\n" * 9000 + _LAST), 400, "tiny_chunks")
_case(16, "many-small-chunks", _chunked(b"10\r\n0123456789abcdef\r\n" * 6000 + _LAST), "accept")

# R17: trailers
_case(17, "trailer", _chunked(b"5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-More: d\r\n\r\n"), "accept")
for _name in (
    b"Content-Digest: sha-256=:AAA=:",
    b"Content-MD5: AAA=",
    b"Content-Type: a/b",
    b"ETag: x",
    b"Server-Timing: a",
):
    _case(
        17,
        "dropped-" + _name.partition(b":")[0].decode().lower(),
        _chunked(b"5\r\nhello\r\n0\r\n" + _name + b"\r\n\r\n") + _PLAIN,
        "accept",
        before=2,
        note="fault 26: taken and dropped (RFC 9110 6.5.1)",
    )
_case(17, "trailer-then-request", _chunked(b"0\r\nX-A: b\r\n\r\n" + _PLAIN), "accept", before=2)
for _name in (
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Host: evil",
    b"Authorization: x",
    b"Content-Encoding: gzip",
    b"Content-Range: bytes 0-0/1",
    b"X-Forwarded-For: 1",
    b"Connection: close",
    b"Trailer: x",
    b"Cookie: a=b",
    b"Upgrade: websocket",
):
    _case(
        17,
        "forbidden-" + _name.partition(b":")[0].decode().lower(),
        _chunked(b"0\r\n" + _name + b"\r\n\r\n"),
        400,
        "forbidden_trailer",
    )
_case(17, "trailer-missing-colon", _chunked(b"0\r\nX\r\n\r\n"), 400, "missing_colon")
_case(17, "trailer-space-before-colon", _chunked(b"0\r\nX : y\r\n\r\n"), 400, "space_before_colon")
_case(17, "trailer-obs-fold", _chunked(b"0\r\nX: y\r\n z\r\n\r\n"), 400, "obs_fold")
_case(17, "trailer-lf", _chunked(b"0\r\nX: y\n\r\n"), 400, "bare_lf")
_case(17, "trailer-ctl", _chunked(b"0\r\nX: \x07\r\n\r\n"), 400, "control_byte")
_case(17, "trailer-request", _chunked(b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), 400, "missing_colon")
_case(17, "trailer-too-many", _chunked(b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"), 431, "too_many_fields")
_case(17, "trailer-field-too-large", _chunked(b"0\r\nX: " + b"y" * 16384 + b"\r\n\r\n"), 431, "field_too_large")
_case(
    17,
    "trailers-too-large",
    _chunked(b"0\r\n" + (b"X: " + b"y" * 9000 + b"\r\n") * 4 + b"\r\n"),
    431,
    "headers_too_large",
)
_case(17, "trailer-truncated", _chunked(b"0\r\nX: y\r\n"), 400, "body_truncated")

# R18: nothing after the last message, nothing after an error
_case(18, "after-close", _get(b"Connection: close") + _NEXT, "accept", before=1)
_case(18, "after-close-garbage", _get(b"Connection: close") + b"\x00\x01\n\n", "accept", before=1)
_case(18, "after-close-body", _post(b"Content-Length: 2", b"Connection: close", body=b"hi" + _NEXT), "accept", before=1)
_case(
    18,
    "after-close-chunked",
    _post(b"Transfer-Encoding: chunked", b"Connection: close", body=_LAST + _NEXT),
    "accept",
    before=1,
)
_case(18, "after-close-list", _get(b"Connection: keep-alive, CLOSE") + _NEXT, "accept", before=1)
_case(18, "after-1.0", _get(first=b"GET / HTTP/1.0") + _NEXT, "accept", before=1)
_case(18, "after-1.0-keep-alive", _get(b"Connection: keep-alive", first=b"GET / HTTP/1.0") + _NEXT, "accept", before=1)
_case(18, "after-error", _get(b"X : y") + _NEXT, 400, "space_before_colon")
_case(18, "after-good-and-error", _PLAIN + _get(b"X : y") + _NEXT, 400, "space_before_colon", before=1)
_case(18, "three-pipelined", _PLAIN * 3, "accept", before=3)
_case(
    18,
    "pipelined-mixed",
    _PLAIN + _chunked(b"1\r\nx\r\n" + _LAST) + _post(b"Content-Length: 2", body=b"hi") + _PLAIN,
    "accept",
    before=4,
)
_case(18, "early-data-as-body", _post(b"Content-Length: 3", body=_NEXT[:3]) + _PLAIN, "accept", before=2)

# R19: upgrades
_WS = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
_V13 = b"Sec-WebSocket-Version: 13"
_case(19, "websocket", _get(*_WS, _V13), "accept")
_case(19, "websocket-list", _get(b"Connection: keep-alive, upgrade", b"Upgrade: h2c, WebSocket", _V13), "accept")
_case(
    19,
    "no-connection-upgrade",
    _post(b"Upgrade: websocket", b"Content-Length: 2", body=b"hi"),
    "accept",
    note="not asked for",
)
_case(
    19,
    "unknown-protocol",
    _get(b"Connection: upgrade", b"Upgrade: h2c", b"HTTP2-Settings: x"),
    "accept",
    note="ignored",
)
_case(
    19,
    "unknown-protocol-body",
    _post(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 2", body=b"hi"),
    "accept",
)
_case(19, "with-length", _get(*_WS, _V13, b"Content-Length: 5", body=b"hello"), 400, "upgrade_with_body")
_case(19, "with-chunked", _get(*_WS, _V13, b"Transfer-Encoding: chunked", body=_LAST), 400, "upgrade_with_body")
_case(19, "post-with-body", _post(*_WS, _V13, b"Content-Length: 5", body=b"hello"), 400, "upgrade_with_body")
_case(19, "with-zero-length", _get(*_WS, _V13, b"Content-Length: 0"), "accept")
_case(19, "post", _post(*_WS, _V13), "accept", note="ignored: only GET upgrades")
_case(19, "1.0", _get(*_WS, first=b"GET / HTTP/1.0"), "accept", note="ignored (RFC 9110 7.8)")
_case(19, "version-8", _get(*_WS, b"Sec-WebSocket-Version: 8"), 426, "websocket_version")
_case(
    19,
    "minor-1.2",
    _get(*_WS, _V13, first=b"GET / HTTP/1.2"),
    "accept",
)
_case(19, "version-missing", _get(*_WS), 426, "websocket_version")

# R20: Expect
_case(20, "continue", _post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi"), "accept")
_case(20, "continue-case", _post(b"Expect: 100-CONTINUE", b"Content-Length: 2", body=b"hi"), "accept")
_case(20, "continue-no-body", _get(b"Expect: 100-continue"), "accept")
_case(20, "continue-1.0", _post(b"Expect: 100-continue", b"Content-Length: 2", body=b"hi", version=b"1.0"), "accept")
_case(20, "other", _post(b"Expect: 200-ok", b"Content-Length: 2", body=b"hi"), 417, "unknown_expectation")
_case(20, "empty", _post(b"Expect:", b"Content-Length: 2", body=b"hi"), 417, "unknown_expectation")
_case(20, "list", _post(b"Expect: 100-continue, x", b"Content-Length: 2", body=b"hi"), 417, "unknown_expectation")
_case(20, "te-field", _get(b"TE: trailers", b"Trailer: X"), "accept")
