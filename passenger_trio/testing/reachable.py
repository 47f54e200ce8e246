"""Who has an address that clients connect to: a server under test, a fault's link, an application under test.

It knows the address and nothing else. Each request has a connection of its own; a test that wants more opens one.
"""

from __future__ import annotations

from collections.abc import Callable

from passenger_trio.testing.exchange import Exchange
from passenger_trio.testing.raw_client import RawClient, Response

__all__ = ["Reachable"]


class Reachable:
    """Requests to ``address``."""

    @property
    def address(self) -> tuple[str, int] | str:
        """For ``RawClient``: host and port, or the path of a Unix socket."""
        raise NotImplementedError

    def connect(self, timeout: float = 30.0) -> RawClient:
        """A new connection for bytes."""
        return RawClient(self.address, timeout, note=self._note())

    def _note(self) -> Callable[[Exchange], None] | None:
        """Who wants to know what is asked on connections; None: a tap does, or nobody."""
        return None

    def get(self, path: str = "/", **headers: str) -> Response:
        """GET on a new connection. Fields as in ``Accept="..."``; an underscore in a name becomes a dash."""
        with self.connect() as client:
            return client.get(path, [(name.replace("_", "-"), value) for name, value in headers.items()])

    def post(self, path: str, body: bytes) -> Response:
        """POST on a new connection."""
        with self.connect() as client:
            return client.request("POST", path, body=body)
