"""Which requests may be sent to a second process after a first one received them (``--retry``, R30): by their method."""

from __future__ import annotations

__all__ = ["retried_methods"]

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""RFC 9110 section 9.2.1."""
_RETRIED = {"off": frozenset[bytes](), "safe": _SAFE, "idempotent": _SAFE | {b"PUT", b"DELETE"}}
"""By ``--retry``. Idempotent: RFC 9110 section 9.2.2."""


def retried_methods(retry: str) -> frozenset[bytes]:
    """:param retry: the value of ``--retry``."""
    return _RETRIED[retry]
