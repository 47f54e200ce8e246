"""Flask-SocketIO as its documentation begins, with threads; the answers name the process."""

import os

from flask import Flask
from flask_socketio import SocketIO

app = Flask(__name__)
socketio = SocketIO(app, async_mode="threading")


@app.route("/")
def index() -> str:
    return str(os.getpid())


@socketio.on("echo")
def echo(value: str) -> list[object]:
    return [value, os.getpid()]
