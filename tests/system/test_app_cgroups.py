"""OP9: a cgroup for each application. The controllers are tried with a directory that keeps the kernel's rules about them;
that it does is verified with the real cgroupfs, as far as that can be written. ``tests/faces/test_cgroups_of_applications.py``
has the real tree, with real processes.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from passenger_trio.core.app_cgroup import UNLIMITED_FILES
from passenger_trio.system import app_cgroups, cgroups
from passenger_trio.system.app_cgroups import AppCgroups
from passenger_trio.system.cgroup_dirs import own_directory
from passenger_trio.system.cgroups import OwnCgroup, remove_cgroup, write_file

FILES = {"memory.max": "1000", "pids.max": "7"}
ALL = "cpu io memory pids"


class Kernel:
    """Writes to ordinary files under ``root``, and refuses what cgroups(7) says that the kernel refuses."""

    def __init__(self, root: Path, controllers: str = "") -> None:
        self.root = root
        (root / "cgroup.controllers").write_text(controllers)
        self.killed: list[str] = []

    def words(self, path: Path, name: str) -> list[str]:
        file = path / name
        return file.read_text().split() if file.exists() else []

    def write(self, name: str, text: str) -> bool:
        path, file = Path(name).parent, Path(name).name
        if not path.is_dir():
            return False
        if file == "cgroup.procs":
            if path != self.root and self.words(path, "cgroup.subtree_control"):
                return False  # no internal processes
            for other in self.root.rglob("cgroup.procs"):
                other.write_text("\n".join(pid for pid in self.words(other.parent, "cgroup.procs") if pid != text))
            (path / file).write_text("\n".join([*self.words(path, file), text]))
            return True
        if file == "cgroup.subtree_control":
            if text[1:] not in self.words(path, "cgroup.controllers"):
                return False
            if path != self.root and self.words(path, "cgroup.procs"):
                return False
            enabled = [*self.words(path, file), text[1:]]
            (path / file).write_text(" ".join(enabled))
            for below in path.iterdir():
                if below.is_dir():
                    (below / "cgroup.controllers").write_text(" ".join(enabled))
            return True
        if file == "cgroup.kill":
            self.killed.append(path.name)
            for one in path.iterdir():
                one.unlink()
            return True
        if file.partition(".")[0] not in self.words(path.parent, "cgroup.subtree_control"):
            return False
        (path / file).write_text(text)
        return True


class Tree:
    """A supervisor's cgroup below ``above``, which is below the root."""

    def __init__(self, kernel: Kernel, *, delegated: str = "", here: str = "", others: str = "") -> None:
        """:param delegated: controllers that ``above`` has. :param here: those that it hands down already.
        :param others: pids of strangers in ``above``.
        """
        self.kernel = kernel
        self.above = kernel.root / "above"
        self.own = self.above / "own"
        self.own.mkdir(parents=True)
        (self.above / "cgroup.controllers").write_text(delegated)
        (self.above / "cgroup.subtree_control").write_text(here)
        (self.above / "cgroup.procs").write_text("\n".join(["77", *others.split()]) if not here else "")
        (self.own / "cgroup.controllers").write_text(here)
        (self.own / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}")
        self.cgroups = AppCgroups(OwnCgroup(str(self.own), str(self.above), -1, 77), UNLIMITED_FILES)

    def read(self, name: str) -> str:
        path = self.above / name
        return path.read_text() if path.exists() else ""


MakeTree = Callable[..., Tree]


@pytest.fixture
def a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTree:
    def make(**facts: str) -> Tree:
        kernel = Kernel(tmp_path, ALL)
        monkeypatch.setattr(cgroups, "write_file", kernel.write)
        monkeypatch.setattr(app_cgroups, "write_file", kernel.write)
        return Tree(kernel, **facts)

    return make


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_OP9_where_the_cgroup_above_hands_controllers_down(a_tree: MakeTree, caplog: pytest.LogCaptureFixture) -> None:
    tree = a_tree(delegated=ALL, here=ALL)
    tree.cgroups.enter("shop", FILES, 1000)
    assert (tree.read("own/app.1/memory.max"), tree.read("own/app.1/pids.max")) == ("1000", "7")
    assert tree.read("own/app.1/cgroup.procs") == "1000"
    assert tree.read("own/server/cgroup.procs").split() == [str(os.getpid()), str(os.getppid())], "we made room"
    assert tree.read("own/cgroup.procs") == ""
    assert not tree.read("own.watch/cgroup.procs"), "the watchdog may stay"
    assert not said(caplog)


