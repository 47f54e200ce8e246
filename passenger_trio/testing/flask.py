"""``FlaskClient``: a drop-in for Flask's test client that sends its requests to a real server (TH10).

In a conftest.py::

    import flask
    from passenger_trio.testing.flask import FlaskClient

    flask.Flask.test_client_class = FlaskClient

Cookies, redirects and responses are Werkzeug's. What a test sees of the last request inside of ``with client:`` (``flask.request``, ``session``, ``g``) is
what the application's process had at its end, as far as that can be pickled (``flask_context``).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

import flask.testing
from werkzeug.datastructures import Headers

from passenger_trio.testing.flask_context import Asked, Tells
from passenger_trio.testing.process_wide import DropIn

__all__ = ["FlaskClient"]

_SAFE = "/:@!$&'()*+,;=~-._"
_OF_THE_CONNECTION = ("host", "content-length", "connection", "transfer-encoding")


class FlaskClient(flask.testing.FlaskClient):
    """As Flask's own, over a socket. The application is forked from this process at the first request of a test."""

    def __init__(self, *arguments: Any, **members: Any) -> None:
        super().__init__(*arguments, **members)
        self._served = DropIn(Tells(self.application), {})

    def run_wsgi_app(self, environ: dict[str, Any], buffered: bool = False) -> tuple[Iterable[bytes], str, Headers]:
        """Send the request that Werkzeug has made. It keeps the cookies of the response."""
        application = self.application
        body = environ["wsgi.input"].read()
        environ["wsgi.input"] = io.BytesIO(body)
        keep = environ.pop("werkzeug.debug.preserve_context", None)
        asked = None if keep is None else Asked(application)

        def send(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
            return self._send(environ, start_response, asked)

        vars(self)["application"] = send  # during this call, Werkzeug calls what sends
        try:
            response = super().run_wsgi_app(environ, buffered)
        finally:
            self.application = application
            told = None if asked is None else asked.read()
        if keep is not None and asked is not None:
            keep(asked.context({**environ, "wsgi.input": io.BytesIO(body)}, told))
        return response

    def _send(self, environ: dict[str, Any], start_response: Callable[..., Any], asked: Asked | None) -> list[bytes]:
        path = quote((environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1"), _SAFE) or "/"
        if environ.get("QUERY_STRING"):
            path += "?" + environ["QUERY_STRING"]
        fields = [
            (name[5:].replace("_", "-").title(), str(value))
            for name, value in environ.items()
            if name.startswith("HTTP_") and name[5:].replace("_", "-").lower() not in _OF_THE_CONNECTION
        ]
        if environ.get("CONTENT_TYPE"):
            fields.append(("Content-Type", environ["CONTENT_TYPE"]))
        if environ.get("wsgi.url_scheme") == "https":
            fields.append(("X-Forwarded-Proto", "https"))  # as a proxy that ends TLS; the server believes its own user
        if asked is not None:
            fields.append(asked.field)
        body, host = environ["wsgi.input"].read(), environ.get("HTTP_HOST", "localhost")
        with self._served.live_app.connect() as client:
            response = client.request(environ["REQUEST_METHOD"], path, fields, body, host=host)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        start_response(f"{response.status} {response.reason.decode('latin-1')}", headers)
        return [response.body]
