"""What forking from a preloader is for: three workers of an application that imports Django share its memory.

Starts the command: its preloader, and the memory that is shared with it, are the subject.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faces_tools import write_app

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os

WORKERS = 3
APPLICATION = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="not one",
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "django.contrib.staticfiles",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
)
django.setup()

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.urls import path

admin.autodiscover()

def index(request):
    return HttpResponse("%s models" % len(django.apps.apps.get_models()))

urlpatterns = [path("", index), path("admin/", admin.site.urls)]
application = WSGIHandler()
"""


def proportional_sizes(root: Path, method: str) -> tuple[list[int], int]:
    """Of the workers, after each has served requests, and of the preloader: bytes, as ``status`` tells them."""
    with Supervisor.start(root, "--spawn-method", method, "--min-instances", str(WORKERS)) as server:
        for _ in range(10 * WORKERS):  # whoever has served least is asked next
            assert server.get("/").status == 200
        group = server.group()
        assert len(group["processes"]) == WORKERS
        workers = [process["memory"]["pss"] for process in group["processes"]]
        preloader = group["preloader"]
        return workers, preloader["memory"]["pss"] if preloader is not None else 0


def test_three_workers_cost_less_than_60_percent_of_three_that_share_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The limit is on the sum of the three workers' PSS. That of the preloader, which is not a worker but is there, is printed beside it."""
    root = write_app(tmp_path / "app", APPLICATION)
    direct, _ = proportional_sizes(root, "direct")
    smart, preloader = proportional_sizes(root, "smart")
    share = sum(smart) / sum(direct)
    megabyte = 1024 * 1024
    record_property(
        "figure",
        f"PSS of {WORKERS} workers with Django: direct {sum(direct) / megabyte:.1f} MiB, smart {sum(smart) / megabyte:.1f} MiB ({share:.0%});"
        f" with the preloader {(sum(smart) + preloader) / megabyte:.1f} MiB ({(sum(smart) + preloader) / sum(direct):.0%})",
    )
    assert share < 0.6
