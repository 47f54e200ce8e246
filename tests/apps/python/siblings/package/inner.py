"""A module of a package, which may itself be the startup file."""

from .deeper import DEEP


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join((DEEP, __name__, __package__)).encode()]
