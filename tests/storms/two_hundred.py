"""A host of two hundred applications in a small memory: Flask, Django, Sinatra, Express and PHP, from a directory of files (``--apps-dir``), some with a user of their own.

    python tests/storms/two_hundred.py [seconds] [applications] [megabytes]

``min_instances = 0``, ``--max-pool-size auto``, in a cgroup with a limit of memory (version 1 or 2; as root, who also makes the users). Clients visit the applications in any order while others come,
are changed (their code or their file), break (their code or their file), are mended, and go.

Goals: no failed request except those for applications whose code is broken; each answer is the visited application's; the kernel ends nothing for want of memory, and what cannot be given back
(``rss``) stays below the limit; nothing is left of what is gone; before the first visit, and when it is over, all of it together takes under 1 % of a processor. Prints the figures; exit code 1 if a
goal is missed.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from memory_cgroups import MemoryCgroup, a_memory_cgroup
from node_packages import install
from storm_tools import percentile, python_for_all

from passenger_trio.testing import Supervisor, eventually

M = 1024**2
USERS = 6
VISITORS = 6
PAUSE = 0.05
"""Seconds between two visits of one client."""
CHURN = 2.0
"""Seconds between two deeds of the host's operator, most of which take longer."""
IDLE = 20.0
SETTLES = 40.0
"""Seconds after the last visit until it is idle: V8 collects garbage of each Node.js process once, some 20 s after its last request."""

FLASK = """
import os
import pwd
from flask import Flask
application = Flask(__name__)
{broken}
@application.get("/")
def index():
    return "{name} {version} %s %d" % (os.environ.get("COLOUR", "-"), os.getuid())
"""
DJANGO = """
import os, sys
from django.conf import settings
settings.configure(DEBUG=False, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
{broken}
def index(request):
    return HttpResponse("{name} {version} %s %d" % (os.environ.get("COLOUR", "-"), os.getuid()))
urlpatterns = [path("", index)]
application = get_wsgi_application()
"""
SINATRA = """
require "sinatra/base"
{broken}
class Site < Sinatra::Base
  set :environment, :production
  get("/") {{ "{name} {version} #{{ENV.fetch("COLOUR", "-")}} #{{Process.uid}}" }}
end
run Site
"""
EXPRESS = """
const app = require('express')();
{broken}
app.use((request, response) => response.send(`{name} {version} ${{process.env.COLOUR || '-'}} ${{process.getuid()}}`));
app.listen(process.env.PORT || 3000);
"""
PHP = """<?php
{broken}
header("Content-Type: text/plain");
echo "{name} {version} ", getenv("COLOUR") ?: "-", " ", posix_getuid();
"""


@attrs.frozen
class Kind:
    file: str
    text: str
    broken: str
    more: str = ""
    """Lines of the application's table."""


PYTHON_PATH = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
KINDS = {
    "flask": Kind("passenger_wsgi.py", FLASK, "import no_such_module"),
    "django": Kind("passenger_wsgi.py", DJANGO, "raise RuntimeError('broken')"),
    "sinatra": Kind("config.ru", SINATRA, "raise 'broken'"),
    "express": Kind("app.js", EXPRESS, "throw new Error('broken');"),
    "php": Kind("index.php", PHP, "exit('broken'", 'app_start_command = "exec php -S 127.0.0.1:$PORT index.php"\n'),
}


@attrs.define(eq=False)
class App:
    name: str
    kind: str
    user: str = ""
    uid: int = attrs.field(factory=lambda: pwd.getpwnam("nobody").pw_uid)
    """Whose root's files are served as: nobody."""
    version: int = 1
    colour: str = "-"
    broken: bool = False
    """Then nobody expects anything."""
    visits: int = 0
    """Under way."""

    @property
    def answers(self) -> str:
        return f"{self.name} v{self.version} {self.colour} {self.uid}"


