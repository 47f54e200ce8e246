def application(environ, start_response):
    return [b"a" b"b"
