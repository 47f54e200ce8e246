"""Applications that were not written for this project, as they are: Flask, Django with its admin, Radicale; and one whose environment has nothing of ours.

Starts the command: that it needs no option, and what it detects, is the subject.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
from faces_tools import FLASK, write_app

from passenger_trio.testing import Supervisor

pytestmark = pytest.mark.os

METHODS = pytest.mark.parametrize("method", ["smart", "direct"])

EVENT = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//passenger_trio//tests//EN
BEGIN:VEVENT
UID:a-meeting
DTSTAMP:20250101T000000Z
DTSTART:20250102T100000Z
SUMMARY:Meeting with Größe
END:VEVENT
END:VCALENDAR
"""


@METHODS
def test_flask(method: str) -> None:
    with Supervisor.start(FLASK, "--spawn-method", method) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/").text == "<p>Hello, World!</p>"
        assert client.post("/greet", data={"name": "Zoë"}).json() == {"greeting": "Hello, Zoë"}
        assert client.get("/greet").status_code == 405
        assert client.head("/").headers["Content-Length"] == "20"
        assert client.options("/greet").headers["Allow"]


@pytest.fixture(scope="module")
def django_project() -> Iterator[Path]:
    """What ``django-admin startproject`` makes, with its database and a superuser."""
    with tempfile.TemporaryDirectory(prefix="pt-django-") as directory:
        root = Path(directory) / "shop"
        root.mkdir()
        env = {**os.environ, "DJANGO_SUPERUSER_PASSWORD": "correct horse"}
        for arguments in (
            [sys.executable, "-m", "django", "startproject", "shop", "."],
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            [
                sys.executable,
                "manage.py",
                "createsuperuser",
                "--noinput",
                "--username",
                "keeper",
                "--email",
                "keeper@example.org",
            ],
        ):
            subprocess.run(arguments, cwd=root, env=env, check=True, capture_output=True)
        yield root


@pytest.mark.parametrize(("method", "app_type"), [("smart", "wsgi"), ("direct", "wsgi"), ("smart", "asgi")])
def test_the_admin_of_a_new_django_project(django_project: Path, method: str, app_type: str) -> None:
    """Its login form with the cookie against forgery, the redirect behind it, a page that needs the session, a change in the database, its style sheets."""
    options = ("--spawn-method", method, "--min-instances", "2", "--app-type", app_type)
    with Supervisor.start(django_project, *options) as server:
        assert server.ready["applications"][0]["app_type"] == app_type
        assert (
            "Django" in server.ready["applications"][0]["reason"]
            or "manage.py" in server.ready["applications"][0]["reason"]
        )
        with httpx.Client(base_url=server.url, headers={"Referer": server.url + "/"}) as client:
            assert "The install worked successfully" in client.get("/").text
            away = client.get("/admin/")
            assert (away.status_code, away.headers["Location"]) == (302, "/admin/login/?next=/admin/")
            form = client.get(away.headers["Location"])
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
            assert token is not None
            fields = {"username": "keeper", "password": "wrong", "csrfmiddlewaretoken": token[1], "next": "/admin/"}
            assert "Please enter the correct username" in client.post("/admin/login/", data=fields).text
            assert httpx.post(server.url + "/admin/login/", data=fields).status_code == 403  # without the cookie
            entered = client.post("/admin/login/", data={**fields, "password": "correct horse"})
            assert (entered.status_code, entered.headers["Location"]) == (302, "/admin/")
            assert "sessionid" in client.cookies
            page = client.get("/admin/")
            assert page.status_code == 200
            assert "Site administration" in page.text
            # Each process answers for the same session: it is in the database.
            assert {client.get("/admin/auth/user/").status_code for _ in range(6)} == {200}
            form = client.get("/admin/auth/group/add/")
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form.text)
            assert token is not None
            added = client.post(
                "/admin/auth/group/add/", data={"name": f"made {method} {app_type}", "csrfmiddlewaretoken": token[1]}
            )
            assert added.status_code == 302, added.text
            assert f"made {method} {app_type}" in client.get("/admin/auth/group/").text
            assert client.get("/nowhere/").status_code == 404


