"""A Django project whose AppConfig asks its database while it is loaded. The database is a server of lines: what it is asked, it answers."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import django
from django.apps import AppConfig
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path


class Shop(AppConfig):
    name = "shop"
    path = str(pathlib.Path(__file__).parent)

    def ready(self):
        assert ask("ready") == "ready"


def ask(what):
    with connection.cursor() as cursor:
        cursor.execute(what)
        return cursor.fetchone()[0]


def row(request, number):
    return HttpResponse("%s in %d" % (ask("row %s" % number), os.getpid()))


class Urls:
    urlpatterns = [path("row/<number>", row)]


sys.modules["shop"] = sys.modules["shop.urls"] = Urls
Urls.__path__ = [Shop.path]
settings.configure(
    SECRET_KEY="x",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=Urls,
    DATABASES={"default": {"ENGINE": "lines", "NAME": os.environ["DATABASE"], "CONN_MAX_AGE": None}},
    INSTALLED_APPS=[],
)
django.setup()
Shop("shop", sys.modules[__name__]).ready()
application = get_wsgi_application()
