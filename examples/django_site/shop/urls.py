"""One page. It tells which process made it."""

import os

from django.http import HttpResponse
from django.urls import path


def page(request):
    return HttpResponse(f"process {os.getpid()}\n", content_type="text/plain")


urlpatterns = [path("", page)]
