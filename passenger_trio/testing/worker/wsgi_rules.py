"""The rules of PEP 3333 that an application can break, and the checks of ``wsgiref.validate`` that
see it.

``wsgiref.validate`` raises; this records instead, so that an application behaves as it does without
the lint. Where the standard library has a check it is that check which is run. Each rule is named
after the part of the PEP that it comes from.
"""

from __future__ import annotations

import warnings
from typing import Any, Callable
from wsgiref import validate as _validate

validate: Any = _validate
"""Its checks are functions of the module, and not in its ``__all__``."""

__all__ = ["RULES", "check_body_type", "check_start", "complaint"]

RULES = {
    "wsgi.status": 'PEP 3333, "The start_response() Callable": the status is a native string such as "200 OK": three'
    " digits, one space, a reason, and no control characters.",
    "wsgi.headers": 'PEP 3333, "The start_response() Callable": response_headers is a list of (name, value) tuples of'
    " native strings. A name is a header name without colon, a value has no control characters, and there is no"
    ' "Status".',
    "wsgi.content-type": "wsgiref.validate: a response has a Content-Type, unless its status allows no body (204, 304);"
    " then it has none.",
    "wsgi.hop-by-hop": 'PEP 3333, "Other HTTP Features": hop-by-hop headers (Connection, Transfer-Encoding, ...) belong'
    " to the server. An application must not send them.",
    "wsgi.exc-info": 'PEP 3333, "The start_response() Callable": exc_info is None or a tuple of sys.exc_info().',
    "wsgi.start-twice": 'PEP 3333, "The start_response() Callable": calling start_response again without exc_info is a'
    " fatal error.",
    "wsgi.start-missing": 'PEP 3333, "The start_response() Callable": start_response must have been called before the'
    " iterable yields its first body bytestring.",
    "wsgi.start-arguments": 'PEP 3333, "Specification Details": start_response takes two or three positional arguments.',
    "wsgi.iterable": 'PEP 3333, "Specification Details": the application returns an iterable of bytestrings, never None,'
    " and not a single string, which would be sent byte by byte.",
    "wsgi.body-type": 'PEP 3333, "Specification Details": each item of the iterable, and each argument of write(), is'
    " bytes.",
    "wsgi.content-length": 'PEP 3333, "Handling the Content-Length Header": the application sends neither more nor less'
    " than its Content-Length.",
    "wsgi.input": 'PEP 3333, "Input and Error Streams": read() gets the size; the application must not close wsgi.input.',
    "wsgi.errors": 'PEP 3333, "Input and Error Streams": text is written to wsgi.errors; the application must not close'
    " it.",
}

_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers", "transfer-encoding")
)
"""The list of PEP 3333, which is that of ``wsgiref.util.is_hop_by_hop``. "Upgrade" is left out: it is how an
application says which protocols it would speak (RFC 9110, section 7.8)."""


def complaint(check: Callable[..., Any], *arguments: Any) -> str:
    """What a check of ``wsgiref.validate`` says, or ``""``."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            check(*arguments)
        except (AssertionError, ValueError, TypeError, IndexError, _validate.WSGIWarning) as error:
            return str(error) or "it is of the wrong type"
    return ""


def check_start(arguments: tuple[Any, ...], add: Callable[[str, str], None]) -> None:
    """The arguments of ``start_response``."""
    if len(arguments) not in (2, 3):
        add("wsgi.start-arguments", "called with %d arguments" % len(arguments))
        return
    status, headers = arguments[:2]
    details = [
        ("wsgi.status", complaint(validate.check_status, status)),
        ("wsgi.headers", complaint(validate.check_headers, headers)),
    ]
    if not details[0][1] and not details[1][1]:
        details.append(("wsgi.content-type", complaint(validate.check_content_type, status, headers)))
        for name, value in headers:
            if name.lower() in _HOP_BY_HOP:
                details.append(("wsgi.hop-by-hop", f"{name}: {value}"))
    if len(arguments) == 3:
        details.append(("wsgi.exc-info", complaint(validate.check_exc_info, arguments[2])))
    for rule, detail in details:
        if detail:
            add(rule, detail)


def check_body_type(piece: Any, add: Callable[[str, str], None]) -> None:
    if type(piece) is not bytes:
        add("wsgi.body-type", f"an item of the type {type(piece).__name__}: {piece!r:.100}")
