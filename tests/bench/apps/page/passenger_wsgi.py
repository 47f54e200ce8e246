# 2 KiB of HTML, and what a browser's request is usually answered with beside it.
ROW = b"<tr><td>an article</td><td>2026-11-24</td></tr>\n"
PAGE = (b"<!doctype html><title>Articles</title><table>\n" + ROW * 40).ljust(2048)


def application(environ, start_response):
    if not environ.get("HTTP_COOKIE", "").startswith("session=") and "HTTP_ACCEPT" in environ:
        raise ValueError("the headers did not come")
    start_response(
        "200 OK",
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", "2048"),
            ("Cache-Control", "private, max-age=0"),
            ("Vary", "Cookie"),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("Set-Cookie", "seen=1; Path=/; HttpOnly"),
        ],
    )
    return [PAGE]