@attrs.define(eq=False)
class Host:
    """The directories and files of the applications."""

    root: Path
    users: list[tuple[str, int]]
    python: str
    apps: list[App] = attrs.field(factory=list)
    made: int = 0

    def new(self) -> App:
        kind = list(KINDS)[self.made % len(KINDS)]
        app = App(f"{kind}{self.made}", kind)
        if self.made < len(self.users):
            app.user, app.uid = self.users[self.made]
        self.made += 1
        directory = self.root / "sites" / app.name
        directory.mkdir()
        (directory / "tmp").mkdir()
        (directory / "tmp" / "restart.txt").touch()
        if app.kind == "express":
            (directory / "node_modules").symlink_to(install())
            (directory / "package.json").write_text('{"private": true, "dependencies": {"express": "*"}}')
        self.write_code(app)
        return app

    def write_code(self, app: App) -> None:
        kind = KINDS[app.kind]
        text = kind.text.format(name=app.name, version=f"v{app.version}", broken=kind.broken if app.broken else "")
        # Another size each time: Python takes a compiled file of the same second and size for fresh.
        mark = {"flask": "#", "django": "#", "sinatra": "#", "express": "//", "php": "//"}[app.kind]
        replace(self.root / "sites" / app.name / kind.file, text + mark + "x" * app.version + "\n")

    def write_file(self, app: App, more: str = "") -> None:
        lines = [f'root = "../sites/{app.name}"', f'base_uri = "/{app.name}"', "min_instances = 0"]
        environment = {"COLOUR": app.colour} if app.colour != "-" else {}
        if app.kind in ("flask", "django"):
            environment["PYTHONPATH"] = PYTHON_PATH
            lines.append(f'python = "{self.python}"')
        if environment:
            lines.append(
                f"env = {{ {', '.join(f'{name} = {json.dumps(text)}' for name, text in environment.items())} }}"
            )
        if app.user:
            lines.append(f'user = "{app.user}"')
        replace(self.root / "apps" / f"{app.name}.toml", "\n".join(lines) + "\n" + KINDS[app.kind].more + more)

    def remove(self, app: App) -> None:
        (self.root / "apps" / f"{app.name}.toml").unlink()


