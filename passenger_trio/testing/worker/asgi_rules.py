"""The rules of ASGI as automatons: which message may come next, and what it must contain.

Pure: an automaton is told what the application received, sent, and how it returned, and names each
rule that was broken. It lets everything through. ``asgi_wrapper`` stands between an application and
the server with it. The rules follow the specification's "Specification Details", "HTTP & WebSocket
ASGI Message Format" (2.5) and "Lifespan Protocol" (2.0).
"""

from __future__ import annotations

from typing import Any, Callable

__all__ = ["RULES", "Http", "Lifespan", "WebSocket", "automaton"]

RULES = {
    "asgi.message": 'ASGI, "Events": a message is a dict with a str member "type", and of a type that its scope knows.',
    "asgi.start-type": 'ASGI HTTP, "Response Start": status is an int; headers is an iterable of [name, value], both'
    " bytes.",
    "asgi.header-name": 'ASGI HTTP, "Response Start": header names are lower-case bytes, and pseudo headers (":status")'
    " must not be there.",
    "asgi.transfer-encoding": 'ASGI HTTP, "Response Start": the server decides on Transfer-Encoding; an application'
    " should not send it.",
    "asgi.body-type": 'ASGI HTTP, "Response Body": body is bytes, more_body is a bool.',
    "asgi.body-before-start": 'ASGI HTTP, "Response Start": http.response.start must be sent before'
    " http.response.body.",
    "asgi.start-twice": 'ASGI HTTP, "Response Start": there is one http.response.start for a request.',
    "asgi.after-end": 'ASGI HTTP, "Response Body": a body message without more_body=True ends the response; no message'
    " may follow.",
    "asgi.incomplete": 'ASGI HTTP, "Response Body": a response ends with a body message without more_body=True; this'
    " application returned before that.",
    "asgi.content-length": "RFC 9110, section 8.6: Content-Length is the length of the body. Less leaves the client"
    " waiting, more is another response to it.",
    "asgi.trailers": 'ASGI, "HTTP Trailers": trailers follow the body, and only if http.response.start had'
    " trailers=True and the scope has the extension.",
    "asgi.after-disconnect": 'ASGI HTTP 2.4, "Disconnected Client": the client is gone. An application that has received'
    " the disconnect should stop; send() may raise OSError.",
    "asgi.accept": 'ASGI WebSocket, "Accept": websocket.accept answers websocket.connect, once, and before any other'
    " message of the WebSocket.",
    "asgi.subprotocol": 'ASGI WebSocket, "Accept": subprotocol is None or one of those that the client offered.',
    "asgi.send-before-accept": 'ASGI WebSocket, "Send": a WebSocket carries messages only between websocket.accept and'
    " websocket.close.",
    "asgi.websocket-send": 'ASGI WebSocket, "Send": exactly one of bytes and text is there and not None; bytes is bytes,'
    " text is str.",
    "asgi.websocket-close": 'ASGI WebSocket, "Close": code is an int that may be sent (1000, 1001, 1003, 1007 to 1014,'
    " 3000 to 4999), reason is a str of at most 123 bytes; there is one close.",
    "asgi.websocket-response": 'ASGI, "WebSocket Denial Response": an HTTP response to a handshake needs the extension'
    " websocket.http.response, and comes before accept.",
    "asgi.websocket-unanswered": 'ASGI WebSocket, "Connect": the application answers the handshake with accept, close or'
    " a response; this one returned without.",
    "asgi.lifespan": "ASGI Lifespan: lifespan.startup is answered once with startup.complete or startup.failed,"
    " lifespan.shutdown once with shutdown.complete or shutdown.failed, each after it was received.",
}

Add = Callable[[str, str], None]


