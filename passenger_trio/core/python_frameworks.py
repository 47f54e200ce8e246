"""What the classes and functions of well-known Python frameworks make: an application, of which interface, or
something else.

The key is the top-level package and the last name, because ``Flask`` can be imported from ``flask`` and
from ``flask.app``. A full dotted name takes precedence where two such keys would clash
(``falcon.asgi.App``). This module contains only tables; ``python_entry_points`` uses them.
"""

from __future__ import annotations

import enum

from passenger_trio.late_classes import frozen

__all__ = ["Opinion", "Verdict", "asgi", "framework", "method_result", "neither", "probable", "wsgi"]


class Verdict(enum.Enum):
    WSGI = "wsgi"
    PROBABLE = "probable"
    ASGI = "asgi"
    NEITHER = "neither"


@frozen
class Opinion:
    verdict: Verdict
    what: str
    attribute: str = ""
    """The attribute that is the application, if the object itself is not."""


def wsgi(what: str, attribute: str = "") -> Opinion:
    return Opinion(Verdict.WSGI, what, attribute)


def asgi(what: str) -> Opinion:
    return Opinion(Verdict.ASGI, what)


def neither(what: str) -> Opinion:
    return Opinion(Verdict.NEITHER, what)


def probable(what: str) -> Opinion:
    return Opinion(Verdict.PROBABLE, what)


_FRAMEWORKS: dict[str, Opinion] = {
    "flask.Flask": wsgi("a Flask application"),
    "django.get_wsgi_application": wsgi("a Django application"),
    "bottle.Bottle": wsgi("a Bottle application"),
    "bottle.default_app": wsgi("a Bottle application"),
    "falcon.App": wsgi("a Falcon application"),
    "falcon.API": wsgi("a Falcon application"),
    "cherrypy.Application": wsgi("a CherryPy application"),
    "morepath.App": wsgi("a Morepath application"),
    "wsgidav.WsgiDAVApp": wsgi("a WsgiDAV application"),
    "socketio.WSGIApp": wsgi("a Socket.IO application (WSGI)"),
    "a2wsgi.ASGIMiddleware": wsgi("an ASGI application behind a WSGI adapter"),
    "whitenoise.WhiteNoise": wsgi("a WSGI application behind WhiteNoise"),
    "dash.Dash": wsgi("the server of a Dash application", "server"),
    "fastapi.FastAPI": asgi("a FastAPI application"),
    "starlette.Starlette": asgi("a Starlette application"),
    "starlette.WSGIMiddleware": asgi("a WSGI application behind an ASGI adapter"),
    "uvicorn.WSGIMiddleware": asgi("a WSGI application behind an ASGI adapter"),
    "a2wsgi.WSGIMiddleware": asgi("a WSGI application behind an ASGI adapter"),
    "asgiref.WsgiToAsgi": asgi("a WSGI application behind an ASGI adapter"),
    "django.get_asgi_application": asgi("a Django application"),
    "channels.ProtocolTypeRouter": asgi("a Django Channels application"),
    "falcon.asgi.App": asgi("a Falcon application"),
    "quart.Quart": asgi("a Quart application"),
    "quart_trio.QuartTrio": asgi("a Quart application"),
    "litestar.Litestar": asgi("a Litestar application"),
    "sanic.Sanic": asgi("a Sanic application"),
    "blacksheep.Application": asgi("a BlackSheep application"),
    "socketio.ASGIApp": asgi("a Socket.IO application"),
    "aiohttp.Application": neither("an aiohttp application, which brings its own server"),
    "tornado.Application": neither("a Tornado application, which brings its own server"),
    "celery.Celery": neither("a Celery application"),
    "typer.Typer": neither("a Typer command"),
    "cyclopts.App": neither("a Cyclopts command"),
    "slack_bolt.App": neither("a Slack Bolt application"),
    "aws_cdk.App": neither("an AWS CDK application"),
    "modal.App": neither("a Modal application"),
    "tkinter.Tk": neither("a Tk window"),
    "PyQt5.QApplication": neither("a Qt application"),
    "PyQt6.QApplication": neither("a Qt application"),
    "PySide6.QApplication": neither("a Qt application"),
}
# Methods whose result is an application, whatever their class.
_METHODS = {"make_wsgi_app": wsgi("a Pyramid application"), "wsgifunc": wsgi("a web.py application")}


def framework(dotted: str) -> Opinion | None:
    """What calling ``dotted`` (``flask.app.Flask``) makes; None: it belongs to no known framework."""
    if not dotted:
        return None
    return _FRAMEWORKS.get(dotted) or _FRAMEWORKS.get(f"{dotted.partition('.')[0]}.{dotted.rpartition('.')[2]}")


def method_result(name: str) -> Opinion | None:
    """What a method of this name makes, whatever its class (Pyramid's ``make_wsgi_app``)."""
    return _METHODS.get(name)
