"""A WSGI application under lint and faults: see ``wrap``.

What a server treats specially stays what it is, unless a fault is armed: a list of one item (whose
length becomes the Content-Length), a ``wsgi.file_wrapper`` (which is sent by the kernel).
"""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Iterator

__all__ = ["Wrapper"]

_points: Any = sys.modules["passenger_harness_fault_points"]
_rules: Any = sys.modules["passenger_harness_wsgi_rules"]
_findings: Any = sys.modules["passenger_harness_findings"]
_times: Any = sys.modules["passenger_harness_times"]


def _point(name: str, path: str) -> None:
    fault = _points.claim(name, path)
    if fault is not None:
        _points.perform(fault)


class Wrapper:
    """The application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = Request(environ, start_response)
        try:
            return self._call(environ, request)
        except BaseException as error:
            request.on_over(error)
            raise

    def _call(self, environ: dict[str, Any], request: Request) -> Any:
        path = environ.get("PATH_INFO", "")
        _point("head", path)
        environ["wsgi.input"] = Input(environ["wsgi.input"], request.add)
        environ["wsgi.errors"] = Errors(environ["wsgi.errors"], request.add)
        iterable = self.app(environ, request.start_response)
        if iterable is None or isinstance(iterable, (str, bytes)):
            request.add("wsgi.iterable", f"the application returned {type(iterable).__name__}: {iterable!r:.100}")
            request.on_over(None)
            return iterable
        if not _points.is_anything_armed():
            if type(iterable) in (list, tuple):
                for piece in iterable:
                    request.on_piece(piece)
                if not request.started:
                    request.add("wsgi.start-missing", "the application has returned and not called start_response")
                request.on_end()
                request.on_over(None)
                return iterable
            if isinstance(iterable, environ.get("wsgi.file_wrapper") or ()):
                request.on_over(None)
                return iterable
            return Body(iterable, request)
        return BodyWithPoints(iterable, request, path)


class Request:
    """What the application has done in this request."""

    def __init__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        self._start_response = start_response
        method, path = environ.get("REQUEST_METHOD", ""), environ.get("PATH_INFO", "")
        self._id = environ.get("HTTP_X_REQUEST_ID", "")
        self._begun = time.time()
        self.add = _findings.Recorder(_rules.RULES, f"{method} {path}", self._id).add
        self._is_head = method == "HEAD"
        self.started = False
        self._length: int | None = None
        self._sent = 0

    def start_response(self, *arguments: Any, **named: Any) -> Callable[[Any], None]:
        if named:
            self.add("wsgi.start-arguments", f"called with the named arguments {', '.join(named)}")
            arguments = (*arguments, *named.values())
        _rules.check_start(arguments, self.add)
        if self.started and (len(arguments) < 3 or arguments[2] is None):
            self.add("wsgi.start-twice", "called a second time without exc_info")
        self.started = True
        self._length = _length(arguments[0], arguments[1]) if len(arguments) > 1 else None
        write = self._start_response(*arguments)

        def checked_write(piece: Any) -> None:
            self.on_piece(piece)
            write(piece)

        return checked_write

    def on_piece(self, piece: Any) -> None:
        _rules.check_body_type(piece, self.add)
        self._sent += len(piece) if isinstance(piece, bytes) else 0

    def on_over(self, raised: BaseException | None) -> None:
        """The application is done with the request."""
        _times.note(self._id, self._begun, raised)

    def on_end(self) -> None:
        """The body is complete."""
        if self._length is not None and not self._is_head and self._sent != self._length:
            self.add("wsgi.content-length", f"Content-Length is {self._length}, and the body has {self._sent} bytes")


def _length(status: Any, headers: Any) -> int | None:
    """The length that the application has promised."""
    if str(status)[:3] in ("204", "304"):
        return None
    try:
        return next((int(value) for name, value in headers if name.lower() == "content-length"), None)
    except (ValueError, TypeError, AttributeError):
        return None  # another rule has a finding


class Body:
    """The iterable of the application."""

    def __init__(self, iterable: Any, request: Request) -> None:
        self._iterable = iterable
        self._request = request
        self._raised: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._pieces()
        except BaseException as error:
            self._raised = error
            raise

    def _pieces(self) -> Iterator[Any]:
        first = True
        for piece in self._iterable:
            if first and not self._request.started:
                self._request.add("wsgi.start-missing", "the iterable yields, and start_response was not called")
            first = False
            self._request.on_piece(piece)
            yield piece
        self._request.on_end()

    def close(self) -> None:
        raised, self._raised = self._raised, None  # else a cycle keeps what the application has in hand
        self._request.on_over(None if isinstance(raised, GeneratorExit) else raised)
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()


class BodyWithPoints(Body):
    """A body under a fault: the first piece comes in two, and the last byte alone, so that there is
    a moment in the middle and one before the end, whatever the application yields.
    """

    def __init__(self, iterable: Any, request: Request, path: str) -> None:
        super().__init__(iterable, request)
        self._path = path

    def __iter__(self) -> Iterator[Any]:
        held = b""
        in_body = False
        for piece in super().__iter__():
            if not isinstance(piece, bytes) or not piece:
                yield piece
                continue
            if not in_body:
                in_body = True
                half = len(piece) // 2
                yield piece[:half] or piece
                _point("mid_body", self._path)
                piece = piece[half:] if half else b""
            whole = held + piece
            held = whole[-1:]
            yield whole[:-1]
        _point("before_end", self._path)
        if held:
            yield held

    def close(self) -> None:
        # The server closes what it has sent to the end.
        _point("after_end", self._path)
        super().close()


class Input:
    """``wsgi.input``"""

    def __init__(self, inner: Any, add: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._add = add

    def read(self, *arguments: Any) -> bytes:
        if len(arguments) != 1:
            self._add("wsgi.input", "read() without a size")
        data: bytes = self._inner.read(*arguments)
        return data

    def readline(self, *arguments: Any) -> bytes:
        data: bytes = self._inner.readline(*arguments)
        return data

    def readlines(self, *arguments: Any) -> list[bytes]:
        lines: list[bytes] = self._inner.readlines(*arguments)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def close(self) -> None:
        self._add("wsgi.input", "close() was called")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Errors:
    """``wsgi.errors``"""

    def __init__(self, inner: Any, add: Callable[[str, str], None]) -> None:
        self._inner = inner
        self._add = add

    def write(self, text: Any) -> Any:
        if not isinstance(text, str):
            self._add("wsgi.errors", f"write() of {type(text).__name__}")
        return self._inner.write(text)

    def close(self) -> None:
        self._add("wsgi.errors", "close() was called")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
