"""``TestClient``: a drop-in for Starlette's and FastAPI's that sends its requests to a real server (TH10)::

    from passenger_trio.testing.starlette import TestClient

It is an ``httpx2.Client`` too, and has ``websocket_connect``. What it cannot do is what no client can: an exception of the
application is a response with status 500 here, and the application's memory is another process's.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urljoin, urlsplit

from starlette.websockets import WebSocketDisconnect

from passenger_trio.testing.clients import WebSocket, WebSockets, httpx_module, over_unix_socket
from passenger_trio.testing.process_wide import DropIn

__all__ = ["TestClient", "WebSocketTestSession"]

_httpx: Any = httpx_module()
_BEHIND_TLS = [(b"X-Forwarded-Proto", b"https")]
"""The server stands as in production, behind a proxy that ends TLS and says so. It believes its own user on its Unix socket."""


class _Transport(_httpx.BaseTransport):  # type: ignore[misc]
    """Sends to the application, which it starts when it is first needed."""

    def __init__(self, app: object, options: dict[str, Any]) -> None:
        self.served = DropIn(app, options, self.close)
        self._transport: Any = None

    def handle_request(self, request: Any) -> Any:
        if self._transport is None:
            self._transport = _httpx.HTTPTransport(**over_unix_socket(self.served.live_app.socket))
        if request.url.scheme == "https":
            request = _httpx.Request(
                request.method,
                request.url.copy_with(scheme="http"),
                headers=[*request.headers.raw, *_BEHIND_TLS],
                stream=request.stream,
                extensions=request.extensions,
            )
        return self._transport.handle_request(request)

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


class TestClient(_httpx.Client):  # type: ignore[misc]
    """As Starlette's own, over a socket. The application is forked from this process at the first request of a test."""

    __test__ = False

    def __init__(
        self,
        app: object,
        base_url: str = "http://testserver",
        raise_server_exceptions: bool = True,
        root_path: str = "",
        backend: str = "asyncio",
        backend_options: dict[str, Any] | None = None,
        cookies: Any = None,
        headers: dict[str, str] | None = None,
        follow_redirects: bool = True,
        client: tuple[str, int] = ("testclient", 50000),
    ) -> None:
        """As Starlette's. ``raise_server_exceptions``, ``backend_options`` and ``client`` mean nothing to a real server."""
        self.app = app
        options: dict[str, Any] = {"loop": backend} if backend == "trio" else {}
        if root_path:
            options["base_uri"] = root_path
        transport = self._passenger = _Transport(app, options)
        self._websockets = WebSockets(lambda: transport.served.live_app.socket)
        fields = {"user-agent": "testclient", **(headers or {})}
        super().__init__(
            base_url=base_url,
            headers=fields,
            follow_redirects=follow_redirects,
            cookies=cookies,
            transport=transport,
        )

    def __enter__(self) -> TestClient:
        self._passenger.served.live_app  # noqa: B018  the lifespan starts
        super().__enter__()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self._websockets.close()
        self._passenger.served.end()
        super().__exit__(*arguments)

    def websocket_connect(self, url: str, subprotocols: Any = None, **members: Any) -> WebSocketTestSession:
        """A WebSocket, to be used in ``with``."""
        target = urlsplit(urljoin(str(self.base_url), url))
        path = target.path + (f"?{target.query}" if target.query else "")
        request = self.build_request(
            "GET", path, **{k: v for k, v in members.items() if k in ("headers", "cookies", "params")}
        )
        skipped = ("host", "connection", "upgrade", "accept-encoding", "content-length")
        fields = [(name, value) for name, value in request.headers.raw if name.decode().lower() not in skipped]
        fields += _BEHIND_TLS if target.scheme in ("https", "wss") else []
        sent = request.url.raw_path.decode()
        options = {"subprotocols": list(subprotocols or ()) or None, "extra_headers": fields}
        return WebSocketTestSession(self._websockets, sent, options)


class WebSocketTestSession:
    """As Starlette's."""

    __test__ = False

    def __init__(self, websockets: WebSockets, path: str, options: dict[str, Any]) -> None:
        self._websockets = websockets
        self._path = path
        self._options = options
        self._websocket: WebSocket | None = None

    def __enter__(self) -> WebSocketTestSession:
        import trio_websocket

        try:
            self._websocket = self._websockets(self._path, **self._options)
        except trio_websocket.ConnectionRejected as refusal:
            raise WebSocketDisconnect(1006, f"refused with status {refusal.status_code}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._websockets.close()

    @property
    def accepted_subprotocol(self) -> str | None:
        return self._open.connection.subprotocol or None

    @property
    def _open(self) -> WebSocket:
        assert self._websocket is not None, "use it in a with block"
        return self._websocket

    def send_text(self, data: str) -> None:
        self._call(self._open.send, data)

    def send_bytes(self, data: bytes) -> None:
        self._call(self._open.send, data)

    def send_json(self, data: Any, mode: str = "text") -> None:
        text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
        self._call(self._open.send, text if mode == "text" else text.encode())

    def receive_text(self) -> str:
        return str(self._call(self._open.receive))

    def receive_bytes(self) -> bytes:
        data: bytes = self._call(self._open.receive)
        return data

    def receive_json(self, mode: str = "text") -> Any:
        return json.loads(self._call(self._open.receive))

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        self._open.close(code, reason)

    def _call(self, function: Any, *arguments: Any) -> Any:
        import trio_websocket

        try:
            return function(*arguments)
        except trio_websocket.ConnectionClosed as closed:
            reason = closed.reason
            raise WebSocketDisconnect(
                reason.code if reason else 1006, (reason.reason or "") if reason else ""
            ) from None
