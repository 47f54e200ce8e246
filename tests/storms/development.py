"""Development in a real browser: a Django project and Redmine, each served with ``--reload``, are edited, broken and mended, and headless Chromium looks at what a developer would see.

    python tests/storms/development.py [django] [redmine]

Redmine is Debian's (``apt-get install --no-install-recommends redmine redmine-sqlite``), copied to a directory of its own.

Goals (OP12): each edit is on the page; each break shows an error page that names it, of ours or of the framework; after each mending the page is right with no more than that save; no step
needs a second one. Prints each step and the seconds until the browser saw it; exit code 1 if one was not seen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faces"))

from browsing import Browser, chromium

from passenger_trio.testing import Supervisor

PATIENCE = 300.0
"""Seconds until the browser has to see a change."""


@attrs.define
class Development:
    """A developer: files on one side, the browser on the other."""

    root: Path
    server: Supervisor
    browser: Browser
    missed: list[str] = attrs.field(factory=list)

    def sees(self, step: str, path: str, *texts: str) -> bool:
        """Load the page until it has all of the texts."""
        begun, seen = time.monotonic(), ""
        while time.monotonic() - begun < PATIENCE:
            try:
                self.browser.call("Page.navigate", url=self.server.url.rstrip("/") + path)
            except TimeoutError:
                seen = "nothing: no answer comes"
                continue
            until = time.monotonic() + 5
            while time.monotonic() < until:
                seen = self.browser.text if self.browser.run("document.readyState") == "complete" else ""
                if all(text in seen for text in texts):
                    print(f"{time.monotonic() - begun:6.1f} s  {step}", flush=True)
                    return True
                if seen and self.browser.run("location.pathname + location.search") == path:
                    break
                time.sleep(0.05)
            time.sleep(0.2)
        print(
            f"MISSED    {step}: {texts} at {path}; instead:\n{seen[:1500]}",
            *self.server.log[-30:],
            sep="\n",
            flush=True,
        )
        self.missed.append(step)
        return False

    def change(self, name: str, old: str, new: str) -> None:
        """Save a file as editors do: another file in its place."""
        file = self.root / name
        text = file.read_text()
        assert old in text, f"{name} has no {old!r}"
        fresh = file.with_name(file.name + "~")
        fresh.write_text(text.replace(old, new, 1))
        shutil.copymode(file, fresh)
        fresh.replace(file)

    def breaks(self, step: str, name: str, old: str, new: str, path: str, *error: str, mended: str) -> None:
        """Break a file: the error page; mend it: the page of before."""
        self.change(name, old, new)
        self.sees(f"{step}: the error page", path, *error)
        self.change(name, new, old)
        self.sees(f"{step}: mended", path, mended)

    def fill(self, form: str, **values: str) -> None:
        """Fill a form in and send it."""
        for name, value in values.items():
            self.browser.run(f"document.querySelector('{form} [name=\"{name}\"]').value = {value!r}")
        here = self.browser.run("window.before = true; location.href")
        self.browser.run(f"document.querySelector('{form} [type=submit]').click()")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.browser.run("window.before !== true && document.readyState == 'complete'"):
                return
            time.sleep(0.05)
        raise AssertionError(f"nothing came of the form at {here}")


@contextmanager
def developing(place: Path, root: Path, *options: str, **env: str | None) -> Iterator[Development]:
    words = ("--reload", "-e", "development", *options)
    with (
        Supervisor.start(root, *words, env=env, timeout=PATIENCE) as server,
        chromium(place / "chromium") as browser,
    ):
        server.wait_log("restarts when files change")
        yield Development(root, server, browser)


# Django

MODELS = """from django.db import models


class Note(models.Model):
    title = models.CharField(max_length=80)

    def __str__(self):
        return self.title
"""
ADMIN = """from django.contrib import admin

from notes.models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    list_display = ["title"]
"""
VIEWS = """from django.shortcuts import render

from notes.models import Note


def index(request):
    return render(request, "notes/index.html", {"word": "first word", "notes": Note.objects.all()})
