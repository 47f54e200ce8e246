"""What a request has left in ``flask.session`` and ``flask.g``, brought from the application's process to the test's.

Flask's own client keeps the contexts of the last request inside of ``with client:``. Here they were in another process. So the
client asks for them: with a field that names a file, into which the application's process writes what they hold. What cannot be pickled
stays there (a connection to a database), but for what is a mapping: that comes as a dict (``sqlite3.Row``).
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flask

from passenger_trio.testing.run_directory import run_directory

__all__ = ["Asked", "Tells"]

_FIELD = "Harness-Context"
_VARIABLE = "HTTP_HARNESS_CONTEXT"
_KEEP = "werkzeug.debug.preserve_context"
"""Flask calls this item of the environment while the contexts of the request are there."""


class Tells:
    """The application in its process: it tells who asks."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.pop(_VARIABLE, "")
        if not path:
            return self._application(environ, start_response)
        told: dict[str, bytes] = {}
        environ[_KEEP] = lambda context: told.update(_left())
        response = self._application(environ, start_response)
        with open(path, "wb") as file:
            pickle.dump(told, file)
        return response


def _left() -> dict[str, bytes]:
    """Of the contexts that are there: ``session`` and ``g``, each value by itself."""
    parts: dict[str, Mapping[str, Any]] = {"g": vars(flask.g._get_current_object())}
    if flask.has_request_context():
        parts["session"] = dict(flask.session)
    return {name: pickle.dumps(dict(_pickled(values))) for name, values in parts.items()}


def _pickled(values: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    for name, value in values.items():
        for form in (lambda value: value, dict):
            try:
                yield name, pickle.dumps(form(value))
                break
            except Exception:  # noqa: BLE001  whatever it is, it stays where it is
                continue


class Asked:
    """The client's side, for one request."""

    def __init__(self, application: flask.Flask) -> None:
        self._application = application
        descriptor, self._path = tempfile.mkstemp(prefix="context-", dir=run_directory())
        os.close(descriptor)

    @property
    def field(self) -> tuple[str, str]:
        """A field of the request."""
        return _FIELD, self._path

    def read(self) -> dict[str, dict[str, Any]]:
        """What the application has told: ``g``, ``session``. Call it once."""
        with open(self._path, "rb") as file:
            text = file.read()
        os.unlink(self._path)
        told = pickle.loads(text) if text else {}
        return {
            part: {name: pickle.loads(value) for name, value in pickle.loads(values).items()}
            for part, values in told.items()
        }

    @contextmanager
    def context(self, environ: dict[str, Any], told: dict[str, dict[str, Any]] | None) -> Iterator[None]:
        """The contexts of the request, as it left them."""
        told = told or {}
        with self._application.request_context(environ):
            if "session" in told and dict(flask.session) != told["session"]:
                flask.session.clear()
                flask.session.update(told["session"])
            for name, value in told.get("g", {}).items():
                setattr(flask.g, name, value)
            yield
