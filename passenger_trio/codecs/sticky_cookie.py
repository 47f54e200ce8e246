"""The cookie of sticky sessions, which sends a client to the same process again.

Pure: header fields in, header fields out. It knows the cookie's name, path and attributes, and the *route* of
a process: a random text that says nothing about the process. It never knows processes.

Laws:

* A route from a client is only looked up. With a forged route the request goes to any process, as without a route.
* The cookie is set only when it has to change, and not with every response.
* Of several cookies with the name the first counts: it has the longest path (RFC 6265, section 5.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from passenger_trio.errors import OptionError
from passenger_trio.late_classes import frozen

__all__ = ["StickyCookie"]

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token (RFC 6265, section 4.1.1)."""
_ATTRIBUTES = re.compile(r"[ -~]*")
_ROUTE = rb"=([0-9a-f]{1,64})[ \t]*(?:;|\Z)"


@frozen
class StickyCookie:
    """:raises OptionError: the name is no token, or the attributes are not printable ASCII."""

    name: str
    attributes: str
    path: bytes
    _pattern: re.Pattern[bytes] = attrs.field(init=False, repr=False, eq=False)
    _attributes: bytes = attrs.field(init=False, repr=False, eq=False)
    _is_secure: bool = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise OptionError("--sticky-sessions-cookie-name", self.name, "letters, digits and -_ only")
        if not _ATTRIBUTES.fullmatch(self.attributes):
            raise OptionError(
                "--sticky-sessions-cookie-attributes", self.attributes, "as in Set-Cookie: SameSite=None; Secure"
            )
        given = [word.strip() for word in self.attributes.split(";") if word.strip()]
        pattern = rb"(?:\A|;)[ \t]*" + re.escape(self.name.encode()) + _ROUTE
        object.__setattr__(self, "_pattern", re.compile(pattern))
        object.__setattr__(self, "_attributes", b"".join(b"; " + word.encode() for word in given))
        object.__setattr__(self, "_is_secure", any(word.lower() == "secure" for word in given))

    def read(self, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The route that a request asks for; empty: it asks for none."""
        for name, value in fields:
            if len(name) == 6 and name.lower() == b"cookie":
                match = self._pattern.search(value)
                if match is not None:
                    return match[1]
        return b""

    def field(self, route: bytes, *, secure: bool) -> tuple[bytes, bytes]:
        """The response field that sends the client to the same process again.

        :param secure: whether the client uses HTTPS. If so, the cookie must not be sent over HTTP.
        """
        own = b"; Secure" if secure and not self._is_secure else b""
        return b"Set-Cookie", b"%s=%s; Path=%s%s%s" % (self.name.encode(), route, self.path, self._attributes, own)
