"""TH10: the clients in place of those of frameworks: https, as behind a proxy that ends TLS."""

from __future__ import annotations

import sqlite3
import threading

import flask
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from passenger_trio.testing.flask import FlaskClient
from passenger_trio.testing.starlette import TestClient

pytestmark = pytest.mark.os


async def facts(request: Request) -> JSONResponse:
    response = JSONResponse({"url": str(request.url), "cookies": request.cookies})
    response.set_cookie("kept", "1", secure=True)
    return response


async def scheme(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(str(websocket.url))
    await websocket.close()


def test_TH10_https_of_Starlettes_client() -> None:
    application = Starlette(routes=[Route("/", facts), WebSocketRoute("/ws", scheme)])
    with TestClient(application, base_url="https://shop.example") as client:
        assert client.get("/").json() == {"url": "https://shop.example/", "cookies": {}}
        assert client.get("/").json()["cookies"] == {"kept": "1"}, "a Secure cookie comes back over https"
        with client.websocket_connect("wss://shop.example/ws") as websocket:
            assert websocket.receive_text().startswith("wss://")
        assert client.get("http://shop.example/").json() == {"url": "http://shop.example/", "cookies": {}}


def test_TH10_https_of_Flasks_client() -> None:
    application = flask.Flask("shop")
    application.test_client_class = FlaskClient
    application.add_url_rule("/", view_func=lambda: {"url": flask.request.url})
    with application.test_client() as client:
        assert client.get("/", base_url="https://shop.example").json == {"url": "https://shop.example/"}
        assert client.get("/").json == {"url": "http://localhost/"}


def test_TH10_what_a_request_left_in_Flasks_contexts() -> None:
    """``flask.session``, ``g`` and ``request`` behind a request, as in Flask's own client. What cannot be pickled is not there."""
    application = flask.Flask("shop")
    application.secret_key = "of the test"
    application.test_client_class = FlaskClient
    with sqlite3.connect(":memory:") as database:
        database.row_factory = sqlite3.Row
        row = database.execute("SELECT 1 AS number").fetchone()

    @application.post("/<word>")
    def keep(word: str) -> str:
        flask.session["word"] = word
        flask.g.word, flask.g.row, flask.g.lock = word, row, threading.Lock()
        return flask.request.form["sent"]

    with application.test_client() as client:
        for word in ("first", "second"):
            assert client.post(f"/{word}", data={"sent": "this"}).text == "this"
            assert flask.session == {"word": word}
            assert (flask.g.word, flask.g.row) == (word, {"number": 1})
            assert "lock" not in flask.g
            assert (flask.request.path, flask.request.form["sent"]) == (f"/{word}", "this")
        assert client.get("/nowhere/at/all").status_code == 404
        assert (flask.session, "word" in flask.g) == ({"word": "second"}, False)
    assert not flask.has_request_context()
    assert application.test_client().post("/third", data={"sent": "that"}).text == "that"
    assert not flask.has_request_context()
