"""A service of a real systemd with ``Delegate=yes`` and ``User=nobody``: the server makes its cgroups there, and what it started ends with it, daemons, too (OP9, KE12).

    python tests/storms/systemd_delegate.py        (as root; it needs systemd, unshare, and a cgroup of version 2 in which others can be made)

A systemd of its own is process 1 of new namespaces, and knows one unit. Goals: the application is in a cgroup of its own below the service's; a daemon that it started (``setsid``) ends with the
application, by ``cgroup.kill``, when a reload removes the application; with the server that is killed by SIGKILL; and with ``systemctl stop``, for which the server ends with 0; nothing is left in
the service's cgroup. Controllers are delegated only where the machine's cgroup of version 2 has them; else the log says once that limits have no effect.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from storm_tools import python_for_all

from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.listen import listen_tcp
from passenger_trio.testing import eventually

APP = """
import os, subprocess
AT_LOAD = open("/proc/self/cgroup").read()
def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"].endswith("/daemon"):
        job = "echo $$ >daemon.new; mv daemon.new daemon; trap '' HUP INT TERM; while :; do sleep 10; done"
        subprocess.run(["setsid", "-f", "sh", "-c", job], cwd=os.path.dirname(os.path.abspath(__file__)))
    return [AT_LOAD.encode()]
"""
SERVICE = """[Unit]
DefaultDependencies=no
[Service]
User=nobody
Delegate=yes
Environment="PYTHONPATH={python_path}" PASSENGER_TRIO_INSTANCE_DIR={place}/i
ExecStart={python} -m passenger_trio start {place} -p {port} --access-log off --python {python}
ExecStopPost=/bin/sh -c 'echo $$EXIT_CODE $$EXIT_STATUS >{place}/ended'
StandardError=append:{place}/log
TimeoutStopSec=30
"""
TARGET = "[Unit]\nDefaultDependencies=no\nRequires=trio.service\nAllowIsolate=yes\n"
INIT = """set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run
mount -t tmpfs none /lib/systemd/system-generators
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH={place}/units \\
    /lib/systemd/systemd --system --unit=trio.target --log-target=console --show-status=no
"""


@attrs.define
class Machine:
    """A systemd and its one service."""

    place: Path
    port: int
    cgroup: Path
    """Of the service."""
    init: int
    """The process 1, as we see it."""

    def systemctl(self, *words: str) -> None:
        command = ["nsenter", "--target", str(self.init), "--all", "systemctl", *words]
        subprocess.run(command, check=True, timeout=60)

    def ask(self, path: str) -> str:
        """The cgroup in which the application was loaded."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        return next(line[3:] for line in lines if line.startswith("0::"))

    def processes(self) -> list[int]:
        files = list(self.cgroup.rglob("cgroup.procs")) if self.cgroup.exists() else []
        return [int(pid) for file in files for pid in file.read_text().split()]

    def server(self) -> int:
        """Its pid."""
        named = [
            pid for pid in self.processes() if b"passenger_trio\0start" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        return named[0] if named else 0

    def serves(self) -> bool:
        try:
            return bool(self.ask("/shop"))
        except OSError:
            return False

    def daemon(self) -> None:
        """Have the application start one, and see it in the application's cgroup."""
        note = self.place / "shop" / "daemon"
        note.unlink(missing_ok=True)
        self.ask("/shop/daemon")
        inside = int(eventually(lambda: note.exists() and note.read_text(), 30))  # as its own namespace numbers it
        assert [
            pid for pid in self.processes() if f"NSpid:\t{pid}\t{inside}\n" in Path(f"/proc/{pid}/status").read_text()
        ]

    def no_daemon(self) -> bool:
        return not [pid for pid in self.processes() if b"daemon.new" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def write(place: Path, *apps: str) -> None:
    tables = [f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nmemory_max = "1G"\n' for name in apps]
    (place / "passenger-trio.toml").write_text("\n".join(tables))


@contextmanager
def machine() -> Iterator[Machine]:
    above, _ = own_directory()
    place = Path(tempfile.mkdtemp(prefix="pt-systemd-", dir="/tmp"))
    root = Path(above, place.name)
    try:
        place.chmod(0o755)
        (place / "units").mkdir()
        for name in ("shop", "blog"):
            (place / name).mkdir()
            (place / name / "passenger_wsgi.py").write_text(APP)
        write(place, "shop", "blog")
        (sock,) = listen_tcp("127.0.0.1", 0, 1)
        port = sock.getsockname()[1]
        sock.close()
        paths = [path for path in sys.path if path and os.path.isdir(path) and "/storms" not in path]
        python_path = os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), *(p for p in paths if "site-packages" in p)]
        )
        unit = SERVICE.format(python_path=python_path, python=python_for_all(), place=place, port=port)
        (place / "units" / "trio.service").write_text(unit)
        (place / "units" / "trio.target").write_text(TARGET)
        (place / "init").write_text(INIT.format(place=place))
        subprocess.run(["chown", "-R", "nobody", str(place)], check=True)
        root.mkdir()
        shell = f"echo $$ >{root}/cgroup.procs; exec unshare --mount --pid --fork --cgroup --uts --ipc --mount-proc --kill-child sh {place}/init"
        with subprocess.Popen(["sh", "-c", shell], stdin=subprocess.DEVNULL) as process:
            try:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                init = int(eventually(lambda: children.read_text().split(), 30)[0])
                yield Machine(place, port, root / "system.slice" / "trio.service", init)
            finally:
                process.kill()  # and with it process 1, and so all
    finally:
        for directory in sorted(root.rglob("*"), reverse=True):
            if directory.is_dir():
                removed(directory)
        removed(root)
        shutil.rmtree(place)


def removed(directory: Path) -> None:
    """Remove a cgroup whose processes are just ending."""

    def done() -> bool:
        try:
            directory.rmdir()
        except OSError as error:
            return error.errno != errno.EBUSY
        return True

    eventually(done, 20)


def storm() -> None:
    with machine() as it:
        try:
            eventually(it.serves, 60, "the service serves")
            for name in ("shop", "blog"):
                print(f"{name} is in {it.ask('/' + name)}")
            assert "/system.slice/trio.service/passenger-trio." in it.ask("/shop")
            assert it.ask("/shop") != it.ask("/blog")
            print("controllers:", (it.cgroup / "cgroup.controllers").read_text().strip() or "none")

            it.daemon()
            write(it.place, "blog")
            os.kill(it.server(), signal.SIGHUP)
            eventually(it.no_daemon, 60)
            print("the application is removed: its daemon has ended")

            write(it.place, "shop", "blog")
            os.kill(it.server(), signal.SIGHUP)
            eventually(it.serves, 60)
            it.daemon()
            os.kill(it.server(), signal.SIGKILL)
            eventually(lambda: it.processes() == [], 30)
            print("the server is killed: nothing is left")

            (it.place / "ended").unlink(missing_ok=True)
            it.systemctl("reset-failed")
            it.systemctl("start", "trio.service")
            eventually(it.serves, 60)
            it.daemon()
            it.systemctl("stop", "trio.service")
            assert it.processes() == []
            assert (it.place / "ended").read_text() == "exited 0\n"
            print("the service is stopped: exit code 0, nothing is left")
        except BaseException:
            print((it.place / "log").read_text() if (it.place / "log").exists() else "no log", file=sys.stderr)
            raise


if __name__ == "__main__":
    storm()
    print("good")