def replace(file: Path, text: str) -> None:
    """Readers see the old file or the new one."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.replace(file)


@attrs.define
class Figures:
    applications: int = 0
    seconds: float = 0.0
    visits: int = 0
    failed: Counter[str] = attrs.field(factory=Counter)
    broken_visits: int = 0
    deeds: Counter[str] = attrs.field(factory=Counter)
    slowest_deed: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0
    most_memory: int = 0
    """What cannot be given back, in megabytes, of all processes."""
    limit: int = 0
    killed: int = 0
    """By the kernel, for want of memory."""
    refused: int = 0
    """Times that the limit was met (files that were read are given back then)."""
    most_processes: int = 0
    idle_before: float = 0.0
    """Of a processor, of all processes."""
    idle_after: float = 0.0
    idle_of_server: float = 0.0

    @property
    def is_good(self) -> bool:
        idle = max(self.idle_before, self.idle_after)
        return not self.failed and not self.killed and self.most_memory < self.limit and idle < 0.01


class Meter(threading.Thread):
    """What the cgroup uses, ten times a second."""

    def __init__(self, group: MemoryCgroup) -> None:
        super().__init__(daemon=True)
        self._group = Path(group.path)
        self.most = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            facts = dict(line.split() for line in (self._group / "memory.stat").read_text().splitlines())
            self.most = max(self.most, int(facts.get("total_rss") or facts["anon"]))

    def killed(self) -> int:
        file = self._group / "memory.oom_control"
        lines = (file if file.exists() else self._group / "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    def refused(self) -> int:
        file = self._group / "memory.failcnt"
        if file.exists():
            return int(file.read_text())
        return int(dict(line.split() for line in (self._group / "memory.events").read_text().splitlines())["max"])


@contextmanager
def users() -> Iterator[list[tuple[str, int]]]:
    names = [f"ptw{secrets.token_hex(3)}" for _ in range(USERS)]
    try:
        for name in names:
            subprocess.run(["useradd", "-U", "-M", "-d", "/nonexistent", name], check=True)
        yield [(name, int(subprocess.check_output(["id", "-u", name]))) for name in names]
    finally:
        for name in names:
            subprocess.run(["userdel", name], check=False, capture_output=True)


def spent(server: Supervisor) -> dict[str, float]:
    """Seconds of processor of each process that there is, and, as "gone", of all those that have ended."""
    found = {"gone": 0.0}
    process = psutil.Process(server.pid)
    for one in [process, *process.children(recursive=True)]:
        try:
            times, words = one.cpu_times(), " ".join(one.cmdline())
        except psutil.NoSuchProcess:
            continue
        found["server" if one is process else f"{one.pid} {words[:60]}"] = float(times.user + times.system)
        found["gone"] += float(times.children_user + times.children_system)
    return found


def idle(server: Supervisor) -> tuple[float, float]:
    """The shares of a processor that the server and all processes take. Prints who takes more than a thousandth."""
    before = spent(server)
    time.sleep(IDLE)
    after = spent(server)
    # One that has ended meanwhile is among the gone ones with all that it ever took.
    ended = sum(seconds for name, seconds in before.items() if name not in after)
    took = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    took["gone"] -= ended
    for name, seconds in sorted(took.items(), key=lambda one: -one[1]):
        if seconds / IDLE > 0.001:
            print(f"idle {seconds / IDLE:8.2%}  {name}{'' if name in before else ' (new)'}", flush=True)
    return took["server"] / IDLE, sum(took.values()) / IDLE


class Storm:
    def __init__(self, host: Host, server: Supervisor, seed: int) -> None:
        self.host = host
        self.server = server
        self.chosen = random.Random(seed)
        self.figures = Figures()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._latencies: list[float] = []

    # Visits

    def visit_some(self, number: int) -> None:
        chosen = random.Random(number)
        while not self._stop.wait(PAUSE):
            with self._lock:
                app = chosen.choice(self.host.apps)
                app.visits += 1
                broken, expected = app.broken, {app.answers}
            begun = time.monotonic()
            what = self.ask(app)
            took = time.monotonic() - begun
            with self._lock:
                app.visits -= 1
                broken = broken or app.broken
                expected.add(app.answers)
                self.figures.visits += 1
                if broken:
                    self.figures.broken_visits += 1
                    continue
                self._latencies.append(took)
                if what.split(" ")[0] != app.name:
                    now = f"{time.strftime('%H:%M:%S')} after {took:.1f} s"
                    print(f"FAILED    {app.name} {now}: {what}", flush=True)
                    self.figures.failed[f"{app.kind}: {what[:60]}"] += 1

    def ask(self, app: App) -> str:
        """The text of the answer, or what came instead."""
        try:
            with self.server.connect(timeout=120.0) as client:
                answer = client.get(f"/{app.name}/")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
            return f"! {type(error).__name__}: {error}"
        text = answer.body.decode("utf-8", "replace")
        return text if answer.status == 200 and answer.complete else f"! {answer.status} {' '.join(text.split())[:300]}"

    # Deeds of the operator

    def deed(self) -> None:
        name = self.chosen.choice(["add", "remove", "change_code", "change_file", "break_code", "break_file"])
        with self._lock:
            app = self.chosen.choice([app for app in self.host.apps if not app.broken and not app.user])
        begun = time.monotonic()
        getattr(self, name)(app)
        took = time.monotonic() - begun
        self.figures.deeds[name] += 1
        self.figures.slowest_deed = max(self.figures.slowest_deed, took)
        print(f"{took:6.1f} s  {name} {app.name if name != 'add' else ''}", flush=True)

    def becomes(self, app: App) -> None:
        """Wait until the application answers as it should."""
        try:
            eventually(lambda: self.ask(app) == app.answers, 120)
        except AssertionError:
            self.figures.failed[f"{app.kind} never became what it should"] += 1
            print(f"FAILED    {app.name} is not {app.answers}, but {self.ask(app)}", flush=True)

    def add(self, _: App) -> None:
        app = self.host.new()
        self.host.write_file(app)
        self.becomes(app)
        with self._lock:
            self.host.apps.append(app)

    def remove(self, app: App) -> None:
        with self._lock:
            self.host.apps.remove(app)
        eventually(lambda: not app.visits, 120)
        self.host.remove(app)
        eventually(lambda: self.ask(app).startswith("! 404"), 60)

    def change_code(self, app: App) -> None:
        with self._lock:
            app.version += 1
        self.restart(app)
        self.becomes(app)

    def restart(self, app: App) -> None:
        self.host.write_code(app)
        os.utime(self.host.root / "sites" / app.name / "tmp" / "restart.txt")

    def change_file(self, app: App) -> None:
        with self._lock:
            app.colour = "red" if app.colour != "red" else "blue"
        self.host.write_file(app)
        self.becomes(app)

    def break_code(self, app: App) -> None:
        with self._lock:
            app.broken = True
            app.version += 1
        self.restart(app)
        time.sleep(CHURN)
        self.ask(app)
        app.version += 1
        mended = attrs.evolve(app, broken=False)
        self.host.write_code(mended)
        os.utime(self.host.root / "sites" / app.name / "tmp" / "restart.txt")
        self.becomes(app)
        with self._lock:
            app.broken = False

    def break_file(self, app: App) -> None:
        """The last good version is served on."""
        self.host.write_file(app, "max_instances = -3\n")
        eventually(lambda: any(app.name in one["file"] for one in self.server.status()["broken_files"]), 60)
        if self.ask(app) != app.answers:
            self.figures.failed[f"{app.kind}: not as before its file was broken"] += 1
        self.host.write_file(app)
        eventually(lambda: not self.server.status()["broken_files"], 60)

    def run(self, seconds: float) -> None:
        visitors = [threading.Thread(target=self.visit_some, args=(number,)) for number in range(VISITORS)]
        begun = time.monotonic()
        for visitor in visitors:
            visitor.start()
        try:
            while time.monotonic() < begun + seconds:
                self.deed()
                processes = sum(len(group["processes"]) for group in self.server.status()["groups"])
                self.figures.most_processes = max(self.figures.most_processes, processes)
                time.sleep(CHURN * self.chosen.random())
        finally:
            self._stop.set()
            for visitor in visitors:
                visitor.join()
        self.figures.seconds = time.monotonic() - begun
        self.figures.p50, self.figures.p99 = percentile(self._latencies, 0.5), percentile(self._latencies, 0.99)
        self.figures.slowest = max(self._latencies, default=0.0)


def storm(seconds: float, count: int, megabytes: int) -> Figures:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pt-storm-", dir="/tmp")))
        place.chmod(0o755)
        for name in ("sites", "apps"):
            (place / name).mkdir()
        host = Host(place, stack.enter_context(users()), python_for_all())
        for _ in range(count):
            host.apps.append(host.new())
            host.write_file(host.apps[-1])
        (place / "passenger-trio.toml").write_text(
            '[server]\napps_dir = "apps"\n[pool]\nmax_pool_size = "auto"\nstat_throttle_rate = "2s"\n'
        )
        group = stack.enter_context(a_memory_cgroup(megabytes * M))
        words = ("--config", str(place / "passenger-trio.toml"), "-e", "production")
        server = stack.enter_context(
            Supervisor.start(None, *words, prefix=group.command(), timeout=120.0, env={"PASSENGER_TRIO_USER": None})
        )
        meter = Meter(group)
        meter.start()
        it = Storm(host, server, seed=1)
        time.sleep(5)
        _, it.figures.idle_before = idle(server)
        it.run(seconds)
        time.sleep(SETTLES)
        it.figures.idle_of_server, it.figures.idle_after = idle(server)
        meter.ended.set()
        meter.join()
        it.figures.applications, it.figures.limit = len(host.apps), megabytes
        it.figures.most_memory, it.figures.killed = meter.most // M, meter.killed()
        it.figures.refused = meter.refused()
        if not it.figures.is_good:
            shutil.copy(server.home / "access.log", "/tmp/two_hundred.access.log")
            Path("/tmp/two_hundred.log").write_text("\n".join(server.log))
        return it.figures


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    figures = storm(*(given + [600, 200, 640][len(given) :]))
    for field in attrs.fields(Figures):
        print(f"{field.name:16} {getattr(figures, field.name)}")
    print("good" if figures.is_good else "MISSED")
    sys.exit(0 if figures.is_good else 1)
