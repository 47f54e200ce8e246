"""What the loaded application holds, and which of it is a hazard.

A hazard is something that forked processes cannot share. The preloader reports hazards, and the supervisor decides.
What cannot be understood counts as a hazard.
"""

import os
import stat
import sys
from os import getpid
from select import select
from socket import SOCK_DGRAM
from socket import socket as Socket

from passenger_trio_loader.originals import tasks
from passenger_trio_loader.preloading.before_fork import (
    close_django_connections,
    close_logging_sockets,
    dispose_sqlalchemy_pools,
)
from passenger_trio_loader.preloading.descriptors import descriptors, judge_descriptor
from passenger_trio_loader.preloading.event_loops import gevent_hub, green_hubs, idle_loop
from passenger_trio_loader.preloading.exit_hooks import ExitHooks

MAX_HAZARDS = 20
"""Hazards that are reported, at most."""
SETTLE_TIME = 0.05
"""Seconds of grace for threads and processes that are about to end."""
THREADS_THAT_KNOW_FORKS = ("jemalloc_bg_thd",)


class HeldResources:
    """What the process holds in addition to what it held when this object was made."""

    def __init__(self):
        self._descriptors = descriptors()
        self._tasks = tasks()
        self.hooks = ExitHooks()

    def close_reopenable(self):
        """Close connections that their libraries open again where they are used. ``hazards`` finds those that stay open."""
        for close_them in (close_django_connections, dispose_sqlalchemy_pools, close_logging_sockets):
            try:
                close_them(self)
            except Exception as error:
                sys.stderr.write("passenger_trio: %s: %s: %s\n" % (close_them.__name__, type(error).__name__, error))

    def has_sockets(self):
        return any(stat.S_ISSOCK(mode) for mode, _ in self._new_descriptors().values())

    def hazards(self):
        """What processes must not share: a list of ``{"kind": K, "what": TEXT}``.

        A thread that is about to end (of a pool that was shut down a moment ago) gets ``SETTLE_TIME``.
        """
        found = self._look()
        if any(hazard["kind"] in ("thread", "process") for hazard in found):
            select([], [], [], SETTLE_TIME)
            found = self._look()
        return found[:MAX_HAZARDS]

    def _look(self):
        found = [{"kind": "thread", "what": what} for what in self._threads()]
        found += [{"kind": "process", "what": what} for what in child_processes()]
        known = harmless_descriptors()
        of_gevent = 1 if gevent_hub() is not None else 0
        for number, (mode, target) in sorted(self._new_descriptors().items()):
            if target == "anon_inode:[eventfd]" and of_gevent:
                of_gevent -= 1  # gevent's loop wakes itself with it
            elif number not in known:
                hazard = judge_descriptor(number, mode, target)
                if hazard:
                    found.append({"kind": hazard[0], "what": hazard[1]})
        found += [{"kind": "exit_hook", "what": what} for what in self.hooks.removing_hooks()]
        return found

    def _new_descriptors(self):
        return {number: what for number, what in descriptors().items() if self._descriptors.get(number) != what}

    def _threads(self):
        new = tasks() - self._tasks
        if not new:
            return []
        threading = sys.modules.get("threading")
        named = {}
        for thread in list(getattr(threading, "_active", {}).values()):
            named[str(getattr(thread, "native_id", ""))] = thread
        found, nameless = [], []
        own = name_of_task(getpid())
        for task in sorted(new, key=int):
            name = name_of_task(task)
            if task in named:
                found.append(describe_thread(named[task]))
            elif name == own:
                nameless.append(task)
            elif name is not None and name not in THREADS_THAT_KNOW_FORKS:
                found.append("a thread that is not Python's (%s)" % name)
        # OpenBLAS ends its threads before a fork and starts new ones after it. They have no names.
        if len(nameless) > threads_of_openblas():
            found.append("%d threads that are not Python's" % len(nameless))
        return found


def name_of_task(task):
    """The kernel's name of a thread. None: the thread has ended."""
    try:
        with open("/proc/self/task/%s/comm" % task, "rb") as comm:
            return comm.read().strip().decode("utf-8", "replace")
    except OSError:
        return None


def describe_thread(thread):
    target = getattr(thread, "_target", None)
    kind = type(thread)
    place = getattr(target, "__module__", None) if kind.__module__ == "threading" else kind.__module__
    return "the thread %s%s" % (thread.name, " (of %s)" % place if place else "")


def threads_of_openblas():
    """How many threads OpenBLAS may have: each copy of it (NumPy's, SciPy's) has one less than there are processors."""
    copies = set()
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                if b"openblas" in line:
                    copies.add(line.split(None, 5)[-1])
    except OSError:
        pass
    return len(copies) * ((os.cpu_count() or 1) - 1)


def child_processes():
    """Descriptions of the living processes that the application has started, without multiprocessing's resource tracker."""
    pids = []
    for task in tasks():
        try:
            with open("/proc/self/task/%s/children" % task, "rb") as children:
                pids += children.read().split()
        except OSError:
            pass
    tracker = getattr(resource_tracker(), "_pid", None)
    found = []
    for pid in sorted(map(int, pids)):
        try:
            with open("/proc/%d/stat" % pid, "rb") as state:
                if state.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    continue
            with open("/proc/%d/cmdline" % pid, "rb") as command:
                words = command.read().replace(b"\0", b" ").strip().decode("utf-8", "replace")
        except OSError:
            continue
        if pid != tracker:
            found.append("the process %d (%s)" % (pid, words[:80]))
    return found


def resource_tracker():
    return getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)


def harmless_descriptors():
    """Numbers of descriptors that forked processes may share, or that ``after_fork`` replaces in each of them."""
    found = set()
    tracker = getattr(resource_tracker(), "_fd", None)
    if tracker is not None:
        found.add(tracker)  # Each message is one write, so messages do not mix.
    logging = sys.modules.get("logging")
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference() if callable(reference) else reference
        for name in ("sock", "socket"):
            bare = getattr(handler, name, None)
            if isinstance(bare, Socket) and bare.type & 15 == SOCK_DGRAM:
                found.add(bare.fileno())  # Syslog: each message is one datagram, and nobody reads.
    loop = idle_loop()
    if loop is not None:
        found.update((loop._selector.fileno(), loop._ssock.fileno(), loop._csock.fileno()))
    for hub in green_hubs():
        found.add(hub)
    return found
