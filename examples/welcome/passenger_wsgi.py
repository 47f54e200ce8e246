"""What the server of ``quart_site.py`` serves before anything is added."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"welcome\n"]
