"""A cgroup (version 2) for each application with limits for all of its processes together (OP9).

They are below the cgroup that the supervisor has made for itself (``cgroups``, KE12)::

    above                   where the supervisor was started: a service's cgroup, a container's root
     |- ID.watch            the watchdog, if ``above`` had to be emptied to hand controllers down
     `- ID                  ``passenger-trio.`` and the supervisor's identity: killed as a whole with it
         |- server          the supervisor, its fronts, and applications without such limits
         `- app.1 ...       one application each, with the limits in its files

The kernel hands a controller down only from a cgroup without processes of its own (the root is exempt). So the
supervisor moves into ``server`` first, and it moves nobody else's processes: if others are in ``above``, or it may not
write there, the controllers stay where they are.

Laws:

* A program is in the cgroup of its application before it runs: its pid is written while a shell in its place waits
  (``start_program``). What it forks is born there.
* A limit that cannot be set is logged once, with its reason. No process fails to start for it.
* When an application is removed, and at the end of the server, everything that is left in its cgroup is killed
  (``cgroup.kill``), also what has escaped from its process groups, and the cgroup is removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping

from passenger_trio.system.cgroups import OwnCgroup, remove_cgroup, write_file

__all__ = ["AppCgroups"]

_log = logging.getLogger("passenger_trio")


class AppCgroups:
    """The cgroups of the applications of one server."""

    def __init__(self, own: OwnCgroup | None, unlimited: Mapping[str, str]) -> None:
        """:param own: the supervisor's; None: it has none.
        :param unlimited: file -> its content without a limit.
        """
        self._own = own
        self._unlimited = unlimited
        self._last = 0
        self._paths: dict[str, str] = {}
        """Application -> its cgroup, which may not be there yet."""
        self._written: dict[str, dict[str, str]] = {}
        """Application -> the files that have a limit in its cgroup."""
        self._handed_down: frozenset[str] | None = None
        """The controllers that the applications' cgroups have; None: nobody has asked."""
        self._said: set[str] = set()

    def enter(self, app: str, files: Mapping[str, str], pid: int) -> None:
        """Move a program that does not run yet into the cgroup of its application, with these limits. Never raises.

        :param files: file -> content, as ``core.app_cgroup`` has it.
        """
        path = self._path(app)
        if not path:
            self._say("limits in a cgroup (%s) have no effect: the server has no cgroup of its own", ", ".join(files))
            return
        if not os.path.isdir(path):
            self._written.pop(app, None)
            try:
                os.mkdir(path, 0o755)
            except OSError as error:
                self._say("limits in a cgroup have no effect: %s", error)
                return
        self._write(app, path, files)
        if not write_file(f"{path}/cgroup.procs", str(pid)):
            self._say("limits in a cgroup have no effect: no process can be moved into %s", path)

    def change(self, app: str, files: Mapping[str, str]) -> None:
        """Change the limits of an application while it runs. If it has no cgroup, its next program gets one."""
        path = self._paths.get(app, "")
        if path and os.path.isdir(path):
            self._write(app, path, files)

    def kill(self, app: str) -> str:
        """The application is gone: kill what is left of it. Returns its cgroup, to be removed (``remove_cgroup``, which
        waits); ``""``: it has none. If it comes again, it gets another one.
        """
        self._written.pop(app, None)
        path = self._paths.pop(app, "")
        return path if path and write_file(f"{path}/cgroup.kill", "1") else ""

    def close(self) -> None:
        """Every application is gone."""
        for path in [self.kill(app) for app in list(self._paths)]:
            if path:
                remove_cgroup(path)

    def _path(self, app: str) -> str:
        if self._own is None:
            return ""
        if app not in self._paths:
            self._last += 1
            self._paths[app] = f"{self._own.path}/app.{self._last}"
        return self._paths[app]

    def _write(self, app: str, path: str, files: Mapping[str, str]) -> None:
        known = self._written.setdefault(app, {})
        wanted = {**{name: self._unlimited[name] for name in known}, **files}
        if all(known.get(name) == text for name, text in wanted.items()):
            return
        missing = {name.partition(".")[0] for name in wanted} - self._controllers()
        if missing:
            self._say(
                "limits of the cgroup controllers %s have no effect: they are not delegated to the server (docs/operating.md)",
                ", ".join(sorted(missing)),
            )
        for name, text in wanted.items():
            if name.partition(".")[0] in missing:
                continue
            if not write_file(f"{path}/{name}", text):
                self._say("the limit %s cannot be written: the kernel refuses %s", name, text)
            elif name in files:
                known[name] = text
            else:
                del known[name]

    def _controllers(self) -> frozenset[str]:
        if self._handed_down is None:
            assert self._own is not None
            self._handed_down = hand_down(self._own, {name.partition(".")[0] for name in self._unlimited})
        return self._handed_down

    def _say(self, text: str, *values: object) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.warning(text, *values)


def hand_down(own: OwnCgroup, wanted: Collection[str]) -> frozenset[str]:
    """Hand controllers down to the cgroups below the supervisor's. Returns those that they have then."""
    missing = set(wanted) - _words(f"{own.path}/cgroup.controllers")
    if missing & _words(f"{own.above}/cgroup.controllers"):
        own.move_watchdog()
        for name in sorted(missing):
            write_file(f"{own.above}/cgroup.subtree_control", f"+{name}")
    here = set(wanted) & _words(f"{own.path}/cgroup.controllers")
    if not here or not own.make_room():
        return frozenset()
    for name in sorted(here):
        write_file(f"{own.path}/cgroup.subtree_control", f"+{name}")
    return frozenset(here & _words(f"{own.path}/cgroup.subtree_control"))


def _words(path: str) -> set[str]:
    try:
        with open(path) as file:
            return set(file.read().split())
    except OSError:
        return set()
