"""OP1, OP2, OP3: a running server takes over another configuration, and loses no request.

Starts the command: `reload` is the subject.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import Load, run_command

from passenger_trio.admin.client import order
from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{NAME} {os.environ.get('COLOUR')} {environ['wsgi.multithread']} {os.getpid()}".encode()]
"""


class Site:
    """A directory with applications, their configuration, and a server that serves them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server: Supervisor

    def add(self, name: str) -> None:
        (self.root / name).mkdir()
        (self.root / name / "passenger_wsgi.py").write_text(f"NAME = {name!r}\n{APP}")

    def write(self, pool: str = "", server: str = "", **apps: str) -> None:
        """The configuration: the lines of each application."""
        tables = [f"[pool]\nmax_pool_size = 6\n{pool}", f"[server]\n{server}"]
        tables += [f'[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\n{lines}' for name, lines in apps.items()]
        (self.root / "passenger-trio.toml").write_text("\n\n".join(tables))

    def reload(self) -> list[str]:
        """The lines of what changed."""
        answer = order(f"{self.server.instance_dir}/admin.sock", "/v1/reload", {}, for_long=True)
        assert answer["error"] is None, answer
        assert answer["applied"]
        return list(answer["changes"])

    def refused(self) -> str:
        """The reason for which nothing changed."""
        answer = order(f"{self.server.instance_dir}/admin.sock", "/v1/reload", {}, for_long=True)
        assert not answer["applied"]
        return str(answer["error"])

    def command(self, *arguments: str, code: int = 0) -> list[str]:
        """What the command prints."""
        done = run_command("reload", *arguments, "--instance", str(self.server.instance_dir))
        assert done.returncode == code, done
        return (done.stdout if code == 0 else done.stderr).splitlines()

    def ask(self, name: str) -> tuple[str, ...]:
        answer = self.server.get(f"/{name}/")
        return tuple(answer.body.decode().split()) if answer.status == 200 else (str(answer.status),)

    def pids(self, name: str) -> set[str]:
        """Those of the processes of an application."""
        [group] = [group for group in self.server.status()["groups"] if group["name"] == name]
        return {str(process["pid"]) for process in group["processes"]}

    def groups(self) -> list[str]:
        """Sorted: what was removed and came back stands last."""
        return sorted(group["name"] for group in self.server.status()["groups"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    it = Site(tmp_path_factory.mktemp("site"))
    for name in ("shop", "blog", "wiki"):
        it.add(name)
    it.write(shop="", blog="")
    with Supervisor.start(it.root) as server:
        it.server = server
        yield it
        assert server.stop() == 0


def test_nothing_has_changed(site: Site) -> None:
    site.write(shop="", blog="")
    site.reload()
    assert site.reload() == []
    assert site.command() == ["nothing has changed"]


def test_one_line_for_each_change_and_a_dry_run_changes_nothing(site: Site) -> None:
    """OP1"""
    site.write(shop="", blog="")
    site.reload()
    before = site.ask("shop")
    site.write(shop='max_request_time = "9s"\n', wiki="")
    assert site.command("--dry-run") == [
        f"+ wiki (development): it is served from {site.root}/wiki",
        "- blog (development): it ends after its requests",
        "~ shop (development): max_request_time: 0s -> 9s",
        "(nothing was changed: --dry-run)",
    ]
    assert site.ask("wiki") == ("404",)
    assert site.ask("shop") == before
    assert site.groups() == ["blog", "shop"]


def test_added_removed_changed_and_restarted_under_load(site: Site) -> None:
    """OP1, OP3: no request fails; processes that nothing changes for are the same."""
    site.write(shop="", blog="", wiki="")
    site.reload()
    shop, blog = site.ask("shop"), site.ask("blog")
    with Load(site.server, "/shop/", 2) as on_shop, Load(site.server, "/blog/", 2) as on_blog:
        site.write(
            shop='max_request_time = "9s"\n',
            blog='thread_count = 3\nenv = { COLOUR = "red" }\n',
            pool="max_concurrent_spawns = 2\n",
        )
        lines = site.reload()
        assert "- wiki (development): it ends after its requests" in lines
        assert "* blog (development): env: +COLOUR (it is restarted, rolling)" in lines
        eventually(lambda: site.ask("blog")[:3] == ("blog", "red", "True"))
        eventually(lambda: "wiki" not in site.groups())
    assert {r.status if not isinstance(r, Exception) else r for r in on_shop.results + on_blog.results} == {200}
    assert site.ask("shop")[:3] == shop[:3]
    assert shop[3] in site.pids("shop"), "under load there may be a second one beside it"
    eventually(lambda: blog[3] not in site.pids("blog"))  # the load had more of them started: each is replaced in turn
    assert site.ask("wiki") == ("404",)
    site.write(shop="", blog="", wiki="")
    site.reload()
    assert site.ask("wiki")[0] == "wiki"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "max_request_tim = 3\n",
            "passenger-trio.toml:11: there is no option max_request_tim; did you mean max_request_time?",
        ),
        ("thread_count = 0\n", "passenger-trio.toml:11: thread_count"),
        ("min_instances = 99\n", "passenger-trio.toml:11: min_instances: 99 cannot be used"),
        ('startup_file = "nowhere.py"\n', "passenger-trio.toml:9: "),
    ],
)
def test_an_error_names_file_and_line_and_changes_nothing(site: Site, text: str, message: str) -> None:
    """OP1"""
    site.write(shop="", blog="")
    site.reload()
    before = site.ask("shop")
    site.write(shop=text, wiki="")
    assert message in site.refused()
    assert site.groups() == ["blog", "shop"]
    assert site.ask("shop") == before
    site.write(shop="", blog="")


def test_OB1_the_metrics_tell_how_the_last_reload_ended(site: Site) -> None:
    """A dry run is none, and what is refused leaves the time of the configuration that is served."""

    def told() -> tuple[str, float]:
        with RawClient(f"{site.server.instance_dir}/admin.sock") as client:
            lines = client.request("GET", "/metrics").text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        before = "passenger_trio_config_last_reload_"
        return values[f"{before}successful"], float(values[f"{before}success_timestamp_seconds"])

    begun = time.time()
    site.write(shop="", blog="")
    site.reload()
    done, at = told()
    assert done == "1"
    assert begun <= at <= time.time()
    site.write(shop="thread_count = 0\n")
    site.command("--dry-run", code=1)
    assert told() == ("1", at)
    site.refused()
    assert told() == ("0", at)
    site.write(shop="", blog="")
    site.reload()
    done, later = told()
    assert done == "1"
    assert later > at


def test_what_cannot_change_is_named_and_nothing_is_applied(site: Site) -> None:
    """OP2: by the command and by SIGHUP."""
    site.write(shop="", blog="")
    site.reload()
    before = site.ask("shop")
    site.write(shop="", wiki="", server=f'data_buffer_dir = "{site.root}"\n')
    (error,) = site.command(code=1)
    assert "! server: data_buffer_dir: none -> " in error
    site.server.process.send_signal(signal.SIGHUP)
    site.server.wait_log(
        "keeping the previous configuration, and restarting all applications with it: nothing is changed: ! server: data_buffer_dir"
    )
    eventually(lambda: site.ask("shop") != before)
    assert site.groups() == ["blog", "shop"]
    site.write(shop="", blog="")


def test_sighup_reloads_and_restarts_all(site: Site) -> None:
    """OP2"""
    site.write(shop="", blog="")
    site.reload()
    shop = site.ask("shop")
    site.write(shop="", wiki="")
    with Load(site.server, "/shop/", 2) as load:
        site.server.process.send_signal(signal.SIGHUP)
        eventually(lambda: site.ask("wiki")[0] == "wiki")
        eventually(lambda: site.ask("shop") != shop)
        eventually(lambda: site.groups() == ["shop", "wiki"])
    assert {r.status if not isinstance(r, Exception) else r for r in load.results} == {200}


def test_a_listener_that_is_the_same_is_never_closed(site: Site) -> None:
    """OP3: a connection that is open stays, too."""
    site.write(shop="")
    site.reload()
    with site.server.connect() as held:
        assert held.get("/shop/").status == 200
        site.write(shop="", server="socket_backlog = 100\n")
        assert site.reload() == ["= server: socket_backlog: 2048 -> 100"]
        assert held.get("/shop/").status == 200
    assert site.ask("shop")[0] == "shop"
    site.write(shop="")
    site.reload()


def test_a_listener_opens_and_another_closes(tmp_path: Path) -> None:
    """OP3: the new one first; a connection of the old one is served to its end. An address that is taken changes nothing.

    OP1: nor do applications change where the server was given a relative path.
    """
    it = Site(tmp_path)
    it.add("shop")
    old, new, taken = (str(tmp_path / f"{name}.sock") for name in ("old", "new", "taken"))
    it.write(shop="", server=f'socket = "{old}"\n')
    with (
        Supervisor.start(os.path.relpath(tmp_path), env={"PASSENGER_TRIO_PORT": None}) as it.server,
        socket.socket(socket.AF_UNIX) as other,
    ):
        other.bind(taken)
        other.listen()
        with RawClient(old) as held:
            assert held.get("/shop/").status == 200
            it.write(shop="", server=f'socket = "{taken}"\n')
            assert "taken.sock" in it.refused()
            assert held.get("/shop/").status == 200
            it.write(shop="", server=f'socket = "{new}"\n')
            assert it.reload() == [f"= server: socket: {old} -> {new}"]
            assert held.get("/shop/").status == 200
            with RawClient(new) as client:
                assert client.get("/shop/").status == 200
        assert not os.path.exists(old)
        assert it.server.status()["addresses"] == [f"unix:{new}"]
        assert it.server.stop() == 0
    assert not os.path.exists(new)


def test_a_name_may_come_back(site: Site) -> None:
    """OP1: another application of the same name, at once, while the first one has a request."""
    site.write(shop="", blog="")
    site.reload()
    for _ in range(3):
        site.write(blog="")
        site.reload()
        site.write(shop="", blog="")
        site.reload()
        assert site.ask("shop")[0] == "shop"


def test_an_environment_that_changes_loses_nothing(site: Site) -> None:
    """OP3: it is another application for the pool, and the first one serves until it is there."""
    site.write(shop="", blog="")
    site.reload()
    with Load(site.server, "/shop/", 2) as load:
        site.write(shop='environment = "production"\n', blog="")
        site.reload()
        site.write(shop="", blog="")
        site.reload()
    assert {r.status if not isinstance(r, Exception) else r for r in load.results} == {200}


def test_host_names_change_at_once(site: Site) -> None:
    """OP3: routes change at once."""
    site.write(shop='host_name = ["a.test"]\n')
    site.reload()

    def status(host: str) -> int:
        client = http.client.HTTPConnection(*site.server.address, timeout=30)
        client.request("GET", "/shop/", headers={"Host": host})
        got = client.getresponse().status
        client.close()
        return got

    assert (status("a.test"), status("b.test")) == (200, 404)
    site.write(shop='host_name = ["b.test"]\n')
    site.reload()
    assert (status("a.test"), status("b.test")) == (404, 200)


def test_FR4_with_several_fronts_a_reload_means_the_same(tmp_path: Path) -> None:
    """Applications come and go, options change, connections stay; a front that is started later serves the same. Another address is refused."""
    site = Site(tmp_path)
    for name in ("shop", "blog", "wiki"):
        site.add(name)
    two = 'fronts = "2"\n'
    site.write(server=two, shop="", wiki="")
    with Supervisor.start(site.root) as site.server, contextlib.ExitStack() as stack:
        assert site.reload() == []
        there = [stack.enter_context(site.server.connect()) for _ in range(6)]
        assert {client.get("/wiki/").status for client in there} == {200}
        site.write(
            pool='pool_idle_time = "77s"\n', server=f"{two}max_request_body = 9\n", shop="max_requests = 5\n", blog=""
        )
        assert len(site.reload()) == 5
        eventually(lambda: site.groups() == ["blog", "shop"], 30, "what is not served any more has ended")
        assert {client.get("/blog/").status for client in there} == {200}, "each front serves what was added"
        assert {site.ask("wiki") for _ in range(6)} == {("404",)}
        assert {_posted(site) for _ in range(6)} == {413}
        site.write(server=f'{two}socket = "{tmp_path}/other.sock"\n', shop="", blog="", wiki="")
        problem = site.refused()
        assert "socket" in problem
        assert "wiki" not in problem
        assert site.groups() == ["blog", "shop"]
        victim = site.server.status()["fronts"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: _is_back(site, victim["pid"]), 60, "the front is back")
        after = [stack.enter_context(site.server.connect()) for _ in range(6)]
        assert {client.get("/blog/").status for client in after} == {200}


def _posted(site: Site) -> int:
    with site.server.connect() as client:
        return client.request("POST", "/shop/", body=b"0123456789").status


def _is_back(site: Site, before: int) -> bool:
    front = site.server.status()["fronts"][0]
    return bool(front["alive"] and front["pid"] != before)
