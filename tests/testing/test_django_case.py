"""TH9: PassengerTestCase in Django's own test runner: what the test writes into the database the application sees, and the other way round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.os, pytest.mark.timeout(300)]

SETTINGS = """
from pathlib import Path
SECRET_KEY, DEBUG, ROOT_URLCONF, ALLOWED_HOSTS, USE_TZ = "x", False, "urls", ["*"], True
INSTALLED_APPS = ["polls"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
_HERE = Path(__file__).parent
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _HERE / "db", "TEST": {"NAME": _HERE / "test.db"}}}
"""
URLS = """
from django.http import JsonResponse
from django.urls import path
from polls.models import Question

def index(request):
    if request.method == "POST":
        Question.objects.create(text="of a request")
    return JsonResponse([question.text for question in Question.objects.all()], safe=False)

urlpatterns = [path("polls/", index)]
"""
MODELS = """
from django.db import models

class Question(models.Model):
    text = models.CharField(max_length=200)
"""
TESTS = """
from django.core.wsgi import get_wsgi_application
from django.test import TransactionTestCase
from passenger_trio.testing import PassengerTestCase
from polls.models import Question

class PollsTest(PassengerTestCase, TransactionTestCase):
    app = get_wsgi_application()

    def test_both_ways(self):
        Question.objects.create(text="of the test")
        self.assertEqual(self.client.get("/polls/").json(), ["of the test"])
        self.assertEqual(self.client.post("/polls/").status_code, 200)
        self.assertEqual(Question.objects.count(), 2)

    def test_nothing_is_left_of_the_other(self):
        self.assertEqual(self.client.get("/polls/").json(), [])
"""


def test_TH9_a_case_of_django(tmp_path: Path) -> None:
    (tmp_path / "polls").mkdir()
    for name, text in (
        ("settings.py", SETTINGS),
        ("urls.py", URLS),
        ("polls/__init__.py", ""),
        ("polls/models.py", MODELS),
        ("polls/tests.py", TESTS),
    ):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "--settings", "settings", "--pythonpath", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 2 tests" in done.stderr