class Automaton:
    """What one run of the application has received and sent."""

    types: tuple[str, ...] = ()
    """The messages that it may send."""

    def __init__(self, scope: dict[str, Any], add: Add) -> None:
        self.scope = scope
        self.add = add
        self.gone = False
        """It has received the disconnect."""
        self._told = False

    def on_receive(self, message: dict[str, Any]) -> None:
        self.gone = self.gone or message["type"] in ("http.disconnect", "websocket.disconnect")

    def on_send(self, message: Any) -> None:
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            self.add("asgi.message", f"it sent {message!r:.200}")
        elif message["type"] not in self.types:
            self.add("asgi.message", f"it sent {message['type']!r} in the scope {self.scope.get('type')!r}")
        else:
            if self.gone and not self._told:
                self._told = True
                self.add("asgi.after-disconnect", f"it sent {message['type']} after it had received the disconnect")
            self.on_known(message)

    def on_known(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def on_return(self) -> None:
        """The application has returned, and raised nothing."""


class Response:
    """An HTTP response: that of a request, or the refusal of a WebSocket."""

    def __init__(self, scope: dict[str, Any], add: Add, prefix: str) -> None:
        self._add = add
        self._prefix = prefix
        self._is_head = scope.get("method") == "HEAD"
        self._takes_trailers = "http.response.trailers" in scope.get("extensions", {})
        self.started = False
        self.ended = False
        self._trailers = False
        self._body_ended = False
        self._length: int | None = None
        self._sent = 0

    def on_message(self, message: dict[str, Any]) -> None:
        kind = message["type"][len(self._prefix) :]
        if self.ended and (kind not in ("early_hint", "trailers") or (kind == "trailers" and self._trailers)):
            self._add("asgi.after-end", f"it sent {message['type']} after the end of the response")
        elif kind == "start":
            self._on_start(message)
        elif kind == "body":
            self._on_body(message)
        elif kind == "trailers":
            self._on_trailers(message)

    def _on_start(self, message: dict[str, Any]) -> None:
        if self.started:
            self._add("asgi.start-twice", f"it sent {message['type']} twice")
        self.started = True
        status = message.get("status")
        if not isinstance(status, int) or isinstance(status, bool):
            self._add("asgi.start-type", f"status is {status!r}")
        self._trailers = bool(message.get("trailers"))
        lengths = []
        try:
            fields = [(name, value) for name, value in message.get("headers", ())]
        except (TypeError, ValueError):
            self._add("asgi.start-type", f"headers is {message.get('headers')!r:.200}")
            fields = []
        for name, value in fields:
            if not isinstance(name, bytes) or not isinstance(value, bytes):
                self._add("asgi.start-type", f"the header {name!r}: {value!r:.100} is not of bytes")
                continue
            if name != name.lower() or name.startswith(b":"):
                self._add("asgi.header-name", f"the header {name!r}")
            if name.lower() == b"transfer-encoding":
                self._add("asgi.transfer-encoding", f"{name.decode('latin-1')}: {value.decode('latin-1')}")
            if name.lower() == b"content-length" and value.isdigit():
                lengths.append(int(value))
        if lengths and status not in (204, 304) and not self._is_head:
            self._length = lengths[0]

    def _on_body(self, message: dict[str, Any]) -> None:
        if not self.started:
            self._add("asgi.body-before-start", f"it sent {message['type']} first")
        body, more = message.get("body", b""), message.get("more_body", False)
        if not isinstance(body, bytes):
            self._add("asgi.body-type", f"body is of the type {type(body).__name__}")
        if not isinstance(more, bool):
            self._add("asgi.body-type", f"more_body is {more!r}")
        if self._body_ended:
            self._add("asgi.after-end", f"it sent {message['type']} after the end of the body")
            return
        try:
            self._sent += len(body)
        except TypeError:
            return
        if not more:
            self._body_ended = True
            self.ended = not self._trailers
            if self._length is not None and self._sent != self._length:
                self._add("asgi.content-length", f"content-length is {self._length}, the body has {self._sent} bytes")

    def _on_trailers(self, message: dict[str, Any]) -> None:
        if not self._takes_trailers:
            self._add("asgi.trailers", "the scope has no extension http.response.trailers")
        elif not self._trailers:
            self._add("asgi.trailers", "http.response.start had no trailers=True")
        elif not self._body_ended:
            self._add("asgi.trailers", "the body has not ended")
        if not message.get("more_trailers", False):
            self.ended = True


class Http(Automaton):
    types = (
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.push",
        "http.response.zerocopysend",
        "http.response.pathsend",
        "http.response.debug",
    )

    def __init__(self, scope: dict[str, Any], add: Add) -> None:
        super().__init__(scope, add)
        self._response = Response(scope, add, "http.response.")

    def on_known(self, message: dict[str, Any]) -> None:
        name = message["type"].rpartition(".")[2]
        if name in ("push", "zerocopysend", "pathsend", "debug") and message["type"] not in self.scope.get(
            "extensions", {}
        ):
            self.add("asgi.message", f"it sent {message['type']}, and the scope has no such extension")
            return
        self._response.on_message(message)

    def on_return(self) -> None:
        if not self._response.ended and not self.gone:
            self.add("asgi.incomplete", "it returned, and the response is not complete")


class WebSocket(Automaton):
    types = (
        "websocket.accept",
        "websocket.send",
        "websocket.close",
        "websocket.http.response.start",
        "websocket.http.response.body",
    )

    def __init__(self, scope: dict[str, Any], add: Add) -> None:
        super().__init__(scope, add)
        self._connected = self._accepted = self._closed = False
        self._response = Response(scope, add, "websocket.http.response.")

    def on_receive(self, message: dict[str, Any]) -> None:
        super().on_receive(message)
        self._connected = self._connected or message["type"] == "websocket.connect"

    def on_known(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind.startswith("websocket.http.response."):
            if "websocket.http.response" not in self.scope.get("extensions", {}) or self._accepted:
                self.add("asgi.websocket-response", f"it sent {kind}" + (" after accept" if self._accepted else ""))
            self._response.on_message(message)
        elif kind == "websocket.accept":
            if not self._connected or self._accepted or self._closed:
                self.add("asgi.accept", "it accepted " + ("twice" if self._accepted else "out of turn"))
            self._accepted = True
            chosen = message.get("subprotocol")
            if chosen is not None and chosen not in self.scope.get("subprotocols", ()):
                self.add("asgi.subprotocol", f"{chosen!r} was not offered: {list(self.scope.get('subprotocols', ()))}")
        elif kind == "websocket.send":
            self._on_send(message)
        else:
            self._on_close(message)

    def _on_send(self, message: dict[str, Any]) -> None:
        if not self._accepted or self._closed:
            self.add("asgi.send-before-accept", "sent after close" if self._closed else "sent before accept")
        binary, text = message.get("bytes"), message.get("text")
        if (binary is None) == (text is None):
            self.add("asgi.websocket-send", "both bytes and text" if text is not None else "neither bytes nor text")
        elif not isinstance(binary, (bytes, type(None))) or not isinstance(text, (str, type(None))):
            self.add("asgi.websocket-send", f"bytes is {type(binary).__name__}, text is {type(text).__name__}")

    def _on_close(self, message: dict[str, Any]) -> None:
        if self._closed:
            self.add("asgi.websocket-close", "closed twice")
        self._closed = True
        code, reason = message.get("code", 1000), message.get("reason")
        may_be_sent = code in (1000, 1001, 1002, 1003) or (
            isinstance(code, int) and (1007 <= code <= 1014 or 3000 <= code <= 4999)
        )
        if not may_be_sent:
            self.add("asgi.websocket-close", f"the code is {code!r}")
        if reason is not None and (not isinstance(reason, str) or len(reason.encode()) > 123):
            self.add("asgi.websocket-close", f"the reason is {reason!r:.200}")

    def on_return(self) -> None:
        if not (self._accepted or self._closed or self._response.started or self.gone):
            self.add("asgi.websocket-unanswered", "it returned, and the handshake is not answered")


class Lifespan(Automaton):
    types = (
        "lifespan.startup.complete",
        "lifespan.startup.failed",
        "lifespan.shutdown.complete",
        "lifespan.shutdown.failed",
    )

    def __init__(self, scope: dict[str, Any], add: Add) -> None:
        super().__init__(scope, add)
        self._received: set[str] = set()
        self._answered: set[str] = set()

    def on_receive(self, message: dict[str, Any]) -> None:
        self._received.add(message["type"])

    def on_known(self, message: dict[str, Any]) -> None:
        event = message["type"].rpartition(".")[0]
        if event not in self._received:
            self.add("asgi.lifespan", f"it sent {message['type']} and has not received {event}")
        if event in self._answered:
            self.add("asgi.lifespan", f"it answered {event} twice")
        self._answered.add(event)


def automaton(scope: dict[str, Any], add: Add) -> Automaton | None:
    """The automaton of a scope; None: its type is not known."""
    kinds: dict[str, type[Automaton]] = {"http": Http, "websocket": WebSocket, "lifespan": Lifespan}
    kind = kinds.get(scope.get("type", ""))
    return None if kind is None else kind(scope, add)
