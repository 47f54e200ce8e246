"""What the storms share: an application in versions, and a load of keep-alive clients that counts every answer."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

import attrs

from passenger_trio.testing import RawClient, Supervisor

APP = """
import os, time
VERSION = {version!r}
{more}
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.05)
    body = b"%s %d" % (VERSION.encode(), os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
_SIZES = itertools.count()
BROKEN = 'raise ImportError("this version is broken")'


def listens(server: Supervisor) -> bool:
    """Whether somebody listens at the address of a server."""
    address = server.address
    assert isinstance(address, tuple)
    try:
        socket.create_connection(address, 1).close()
    except OSError:
        return False
    return True


def write_version(root: Path, version: str, *, broken: bool = False) -> None:
    """The application as of a new deployment; readers see the old file or the new one.

    Each version has another size: Python takes a compiled file for fresh when the source has the same
    size and the same second as before.
    """
    new = root / "passenger_wsgi.py.new"
    new.write_text(APP.format(version=version, more=BROKEN if broken else "") + "#" * next(_SIZES) + "\n")
    new.replace(root / "passenger_wsgi.py")


class Connects(Protocol):
    """A server, or whoever knows where it listens."""

    def connect(self, timeout: float = 30.0) -> RawClient: ...


@attrs.define(eq=False)
class Load:
    """So many connections, each of them asking for one thing after another, until ``stop``."""

    server: Connects
    connections: int = 32
    paths: tuple[str, ...] = ("/",)
    pause: float = 0.0
    outcomes: Counter[str] = attrs.field(factory=Counter)
    """Answers by status, and what was no answer by its exception."""
    latencies: list[float] = attrs.field(factory=list)
    bodies: Counter[str] = attrs.field(factory=Counter)
    _stop: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.connections)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())

    def _ask(self, number: int) -> None:
        outcomes: Counter[str] = Counter()
        bodies: Counter[str] = Counter()
        latencies: list[float] = []
        client: RawClient | None = None
        turn = number
        while not self._stop.is_set():
            turn += 1
            begun = time.monotonic()
            try:
                client = client or self.server.connect()
                response = client.get(self.paths[turn % len(self.paths)])
                outcomes[str(response.status) if response.complete else f"{response.status} cut short"] += 1
                bodies[response.body.split()[0].decode() if response.status == 200 else "error"] += 1
                latencies.append(time.monotonic() - begun)
                if not response.complete or response.header("Connection") == "close":
                    client.close()
                    client = None
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
                outcomes[f"{type(error).__name__}: {error}"[:80]] += 1
                if client is not None:
                    client.close()
                client = None
            if self.pause:
                time.sleep(self.pause)
        if client is not None:
            client.close()
        self.outcomes.update(outcomes)
        self.bodies.update(bodies)
        self.latencies.extend(latencies)


AS_ANOTHER_USER = 'unset PASSENGER_TRIO_USER; dir=${PASSENGER_TRIO_INSTANCE_DIR-}; [ -z "$dir" ] || chown "$0" "${dir%/*}"; exec setpriv --reuid "$0" --regid "$0" --clear-groups "$@"'


def can_be_another_user() -> bool:
    return os.geteuid() == 0 and shutil.which("setpriv") is not None


def as_another_user() -> tuple[str, ...]:
    """What starts a supervisor as a user whom nobody else is: a limit on processes does not bind root. The directory of its instance becomes his."""
    return ("sh", "-c", AS_ANOTHER_USER, str(54_000 + os.getpid() % 1000))


def interpreter_of_another_user() -> str:
    """A Python that he may start; ``""``: there is none. (The one that runs us may be in root's home.)"""
    for path in (sys.executable, "/usr/bin/python3"):
        words = [*as_another_user(), "sh", "-c", 'exec "$0" -c ""', path]
        if (
            can_be_another_user()
            and subprocess.run(words, check=False, stderr=subprocess.DEVNULL, timeout=30).returncode == 0
        ):
            return path
    return ""


def limit(server: Supervisor, what: str, soft: int | str) -> None:
    """Set a soft limit of a running supervisor, as its own user, who alone may do so everywhere.

    :param what: ``nofile``, ``nproc`` or ``as``. :param soft: a number, or ``"unlimited"``.
    """
    owner = os.stat(f"/proc/{server.pid}")
    change = ["prlimit", "--pid", str(server.pid), f"--{what}={soft}:"]
    if owner.st_uid != os.geteuid():
        change = ["setpriv", "--reuid", str(owner.st_uid), "--regid", str(owner.st_gid), "--clear-groups", *change]
    subprocess.run(change, check=True, timeout=30)


def percentile(values: list[float], part: float) -> float:
    """``percentile(latencies, 0.99)``; 0.0 of nothing."""
    return sorted(values)[int((len(values) - 1) * part)] if values else 0.0


def python_for_all() -> str:
    """One of this version that every user may run."""
    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}."
    for path in (sys.executable, "/usr/bin/python3", f"/usr/bin/python{wanted[:-1]}"):
        words = [path, "-c", f"import sys; sys.exit(not sys.version.startswith('{wanted}'))"]
        try:
            subprocess.run(words, check=True, capture_output=True, user=65534, group=65534, extra_groups=[])
        except (OSError, subprocess.SubprocessError):
            continue
        return path
    raise SystemExit(f"this needs a Python {wanted[:-1]} that every user may run")
