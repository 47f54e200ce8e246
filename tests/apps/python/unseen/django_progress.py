"""Django, under ASGI: a view that streams its progress by a plain generator, as its documentation shows for WSGI."""

import os
import time

import django
from django.conf import settings

if not settings.configured:
    settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
    django.setup()

from django.core.asgi import get_asgi_application
from django.http import StreamingHttpResponse
from django.urls import path


def progress(request):
    gate = request.GET["gate"]

    def lines():
        yield "started\n"
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and not os.path.exists(gate):
            time.sleep(0.01)
        yield "done\n" if os.path.exists(gate) else "nobody has seen that it started\n"

    return StreamingHttpResponse(lines(), content_type="text/plain")


urlpatterns = [path("progress", progress)]
application = get_asgi_application()
