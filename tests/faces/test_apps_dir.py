"""OP4: a directory of files, one application each, is followed while the server runs.

Starts the command: `--apps-dir` is the subject.
"""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faces_tools import Load, run_command, write_app
from needs import needs

from passenger_trio.testing import RawClient, Supervisor, eventually

pytestmark = pytest.mark.os

APP = """
import os
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.environ.get('COLOUR', '-')} {os.getpid()}".encode()]
"""


class Folder:
    """The directory, and its server."""

    def __init__(self, root: Path, server: Supervisor) -> None:
        self.root = root
        self.server = server

    def write(self, name: str, text: str = "") -> None:
        (self.root / "apps" / f"{name}.toml").write_text(f'root = "../site"\nbase_uri = "/{name}"\n{text}')

    def remove(self, name: str) -> None:
        (self.root / "apps" / f"{name}.toml").unlink()

    def ask(self, name: str) -> list[str]:
        answer = self.server.get(f"/{name}")
        return answer.body.decode().split() if answer.status == 200 else [str(answer.status)]

    def broken(self) -> dict[str, str]:
        return {Path(one["file"]).name: one["error"] for one in self.server.status()["broken_files"]}

    def reload_is_told_as_done(self) -> bool:
        """By the metrics."""
        with RawClient(str(self.server.ready["admin_socket"])) as client:
            text = client.request("GET", "/metrics").text
        return "passenger_trio_config_last_reload_successful 1\n" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    root = tmp_path_factory.mktemp("host")
    write_app(root / "site", APP)
    (root / "apps").mkdir()
    (root / "apps" / "first.toml").write_text('root = "../site"\nbase_uri = "/first"\n')
    (root / "apps" / "bad.toml").write_text("root = \n")
    (root / "passenger-trio.toml").write_text('[server]\napps_dir = "apps"\n')
    with Supervisor.start(root) as server:
        yield Folder(root, server)
        assert server.stop() == 0


def test_a_file_that_is_broken_at_the_start_is_told_and_the_others_are_served(folder: Folder) -> None:
    assert folder.ask("first")[0] == "-"
    assert "it is not valid TOML" in folder.broken()["bad.toml"]
    folder.server.wait_log("bad.toml: ")
    assert not folder.reload_is_told_as_done()
    folder.remove("bad")
    eventually(lambda: folder.broken() == {})
    assert folder.reload_is_told_as_done()


def test_files_come_change_and_go(folder: Folder) -> None:
    """Each within 2 seconds; the others keep their processes, and no request fails."""
    first = folder.ask("first")
    with Load(folder.server, "/first", 2) as load:
        begun = time.monotonic()
        folder.write("second", 'env = { COLOUR = "red" }\n')
        eventually(lambda: folder.ask("second")[0] == "red")
        folder.write("second", 'env = { COLOUR = "blue" }\n')
        eventually(lambda: folder.ask("second")[0] == "blue")
        folder.remove("second")
        eventually(lambda: folder.ask("second") == ["404"])
        assert time.monotonic() - begun < 60
    assert {r.status if not isinstance(r, Exception) else r for r in load.results} == {200}
    assert folder.ask("first") == first


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("thread_cuont = 2\n", "third.toml:3: there is no option thread_cuont; did you mean thread_count?"),
        ("min_instances = -1\n", "third.toml:3: min_instances"),
        ('root = "nowhere"\n', "third.toml: it is not valid TOML"),
        ('startup_file = "nowhere.py"\n', "third.toml:1: "),
        ('name = "first"\n', "the name 'first (development)' is taken by"),
        ("min_instances = 50\n", "min_instances: 50 cannot be used: --max-pool-size allows 6 processes"),
        ('loop = "trio"\n', "third.toml:3: loop: 'trio' cannot be used"),
    ],
)
def test_a_broken_file_keeps_its_last_good_version(folder: Folder, text: str, why: str) -> None:
    folder.write("third")
    eventually(lambda: len(folder.ask("third")) == 2)
    eventually(lambda: "third.toml" not in folder.broken())
    third, first = folder.ask("third"), folder.ask("first")
    folder.write("third", text)
    eventually(lambda: why in folder.broken().get("third.toml", ""))
    assert (folder.ask("third"), folder.ask("first")) == (third, first)
    folder.write("third")
    eventually(lambda: "third.toml" not in folder.broken())
    assert folder.ask("third") == third


def test_OP4_what_is_no_file_is_told_and_holds_up_nobody(folder: Folder) -> None:
    """A FIFO that is named like one: opening it would wait for ever."""
    os.mkfifo(folder.root / "apps" / "pipe.toml")
    eventually(lambda: "it is no regular file" in folder.broken().get("pipe.toml", ""))
    folder.write("fourth")
    eventually(lambda: len(folder.ask("fourth")) == 2)
    folder.remove("pipe")
    eventually(lambda: "pipe.toml" not in folder.broken())


def test_OP4_a_file_that_is_well_without_a_change_of_its_own_is_taken_over_by_a_reload(folder: Folder) -> None:
    (folder.root / "apps" / "fifth.toml").write_text('root = "../later"\nbase_uri = "/fifth"\n')
    eventually(lambda: "there is no directory" in folder.broken().get("fifth.toml", ""))
    write_app(folder.root / "later", APP)
    assert run_command("reload", "--instance", str(folder.server.instance_dir)).returncode == 0
    assert len(folder.ask("fifth")) == 2
    assert "fifth.toml" not in folder.broken()


def test_OP4_a_file_that_is_the_first_to_ask_for_another_user_or_group_is_served_and_holds_up_no_other(
    folder: Folder,
) -> None:
    """The server was started with nothing of the kind. Another group needs the same places for sockets as another user."""
    needs(os.geteuid() == 0, "root, to run an application in another group")
    first = folder.ask("first")
    folder.write("grouped", 'group = "daemon"\n')
    folder.write("after")
    eventually(lambda: len(folder.ask("after")) == 2)
    eventually(lambda: len(folder.ask("grouped")) == 2)
    groups = next(
        line.split()[1:]
        for line in Path(f"/proc/{folder.ask('grouped')[1]}/status").read_text().splitlines()
        if line.startswith("Gid:")
    )
    assert groups == [str(grp.getgrnam("daemon").gr_gid)] * 4
    assert folder.ask("first") == first
    assert not {"grouped.toml", "after.toml"} & folder.broken().keys()
    folder.remove("grouped")
    folder.remove("after")
    eventually(lambda: (folder.ask("grouped"), folder.ask("after")) == (["404"], ["404"]))
