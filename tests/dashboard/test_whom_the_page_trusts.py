"""OB8: whom the dashboard believes: by token, by host, by origin and by rights, a yes and a no for each. The page is served for real; what it shows was recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from test_view import group, status

from passenger_trio.dashboard.server import Dashboard, Instance
from passenger_trio.system.listen import listen_tcp
from passenger_trio.testing import RawClient, Response

ANSWERS: dict[str, dict[str, Any]] = {
    "/v1/status": status(group()),
    "/v1/requests": {"requests": []},
    "/v1/history": {"events": [], "failures": []},
}


class Served:
    """A page that is served, and the orders that it has passed on."""

    def __init__(self, *, controls: bool) -> None:
        (listener,) = listen_tcp("127.0.0.1", 0, 16)
        self.orders: list[tuple[str, dict[str, Any]]] = []
        instance = Instance("shop", ANSWERS.__getitem__, self._obey)
        self.page = Dashboard(instance, listener, controls=controls)
        self.address = listener.getsockname()
        self.host = f"127.0.0.1:{self.address[1]}"
        self.token = self.page.url.rstrip("/").rpartition("/")[2]
        self._listener = listener
        self._stop: trio.CancelScope | None = None
        self._runs = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))

    def _obey(self, path: str, order: dict[str, Any]) -> dict[str, Any]:
        self.orders.append((path, order))
        return {}

    async def _serve(self) -> None:
        with trio.CancelScope() as self._stop:
            self._token = trio.lowlevel.current_trio_token()
            self._runs.set()
            await self.page.serve()

    def __enter__(self) -> Served:
        self._thread.start()
        self._runs.wait()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        self._token.run_sync_soon(self._stop.cancel)
        self._thread.join()
        self._listener.close()

    def ask(self, path: str = "", *, host: str = "", form: str | None = None, origin: str = "") -> Response:
        """:param path: below the token, unless it begins with a slash. :param form: sent by POST."""
        target = path if path.startswith("/") else f"/{self.token}/{path}"
        head = f"{'GET' if form is None else 'POST'} {target} HTTP/1.1\r\nHost: {host or self.host}\r\n"
        head += f"Origin: {origin}\r\n" if origin else ""
        head += "" if form is None else f"Content-Length: {len(form)}\r\n"
        with RawClient(self.address) as client:
            client.send(f"{head}\r\n{form or ''}".encode())
            return client.read_response()


@pytest.fixture(scope="module")
def steered() -> Iterator[Served]:
    with Served(controls=True) as it:
        yield it


def test_OB8_by_its_token(steered: Served) -> None:
    steered.orders.clear()
    assert steered.ask().status == 200
    assert len(steered.token) >= 32
    for path in ("/", "//", f"/{steered.token[:-1]}/", f"/{steered.token}x/", "/x/status.json", "/x/live", "/x/act"):
        assert steered.ask(path).status == 404, path
    assert steered.ask("/x/act", form="do=restart").status == 404
    assert steered.orders == []


def test_OB8_by_its_host(steered: Served) -> None:
    """A name of an attacker's that points here is not ours (DNS rebinding)."""
    port = steered.address[1]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert steered.ask(host=host).status == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}.evil.example"):
        assert steered.ask(host=host).status == 404
    with RawClient(steered.address) as client:
        client.send(f"GET /{steered.token}/ HTTP/1.0\r\n\r\n".encode())
        assert client.read_response().status == 404


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        ("http://{host}", True),
        ("", True),
        ("null", True),  # what a browser sends for a page with Referrer-Policy: no-referrer
        ("http://evil.example", False),
        ("https://{host}", False),
        ("http://{host}.evil.example", False),
    ],
)
def test_OB8_by_the_origin_of_an_order(steered: Served, origin: str, is_ours: bool) -> None:
    steered.orders.clear()
    response = steered.ask("act", form="do=detach&pid=7", origin=origin.format(host=steered.host))
    assert response.status == (303 if is_ours else 403)
    assert steered.orders == ([("/v1/detach", {"pid": 7})] if is_ours else [])


def test_OB8_by_its_rights() -> None:
    with Served(controls=False) as read_only:
        assert read_only.ask("act", form="do=restart").status == 403
        assert "<button" not in read_only.ask().text
        assert read_only.orders == []


def test_OB8_only_orders_that_have_a_button(steered: Served) -> None:
    steered.orders.clear()
    for form in ("do=shutdown", "do=", "", "pid=1", "do=detach&pid=x", "do=detach&pid=" + "1" * 10):
        assert steered.ask("act", form=form).status == 400, form
    assert steered.ask("status.json", form="").status == 405
    assert steered.ask("act").status == 404
    assert steered.orders == []
    assert steered.ask("act", form="do=restart&group=shop&hard=true").status == 303
    assert steered.orders == [("/v1/restart", {"group": "shop"})]


def test_OB8_the_policy_is_sent_with_another_nonce_each_time(steered: Served) -> None:
    policies = [steered.ask().header("content-security-policy") or "" for _ in range(2)]
    assert policies[0] != policies[1]
    told = dict(part.strip().split(" ", 1) for part in policies[0].split(";"))
    nonce = told.pop("script-src")
    assert nonce.startswith("'nonce-")
    assert told == {
        "default-src": "'none'",
        "style-src": nonce,
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    for response in (steered.ask(), steered.ask("status.json"), steered.ask("/")):
        assert response.header("referrer-policy") == "no-referrer"
        assert response.header("x-content-type-options") == "nosniff"
        assert response.header("cache-control") == "no-store"
