"""Every reason to refuse a request: a stable word, its status, and the text for the client.

The word goes to logs and counters. The text goes to the client and repeats no byte of the request (R26). No
other place chooses the status for a bad request.
"""

from __future__ import annotations

from passenger_trio.errors import RequestError

__all__ = ["REFUSALS", "refuse"]

REFUSALS: dict[str, tuple[int, str]] = {
    # Lines (R1, R7, R8)
    "bare_lf": (400, "A line ends in LF without CR."),
    "bare_cr": (400, "There is a CR without LF."),
    "control_byte": (400, "There is a control character where none may be."),
    "request_line_too_long": (414, "The request line is too long."),
    "field_too_large": (431, "A header field is too large."),
    "headers_too_large": (431, "The header fields are too large together."),
    "too_many_fields": (431, "There are too many header fields."),
    "head_truncated": (400, "The connection ended inside the request head."),
    # The request line (R2, R3, R4)
    "bad_request_line": (400, "The request line is not a method, a target and a version."),
    "bad_version": (400, "The protocol version is not HTTP."),
    "version_not_supported": (505, "Only HTTP/1 is spoken here."),
    "bad_method": (400, "The method is not a token."),
    "unknown_method": (501, "The method is not one that is served here."),
    "connect_refused": (501, "This server is no proxy."),
    "bad_target": (400, "The request target cannot be used."),
    # Fields (R5, R7, R10)
    "obs_fold": (400, "A header field is continued on a second line."),
    "missing_colon": (400, "A header field has no colon."),
    "empty_name": (400, "A header field has no name."),
    "space_before_colon": (400, "There is white space between a field name and its colon."),
    "bad_name": (400, "A field name is not a token."),
    "duplicate_field": (400, "A field that may occur once is repeated."),
    "missing_host": (400, "There is no Host field."),
    "bad_host": (400, "The Host is not a host name with or without a port."),
    # Framing (R12, R13, R14, R19, R20)
    "length_and_encoding": (400, "There are both Content-Length and Transfer-Encoding."),
    "bad_content_length": (400, "The Content-Length is not a number."),
    "body_too_large": (413, "The request body is too large."),
    "bad_transfer_encoding": (400, "The Transfer-Encoding is not the word chunked."),
    "unknown_transfer_coding": (501, "Only the transfer coding chunked is known."),
    "transfer_encoding_in_1_0": (400, "HTTP/1.0 has no Transfer-Encoding."),
    "unknown_expectation": (417, "Only the expectation 100-continue can be met."),
    "upgrade_with_body": (400, "A request for an upgrade has no body."),
    "websocket_version": (426, "Only version 13 of the WebSocket protocol is spoken here."),
    # Bodies (R15, R16, R17)
    "body_truncated": (400, "The connection ended inside the request body."),
    "bad_chunk_size": (400, "A chunk size is not a hexadecimal number."),
    "bad_chunk_extension": (400, "A chunk extension is malformed."),
    "chunk_line_too_long": (400, "A chunk's first line is too long."),
    "chunk_extensions_too_large": (400, "The chunk extensions are too large together."),
    "bad_chunk_end": (400, "The data of a chunk is not followed by CRLF."),
    "tiny_chunks": (400, "The chunks are too many and too small."),
    "forbidden_trailer": (400, "A trailer field is not allowed as one."),
    # Time, and where the request goes
    "header_timeout": (408, "The header of the request did not arrive in time."),
    "body_timeout": (408, "The body of the request did not arrive in time."),
    "no_application": (404, "No application is mounted at this path."),
    "websocket_key": (400, "The Sec-WebSocket-Key is not 16 bytes in base64."),
    # The two readers, and the end
    "refused_by_h11": (400, "The request is malformed."),
    "readers_disagree": (400, "The request can be read in two ways."),
    "connection_closing": (400, "The connection is closing."),
}

_MORE_FIELDS: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "websocket_version": ((b"Upgrade", b"websocket"), (b"Sec-WebSocket-Version", b"13")),
}


def refuse(code: str) -> RequestError:
    """The error for ``code``, to be raised."""
    status, text = REFUSALS[code]
    return RequestError(status, code, text, headers=_MORE_FIELDS.get(code, ()))
