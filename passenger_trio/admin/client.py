"""Calls a running instance over its admin socket. Synchronous: it runs in commands, where nothing
else waits.
"""

from __future__ import annotations

import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from passenger_trio.codecs.admin_answer import decode_answer, encode_request, whole_size
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
    return _call(admin_socket, encode_request("GET", target, None), _PATIENCE)


def follow(admin_socket: str) -> Iterator[dict[str, Any]]:
    """Yield events as they happen, until the instance ends.

    :raises AdminError: the instance does not answer.
    """
    with _explained(admin_socket):
        with closing(_connect(admin_socket, None)) as sock, sock.makefile("rb") as lines:
            sock.sendall(encode_request("GET", "/v1/events", None))
            while lines.readline().strip():
                pass  # the head of the answer
            for line in lines:
                yield json.loads(line)


def order(
    admin_socket: str,
    target: str,
    what: dict[str, Any],
    *,
    for_long: bool = False,
    before: Callable[[Callable[[], None]], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Send an order, and return the result.

    :param for_long: wait without a timeout.
    :param before: called when all of the order but its last byte is sent, with what sends that byte: makes what the order needs while the instance reads
        it. The instance gives a caller 10 seconds for its order.
    :param meanwhile: called when the order is sent, before its result is waited for.
    :raises AdminError: the instance does not answer, or refuses.
    """
    request = encode_request("POST", target, json.dumps(what).encode())
    return _call(admin_socket, request, None if for_long else _PATIENCE, before, meanwhile)


def _call(
    admin_socket: str,
    request: bytes,
    patience: float | None,
    before: Callable[[Callable[[], None]], None] | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> dict[str, Any]:
    with _explained(admin_socket):
        sock = _connect(admin_socket, patience)

    def send(data: bytes) -> None:
        with _explained(admin_socket):
            sock.sendall(data)

    with closing(sock):
        send(request if before is None else request[:-1])
        if before is not None:
            before(lambda: send(request[-1:]))
        if meanwhile is not None:
            meanwhile()
        with _explained(admin_socket):
            status, body = decode_answer(_receive_answer(sock))
    return _object(admin_socket, status, body)


def _receive_answer(sock: socket.socket) -> bytes:
    """Receive an answer, up to its end or that of the connection. If the answer is too long, receive only enough to see that."""
    data = bytearray()
    end = most = _LONGEST + 65536
    while len(data) < end and (piece := sock.recv(65536)):
        begins = not data
        data += piece
        if end == most and (begins or len(data) < 65536):  # a head is short
            end = min(most, whole_size(bytes(data)) or most)
    return bytes(data)


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


def _connect(path: str, patience: float | None) -> socket.socket:
    """Connect. If the listen queue is full, a socket with a timeout gets EAGAIN, so try again within the timeout."""
    deadline = math.inf if patience is None else time.monotonic() + patience
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience)
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(0.01)
    except BaseException:
        sock.close()
        raise


@contextmanager
def _explained(admin_socket: str) -> Iterator[None]:
    """Turn the errors of a connection into ``AdminError``."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError):
        raise AdminError(f"no instance answers on {admin_socket}") from None
    except PermissionError:
        raise AdminError(f"{admin_socket} belongs to another user") from None
    except TimeoutError:
        raise AdminError(f"the instance on {admin_socket} did not answer within {_PATIENCE:.0f} s") from None
    except (OSError, ValueError) as exc:
        raise AdminError(f"the instance on {admin_socket} broke off: {exc}") from None
