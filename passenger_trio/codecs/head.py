"""The head of a request as a value, and the limits it was checked against.

A ``Head`` says what the request is, not how it was written: both readers make the same value from the same
bytes. It is made once per request, so it is a plain record with slots.
"""

from __future__ import annotations

import attrs

from passenger_trio.codecs.forwarded_client import Origin
from passenger_trio.codecs.request_id import NO_REQUEST_ID, RequestId
from passenger_trio.late_classes import define, frozen
from passenger_trio.options import ServerOptions

__all__ = ["Head", "HeaderCache", "HttpLimits"]


@define(eq=False)
class HeaderCache:
    """The common part of requests of one connection whose field lines are equal to the last byte, as those of browsers and proxies often are."""

    raw: bytes
    """The field lines with the empty line behind them."""
    fields: list[tuple[bytes, bytes]]
    host: bytes
    content_length: int | None
    keep_alive: bool
    field_pairs: bytes | None = None
    """The result of ``cgi_fields.cgi_pairs`` for these fields, once it was computed."""
    origin: Origin | None = None
    """What the fields say about the client, once that was read."""
    request_id: RequestId = NO_REQUEST_ID
    """What the fields say about the request, once that was read."""
    origin_read: bool = False


@define(eq=True)
class Head:
    """A request head that was accepted."""

    method: bytes
    target: bytes
    """As it came: ``/a?b``, ``http://host/a?b`` or ``*``."""
    path: bytes
    """Percent-encoded as it came; of an absolute target its path; ``*`` for ``OPTIONS *``."""
    query: bytes
    """Without the question mark."""
    version: bytes
    """``1.0`` or ``1.1``: the version that both sides use. A client of HTTP/1.2 uses 1.1 with us."""
    host: bytes
    """The requested authority: of an absolute target, else of the Host field. Empty if the field is empty, or in HTTP/1.0
    if there is none.
    """
    fields: list[tuple[bytes, bytes]]
    """In order. Names as received; values without white space around them."""
    content_length: int | None = None
    chunked: bool = False
    expect_continue: bool = False
    """An HTTP/1.1 client waits for ``100 Continue`` (R20)."""
    keep_alive: bool = True
    """The client wants the connection to live on; never with HTTP/1.0."""
    upgrade: bytes = b""
    """The protocol to upgrade to, in lower case; empty: the client asks for none that is known (R19)."""

    header_cache: HeaderCache | None = attrs.field(default=None, eq=False, repr=False)
    """Shared with other requests of the connection. (They all have the same ``Peer``.)"""

    origin: Origin | None = attrs.field(default=None, eq=False, repr=False)
    """What a trusted proxy says about the client. ``host`` is then the host that the client has asked for (``init_request``)."""

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)


@frozen
class HttpLimits:
    """How large a request may be (R8, R13). ``max_request_body`` 0 is no limit."""

    max_request_line: int = 8192
    max_header_size: int = 32768
    max_header_field_size: int = 16384
    max_header_fields: int = 100
    max_request_body: int = 128 * 1024**2
    methods: frozenset[bytes] = frozenset()
    """The methods that are served; empty: all."""
    plain_head: int = attrs.field(init=False)
    """A head up to this size cannot exceed any of the three limits in bytes. So this is the only limit that the
    plain-request parser checks.
    """

    @plain_head.default
    def _(self) -> int:
        return min(self.max_request_line, self.max_header_size, self.max_header_field_size)

    @classmethod
    def from_options(cls, options: ServerOptions) -> HttpLimits:
        return cls(
            max_request_line=options.max_request_line,
            max_header_size=options.max_header_size,
            max_header_field_size=options.max_header_field_size,
            max_header_fields=options.max_header_fields,
            max_request_body=options.max_request_body,
            methods=frozenset(method.encode() for method in options.allowed_methods),
        )