"""
TEMPLATE = """<!doctype html><h1>My notes</h1><p>{{ word }}</p>{% for note in notes %}<li>{{ note.title }}</li>{% endfor %}
"""


def manage(root: Path, *words: str, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *words], cwd=root, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def django_project(place: Path) -> Path:
    root = place / "site"
    root.mkdir()
    subprocess.run([sys.executable, "-m", "django", "startproject", "mysite", str(root)], check=True)
    manage(root, "startapp", "notes")
    (root / "notes" / "models.py").write_text(MODELS)
    (root / "notes" / "admin.py").write_text(ADMIN)
    (root / "notes" / "views.py").write_text(VIEWS)
    templates = root / "notes" / "templates" / "notes"
    templates.mkdir(parents=True)
    (templates / "index.html").write_text(TEMPLATE)
    for name, old, new in (
        ("settings.py", "INSTALLED_APPS = [", "INSTALLED_APPS = [\n    'notes',"),
        ("settings.py", "ALLOWED_HOSTS = []", "ALLOWED_HOSTS = ['*']"),
        ("urls.py", "urlpatterns = [", "from notes.views import index\nurlpatterns = [path('', index),"),
    ):
        file = root / "mysite" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))
    manage(root, "makemigrations", "notes")
    manage(root, "migrate")
    manage(root, "createsuperuser", "--noinput", "--username=me", "--email=me@example.com", DJANGO_SUPERUSER_PASSWORD="secret-of-me")  # fmt: skip
    manage(root, "shell", "-c", "from notes.models import Note; Note(title='a note of old').save()")
    return root


def django(place: Path) -> list[str]:
    with developing(place, django_project(place)) as it:
        page = "notes/templates/notes/index.html"
        it.sees("the page", "/", "My notes", "first word", "a note of old")
        it.change("notes/views.py", "first word", "second word")
        it.sees("a view is edited", "/", "second word")
        it.change(page, "My notes", "Your notes")
        it.sees("a template is edited", "/", "Your notes", "second word")
        it.breaks(
            "a view with a syntax error",
            "notes/views.py",
            "def index(",
            "def index((",
            "/",
            "SyntaxError",
            "views.py",
            mended="second word",
        )
        it.breaks(
            "a view that imports what is not there",
            "notes/views.py",
            "from notes.models",
            "from notes.modles",
            "/",
            "notes.modles",
            mended="second word",
        )
        it.breaks(
            "a view that raises",
            "notes/views.py",
            "return render",
            "return nothing_of_this_name",
            "/",
            "NameError",
            mended="second word",
        )
        it.breaks(
            "a model with a syntax error",
            "notes/models.py",
            "class Note(",
            "class Note((",
            "/",
            "SyntaxError",
            "models.py",
            mended="second word",
        )
        it.breaks(
            "a model that imports what is not there",
            "notes/models.py",
            "from django.db import",
            "from django.dbs import",
            "/",
            "django.dbs",
            mended="second word",
        )
        it.breaks(
            "a broken template",
            page,
            "{% endfor %}",
            "{% endfro %}",
            "/",
            "TemplateSyntaxError",
            "endfro",
            mended="Your notes",
        )
        it.breaks(
            "broken settings",
            "mysite/settings.py",
            "INSTALLED_APPS = [",
            "INSTALLED_APPS = [[",
            "/",
            "SyntaxError",
            "settings.py",
            mended="Your notes",
        )
        it.breaks(
            "settings that name an application that is not there",
            "mysite/settings.py",
            "'notes'",
            "'nodes'",
            "/",
            "nodes",
            mended="Your notes",
        )
        # While the start hangs, the save that mends it is enough, too.
        it.change("mysite/settings.py", "INSTALLED_APPS = [", "import time; time.sleep(3600)\nINSTALLED_APPS = [")
        time.sleep(3)
        it.change("mysite/settings.py", "import time; time.sleep(3600)\n", "")
        it.sees("settings that hang, and are mended during the start", "/", "Your notes")

        it.sees("the admin asks who is there", "/admin/", "Django administration")
        it.fill("#login-form", username="me", password="secret-of-me")
        it.sees("the admin's list", "/admin/notes/note/", "a note of old")
        it.change(
            "notes/models.py",
            "    def __str__",
            "    colour = models.CharField(max_length=20, default='red')\n\n    def __str__",
        )
        it.change("notes/admin.py", '["title"]', '["title", "colour"]')
        it.sees("a field that no migration has: the error page", "/admin/notes/note/", "OperationalError", "colour")
        manage(it.root, "makemigrations", "notes")
        manage(it.root, "migrate")
        it.sees("migrated: the admin's list has the field", "/admin/notes/note/", "Colour", "red")
        it.sees("and its form", "/admin/notes/note/add/", "Colour:")
        it.fill("#note_form", title="a note of today", colour="green")
        it.sees("what the form saved is on the page", "/", "a note of today")
        it.change("notes/admin.py", '"colour"]', '"color"]')
        it.sees("an admin that names no field: the error page", "/admin/notes/note/", "color")
        it.change("notes/admin.py", '"color"]', '"colour"]')
        it.sees(
            "an admin that names no field: mended, and still logged in",
            "/admin/notes/note/",
            "a note of today",
            "green",
        )
        return it.missed


# Redmine

REDMINE = Path("/usr/share/redmine")


def redmine_of_debian(place: Path) -> Path:
    """A copy that may be edited, with a copy of the database that the package has made."""
    if not (REDMINE / "config" / "database.yml").exists():
        raise SystemExit("there is no Redmine: apt-get install --no-install-recommends redmine redmine-sqlite")
    root = place / "redmine"
    shutil.copytree(REDMINE, root, ignore=shutil.ignore_patterns("instances", "help"))
    database = re.search("database: *(.*)", (REDMINE / "config" / "database.yml").read_text())
    assert database
    shutil.copy(database[1], root / "db" / "redmine.db")
    (root / "config" / "database.yml").unlink()
    instance = root / "instances" / "default"  # Debian's package serves several
    for name in ("config", "files", "log", "tmp", "public/plugin_assets"):
        (instance / name).mkdir(parents=True)
    (instance / "config" / "database.yml").write_text(
        f"development:\n  adapter: sqlite3\n  database: {root}/db/redmine.db\n"
    )
    for name in ("tmp", "log", "files", "plugins"):
        (root / name).mkdir(exist_ok=True)
    # Debian's package is without the gems of development: this checker looks at the files by itself.
    settings = root / "config" / "environments" / "development.rb"
    settings.write_text(settings.read_text().replace("EventedFileUpdateChecker", "FileUpdateChecker"))
    # A plugin, and a file that no reloader of Rails looks at.
    plugin = root / "plugins" / "greeting"
    plugin.mkdir()
    (plugin / "init.rb").write_text(
        "require_relative 'words'\nRedmine::Plugin.register :greeting do\n  name GREETING\n"
        "  menu :top_menu, :greeting, '/', caption: GREETING\nend\n"
    )
    (plugin / "words.rb").write_text("GREETING = 'a first greeting'\n")
    shared = place / "shared"
    shared.mkdir()
    (shared / "farewell.rb").write_text("FAREWELL = 'a first farewell'\n")
    (root / "config" / "initializers" / "90-farewell.rb").write_text(f"require '{shared}/farewell'\n")
    return root


def redmine(place: Path) -> list[str]:
    root = redmine_of_debian(place)
    page, controller = "app/views/welcome/index.html.erb", "app/controllers/welcome_controller.rb"
    words = ("--reload-dir", ".", "--reload-dir", "../shared")
    with developing(place, root, *words, RAILS_ENV=None, RACK_ENV=None) as it:
        it.sees("the page", "/", "Home", "Powered by Redmine", "a first greeting")
        it.change(
            page, "<h2><%= l(:label_home) %></h2>", "<h2>My home</h2><p><%= @word || 'no word' %>, <%= FAREWELL %></p>"
        )
        it.sees("a template is edited", "/", "My home", "no word, a first farewell")
        it.change(controller, "@news = News", "@word = 'first word'\n    @news = News")
        it.sees("a controller is edited", "/", "first word")
        it.change("lib/redmine/info.rb", "def app_name; 'Redmine' end", "def app_name; 'Greenmine' end")
        it.sees("a file of lib is edited", "/", "Powered by Greenmine")
        it.change("plugins/greeting/words.rb", "a first", "a second")
        it.sees("a file that Rails does not reload", "/", "a second greeting")
        it.change("../shared/farewell.rb", "a first", "a second")
        it.sees("a file outside of the application, in a directory of --reload-dir", "/", "a second farewell")
        it.change(
            "config/routes.rb",
            "root :to => 'welcome#index', :as => 'home'",
            "root :to => 'welcome#index', :as => 'home'\n  get 'again', :to => 'welcome#index'",
        )
        it.sees("a route is added", "/again", "My home")
        it.breaks(
            "a controller with a syntax error",
            controller,
            "def index",
            "def index(",
            "/",
            "SyntaxError",
            "welcome_controller",
            mended="first word",
        )
        it.breaks(
            "a controller that requires what is not there",
            controller,
            "class Welcome",
            "require 'nothing_of_this_name'\nclass Welcome",
            "/",
            "nothing_of_this_name",
            mended="first word",
        )
        it.breaks(
            "a broken template",
            page,
            "<% if @news.any? %>",
            "<% if @news.any? ( %>",
            "/",
            "SyntaxError",
            mended="My home",
        )
        it.breaks(
            "a model with a syntax error",
            "app/models/news.rb",
            "class News",
            "class class News",
            "/",
            "SyntaxError",
            "news.rb",
            mended="My home",
        )
        it.breaks(
            "a plugin that raises",
            "plugins/greeting/words.rb",
            "GREETING =",
            "GREETING = NOTHING_OF_THIS_NAME ||",
            "/",
            "NOTHING_OF_THIS_NAME",
            mended="a second greeting",
        )
        it.breaks(
            "broken settings",
            "config/application.rb",
            "module RedmineApp",
            "module module RedmineApp",
            "/",
            "application.rb",
            mended="My home",
        )
        it.breaks(
            "a broken configuration of the database",
            "instances/default/config/database.yml",
            "adapter: sqlite3",
            "adapter: [sqlite3",
            "/",
            "database.yml",
            mended="My home",
        )
        it.breaks(
            "a Gemfile that names what is not installed",
            "Gemfile",
            "gem 'marcel'",
            "gem 'marcel'\ngem 'nothing_of_this_name'",
            "/",
            "nothing_of_this_name",
            mended="My home",
        )
        it.sees("the form", "/login", "Login", "Password")
        return it.missed


PARTS: dict[str, Callable[[Path], list[str]]] = {"django": django, "redmine": redmine}


def main() -> int:
    missed: list[str] = []
    for name in sys.argv[1:] or PARTS:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="pt-storm-") as place:
            missed += PARTS[name](Path(place))
    print(f"MISSED: {', '.join(missed)}" if missed else "good")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
