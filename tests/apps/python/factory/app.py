"""A function that makes the application."""


def create_app():
    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"made"]

    return application


class holder:
    @staticmethod
    def build():
        return create_app()

    instance = create_app()


def broken():
    raise LookupError("the factory fails")


def none():
    return None