def test_OP9_a_delegated_cgroup_is_emptied_to_hand_controllers_down(
    a_tree: MakeTree, caplog: pytest.LogCaptureFixture
) -> None:
    """As systemd's ``Delegate=yes``: only the watchdog is left there."""
    tree = a_tree(delegated=ALL)
    tree.cgroups.enter("shop", FILES, 1000)
    assert tree.read("own.watch/cgroup.procs") == "77"
    assert set(tree.read("cgroup.subtree_control").split()) == {"cpu", "memory", "pids"}, "not io: nobody asked"
    assert tree.read("own/app.1/memory.max") == "1000"
    assert not said(caplog)


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        ({}, "memory, pids"),
        ({"delegated": "cpu pids"}, "memory"),
        ({"delegated": ALL, "others": "4711"}, "memory, pids"),
        ({"delegated": ALL, "here": "memory"}, "pids"),
    ],
    ids=["no controller", "not this one", "strangers beside us", "handed down in part, which stays so"],
)  # fmt: skip
def test_OP9_without_delegation_it_is_said_once_and_nothing_else_changes(
    a_tree: MakeTree, caplog: pytest.LogCaptureFixture, facts: dict[str, str], missing: str
) -> None:
    tree = a_tree(**facts)
    if facts.get("here"):
        (tree.above / "cgroup.procs").write_text("4711")
    tree.cgroups.enter("shop", FILES, 1000)
    tree.cgroups.enter("shop", FILES, 1001)
    tree.cgroups.enter("blog", FILES, 1002)
    assert len(said(caplog)) == 1
    assert f"controllers {missing} have no effect" in said(caplog)[0]
    assert tree.read("own/app.1/cgroup.procs").split() == ["1000", "1001"], "it has a cgroup of its own all the same"
    assert tree.read("own/app.2/cgroup.procs") == "1002"
    if "4711" in facts.get("others", ""):
        assert "4711" in tree.read("cgroup.procs"), "others are left where they are"


def test_OP9_a_server_without_a_cgroup_of_its_own_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    groups = AppCgroups(None, UNLIMITED_FILES)
    groups.enter("shop", FILES, 1000)
    groups.enter("shop", FILES, 1000)
    groups.change("shop", FILES)
    groups.close()
    assert said(caplog) == [
        "limits in a cgroup (memory.max, pids.max) have no effect: the server has no cgroup of its own"
    ]


def test_OP9_OP3_limits_change_while_it_runs_and_a_limit_taken_back_is_none(a_tree: MakeTree) -> None:
    tree = a_tree(delegated=ALL, here=ALL)
    tree.cgroups.change("shop", FILES)
    assert not tree.read("own/app.1/memory.max"), "it has no program yet"
    tree.cgroups.enter("shop", FILES, 1000)
    tree.cgroups.change("shop", {"memory.max": "2000", "cpu.weight": "10"})
    assert [tree.read(f"own/app.1/{name}") for name in ("memory.max", "cpu.weight", "pids.max")] == [
        "2000",
        "10",
        "max",
    ]
    tree.cgroups.change("shop", {})
    assert [tree.read(f"own/app.1/{name}") for name in ("memory.max", "cpu.weight")] == ["max", "100"]


def test_OP9_what_is_left_of_an_application_is_killed_with_its_cgroup(a_tree: MakeTree) -> None:
    tree = a_tree(delegated=ALL, here=ALL)
    tree.cgroups.enter("shop", FILES, 1000)
    tree.cgroups.enter("blog", FILES, 1001)
    left = tree.cgroups.kill("shop")
    assert left == str(tree.own / "app.1")
    remove_cgroup(left)
    assert tree.kernel.killed == ["app.1"]
    assert tree.cgroups.kill("shop") == "", "twice is once"
    assert tree.cgroups.kill("wiki") == "", "it had none"
    tree.cgroups.enter("shop", FILES, 1002)
    assert tree.read("own/app.3/cgroup.procs") == "1002", "when it comes again, it has another one"
    tree.cgroups.close()
    assert sorted(tree.kernel.killed) == ["app.1", "app.2", "app.3"]
    assert not list(tree.own.glob("app.*"))


def test_OP9_the_directory_of_these_tests_does_as_the_kernel_does(tmp_path: Path) -> None:
    """The same steps with both; with the real one where this run may make cgroups."""
    real = own_directory()[0]
    roots = [(tmp_path, Kernel(tmp_path).write)]
    path = f"{real}/passenger-trio-test.{os.getpid()}"
    try:
        if real:
            os.mkdir(path)
            roots.append((Path(path), write_file))
    except OSError:
        pass
    answers = []
    for root, write in roots:
        process = subprocess.Popen(["sleep", "1000"])
        try:
            (root / "a").mkdir()
            (root / "a/b").mkdir()
            answers.append(
                [
                    write(f"{root}/a/b/cgroup.procs", str(process.pid)),
                    (root / "a/b/cgroup.procs").read_text().split() == [str(process.pid)],
                    write(f"{root}/a/cgroup.procs", str(process.pid)),
                    (root / "a/b/cgroup.procs").read_text().split(),
                    write(f"{root}/a/cgroup.subtree_control", "+nonsense"),
                    write(f"{root}/a/b/memory.max", "1000") and "memory" in Kernel.words(Kernel(tmp_path), root / "a", "cgroup.subtree_control"),
                    write(f"{root}/c/cgroup.procs", str(process.pid)),
                    write(f"{root}/a/b/cgroup.procs", str(process.pid)),
                    write(f"{root}/a/b/cgroup.kill", "1"),
                ]
            )  # fmt: skip
            if write is write_file:
                assert process.wait(30) == -9, "cgroup.kill"
        finally:
            process.kill()
            process.wait()
            if write is write_file:
                remove_cgroup(f"{root}/a")
                remove_cgroup(str(root))
    assert answers[0] == [True, True, True, [], False, False, False, True, True]
    assert all(answer == answers[0] for answer in answers)
