"""Calls a running instance over its admin socket. Synchronous: it runs in commands, where nothing
else waits.
"""

from __future__ import annotations

import http.client
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from passenger_trio.errors import AdminError

__all__ = ["fetch", "fetch_status", "follow", "order"]

_PATIENCE = 10.0
_LONGEST = 16 * 1024 * 1024


def fetch_status(admin_socket: str) -> dict[str, Any]:
    """Return the instance's status.

    :raises AdminError: the instance does not answer, or refuses.
    """
    return fetch(admin_socket, "/v1/status")


def fetch(admin_socket: str, target: str) -> dict[str, Any]:
    """Return the JSON object at ``target``.

    :raises AdminError: the instance does not answer, or refuses.
    """
    return _call(admin_socket, "GET", target, None, _PATIENCE)


def follow(admin_socket: str) -> Iterator[dict[str, Any]]:
    """Yield events as they happen, until the instance ends.

    :raises AdminError: the instance does not answer.
    """
    connection = _Connection(admin_socket, None)
    try:
        connection.request("GET", "/v1/events")
        for line in connection.getresponse():
            yield json.loads(line)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise AdminError(f"the instance on {admin_socket} broke off: {exc}") from None
    finally:
        connection.close()


def order(
    admin_socket: str,
    target: str,
    what: dict[str, Any],
    *,
    for_long: bool = False,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Send an order, and return the result.

    :param for_long: wait without a timeout.
    :param meanwhile: called when the order is sent, before its result is waited for.
    :raises AdminError: the instance does not answer, or refuses.
    """
    return _call(admin_socket, "POST", target, json.dumps(what).encode(), None if for_long else _PATIENCE, meanwhile)


def _call(
    admin_socket: str,
    method: str,
    target: str,
    body: bytes | None,
    patience: float | None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    connection = _Connection(admin_socket, patience)
    try:
        connection.request(method, target, body, headers={"Accept": "application/json", "Connection": "close"})
        if meanwhile is not None:
            meanwhile()
        response = connection.getresponse()
        body = response.read(_LONGEST + 1)
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(f"no instance answers on {admin_socket}") from None
    except PermissionError:
        raise AdminError(f"{admin_socket} belongs to another user") from None
    except TimeoutError:
        raise AdminError(f"the instance on {admin_socket} did not answer within {_PATIENCE:.0f} s") from None
    except (OSError, http.client.HTTPException) as exc:
        raise AdminError(f"the instance on {admin_socket} broke off: {exc}") from None
    finally:
        connection.close()
    return _object(admin_socket, response.status, body)


def _object(admin_socket: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body) if len(body) <= _LONGEST else None
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AdminError(f"{admin_socket} is not the admin socket of a passenger_trio instance")
    if status != 200:
        raise AdminError(f"the instance refused (status {status}): {answer.get('error', 'without a reason')}")
    return answer


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, patience: float | None) -> None:
        super().__init__("localhost", timeout=patience)
        self._path = path
        self._patience = patience

    def connect(self) -> None:
        """A full queue of connections fails with EAGAIN on a socket with a timeout, so it is tried again within that timeout."""
        deadline = math.inf if self._patience is None else time.monotonic() + self._patience
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._patience)
        while True:
            try:
                self.sock.connect(self._path)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(0.01)
            else:
                return