@METHODS
def test_static_files_through_django(django_project: Path, method: str) -> None:
    """Django serves them itself through a URL pattern, as its documentation has it for development: files, by ``wsgi.file_wrapper``."""
    urls = django_project / "shop" / "urls.py"
    plain = urls.read_text()
    urls.write_text(
        plain
        + "\nfrom django.contrib.staticfiles.urls import staticfiles_urlpatterns\nurlpatterns += staticfiles_urlpatterns()\n"
    )
    try:
        with (
            Supervisor.start(django_project, "--spawn-method", method) as server,
            httpx.Client(base_url=server.url) as client,
        ):
            page = client.get("/admin/login/")
            sheets = re.findall(r'<link rel="stylesheet" href="(/static/[^"]+)"', page.text)
            assert sheets
            import django

            for sheet in sheets:
                answer = client.get(sheet)
                assert answer.status_code == 200
                assert answer.headers["Content-Type"].startswith("text/css")
                original = Path(django.__file__).parent / "contrib/admin" / sheet.removeprefix("/")
                assert answer.content == original.read_bytes()
            again = client.get(sheets[0], headers={"If-Modified-Since": client.get(sheets[0]).headers["Last-Modified"]})
            assert again.status_code == 304
    finally:
        urls.write_text(plain)


@METHODS
def test_radicale_keeps_a_calendar(tmp_path: Path, method: str) -> None:
    """A CalDAV server, by the WSGI application that it publishes; methods and bodies that browsers never send."""
    (tmp_path / "config").write_text(f"[storage]\nfilesystem_folder = {tmp_path}/data\n[auth]\ntype = none\n")
    env = {"RADICALE_CONFIG": str(tmp_path / "config")}
    root = tmp_path / "calendars"
    root.mkdir()
    options = ("--spawn-method", method, "--min-instances", "2")
    with Supervisor.start(root, "radicale:application", *options, env=env) as server:
        with httpx.Client(base_url=server.url, auth=("someone", "")) as client:
            assert client.request("MKCALENDAR", "/someone/work/").status_code == 201
            put = client.put(
                "/someone/work/meeting.ics", content=EVENT.encode(), headers={"Content-Type": "text/calendar"}
            )
            assert put.status_code == 201
            assert put.headers["ETag"]
            got = client.get("/someone/work/meeting.ics")
            assert got.status_code == 200
            assert "SUMMARY:Meeting with Größe" in got.text
            query = '<propfind xmlns="DAV:"><prop><resourcetype/><getetag/></prop></propfind>'
            for depth, expected in (("0", 1), ("1", 2)):
                answer = client.request("PROPFIND", "/someone/work/", content=query, headers={"Depth": depth})
                assert answer.status_code == 207
                hrefs = [href.text for href in ElementTree.fromstring(answer.content).iter("{DAV:}href")]
                assert len(hrefs) == expected
                assert hrefs[0] == "/someone/work/"
            assert client.delete("/someone/work/meeting.ics").status_code == 200
            assert client.get("/someone/work/meeting.ics").status_code == 404
        done = subprocess.run(
            [
                "curl",
                "-sS",
                "-i",
                "-u",
                "someone:",
                "-X",
                "PROPFIND",
                "-H",
                "Depth: 0",
                "-d",
                query,
                server.url + "/someone/",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("HTTP/1.1 207 ")


ABOUT = """
import importlib.util, json, sys
def application(environ, start_response):
    found = {name: importlib.util.find_spec(name) is not None for name in ("passenger_trio", "trio", "h11", "attrs")}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**found, "prefix": sys.prefix, "version": sys.version_info[:2]}).encode()]
"""


@METHODS
def test_an_environment_beside_the_application_is_used_and_needs_nothing_of_ours(tmp_path: Path, method: str) -> None:
    root = write_app(tmp_path / "app", ABOUT)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / ".venv")], check=True)
    with Supervisor.start(root, "--spawn-method", method, env={"VIRTUAL_ENV": None, "PYTHONPATH": None}) as server:
        application = server.ready["applications"][0]
        assert application["interpreter"] == str(root / ".venv/bin/python")
        told = json.loads(server.get("/").body)
        assert told["prefix"] == str(root / ".venv")
        assert not any(told[name] for name in ("passenger_trio", "trio", "h11", "attrs"))


def test_an_environment_that_is_named_wins_over_the_applications_own_and_that_over_an_active_one(
    tmp_path: Path,
) -> None:
    """OP22."""
    root = write_app(tmp_path / "app", ABOUT)
    for name in (root / "venv", tmp_path / "other"):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(name)], check=True)
    with Supervisor.start(root, "--python", str(tmp_path / "other")) as server:
        assert json.loads(server.get("/").body)["prefix"] == str(tmp_path / "other")
    with Supervisor.start(root, env={"VIRTUAL_ENV": str(tmp_path / "other")}) as server:
        assert json.loads(server.get("/").body)["prefix"] == str(root / "venv")
