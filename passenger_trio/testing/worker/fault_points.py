"""Faults at a point of a request, or of a start, inside the application's process.

The harness arms a fault by making a file in ``armed/`` of the directory in ``HARNESS_FAULTS``.
Its name is ``POINT.NUMBER``, its content JSON. A process that comes to the point claims the file by
renaming it to ``fired/POINT.NUMBER.PID``: so each armed file fires exactly once, whichever process comes first, and
the harness sees that it fired even if the process is dead by then.

Points: ``load`` (the application has been loaded), ``fork`` (a worker process begins), ``head`` (a
request begins), ``mid_body`` (the first chunk of the response body has gone out), ``before_end`` (the
response is complete but for its last byte), ``after_end`` (it is complete, and the application has
not returned: tasks behind the response are still to run).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from typing import Any

__all__ = ["Claimed", "claim", "is_anything_armed", "perform", "perform_async"]

_POLL = 0.005


class Claimed:
    """A fault that this process has to make. ``is_over`` says that the harness has ended it."""

    def __init__(self, path: str, order: dict[str, Any]) -> None:
        self.path = path
        self.order = order

    @property
    def action(self) -> str:
        return str(self.order["action"])

    def is_over(self) -> bool:
        return not os.path.exists(self.path)


def claim(point: str, path: str = "") -> Claimed | None:
    """The next fault that is armed for this point.

    :param path: of the request; a fault may be meant for requests below one path only.
    """
    directory = os.environ.get("HARNESS_FAULTS")
    if not directory:
        return None
    armed, fired = os.path.join(directory, "armed"), os.path.join(directory, "fired")
    try:
        names = sorted(os.listdir(armed))
    except OSError:
        return None  # the harness has gone
    for name in names:
        if name.partition(".")[0] != point:
            continue
        try:
            with open(os.path.join(armed, name), encoding="utf-8") as file:
                order = json.load(file)
            if not path.startswith(order.get("path", "")):
                continue
            mark = os.path.join(fired, "%s.%d" % (name, os.getpid()))
            os.rename(os.path.join(armed, name), mark)
        except (OSError, ValueError):
            continue  # another process was first, or the harness has taken it back
        return Claimed(mark, order)
    return None


def is_anything_armed() -> bool:
    directory = os.environ.get("HARNESS_FAULTS")
    try:
        return bool(directory) and bool(os.listdir(os.path.join(str(directory), "armed")))
    except OSError:
        return False  # the harness has gone


def perform(fault: Claimed) -> None:
    """Make the fault. Returns if the process survives it.

    :raises RuntimeError: the fault is an exception.
    """
    order = fault.order
    action = fault.action
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "exit":
        os._exit(order["status"])
    elif action == "raise":
        raise RuntimeError(order["message"])
    elif action == "sleep":
        time.sleep(order["seconds"])
    elif action in ("hold", "hang"):
        while not fault.is_over():
            time.sleep(_POLL)
    elif action == "oom":
        _use_memory(order["size"])
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "close_stream":
        for stream in _streams():
            stream.shutdown(socket.SHUT_RDWR)
            stream.close()
    elif action == "bad_frame":
        for stream in _streams():
            try:
                stream.setblocking(True)
                stream.sendall(b"\xff" * 64)
            except OSError:
                pass  # the supervisor has ended it
            stream.close()


def _use_memory(size: int) -> None:
    """Take so many bytes, and touch every page of them."""
    taken = []
    for _ in range(0, size, 1 << 20):
        piece = bytearray(1 << 20)
        piece[::4096] = b"\1" * 256
        taken.append(piece)


def _streams() -> list[socket.socket]:
    """Copies of all streams of this process from the supervisor."""
    found = []
    listening = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            stream = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # not a socket, or gone
        if stream.family == socket.AF_UNIX and stream.type == socket.SOCK_STREAM and stream.getsockname():
            if stream.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.add(stream.getsockname())
            else:
                found.append(stream)
                continue
        stream.close()
    return [stream for stream in found if stream.getsockname() in listening]


async def perform_async(fault: Claimed) -> None:
    """As ``perform``, where other requests of this process go on meanwhile. What was sent before has gone out."""
    await _sleep(_POLL)
    if fault.action not in ("hold", "sleep"):
        perform(fault)
        return
    deadline = time.monotonic() + fault.order.get("seconds", float("inf"))
    while time.monotonic() < deadline and not fault.is_over():
        await _sleep(_POLL)


async def _sleep(seconds: float) -> None:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        await trio.sleep(seconds)
    else:
        import asyncio

        await asyncio.sleep(seconds)
