"""Instance directories: private, locked as long as they live, found by others, gone without a trace."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import passenger_trio
from passenger_trio.admin import registry
from passenger_trio.admin.registry import (
    LONGEST_SOCKET_NAME,
    LONGEST_SOCKET_PATH,
    _lock,
    base_directories,
    create_instance_dir,
    default_base,
    find_instance,
    list_instances,
)
from passenger_trio.errors import OptionError
from passenger_trio.system.private_dirs import make_private, why_insecure
from passenger_trio.testing.harness import eventually

ROOT = Path(passenger_trio.__file__).parents[1]


@pytest.fixture
def base() -> Iterator[str]:
    # pytest's own directories have long names, and a socket's path is short.
    path = tempfile.mkdtemp(prefix="pt", dir="/tmp")
    yield path
    shutil.rmtree(path, ignore_errors=True)


class TestANewInstance:
    def test_its_directory_is_private_and_short(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        assert os.path.dirname(instance.path) == base
        assert os.stat(instance.path).st_mode & 0o777 == 0o700
        assert os.stat(os.path.join(instance.path, "lock")).st_mode & 0o777 == 0o600
        assert len(instance.admin_socket) <= LONGEST_SOCKET_PATH
        assert os.path.dirname(instance.spawn_socket) == instance.path
        instance.remove()

    def test_it_is_listed_with_what_it_said(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        [before] = list_instances([base])
        assert (before.is_live, before.pid) == (True, 0)
        instance.write(["http://127.0.0.1:3000/"])
        [listed] = list_instances([base])
        assert listed.name == instance.name
        assert listed.pid == os.getpid()
        assert listed.addresses == ("http://127.0.0.1:3000/",)
        assert listed.admin_socket == instance.admin_socket
        assert listed.contract == 1
        instance.remove()

    def test_several_are_listed_the_oldest_first(self, base: str) -> None:
        instances = [create_instance_dir(base=base) for _ in range(3)]
        for instance in instances:
            instance.write([])
        assert [one.name for one in list_instances([base])] == [one.name for one in instances]
        for instance in instances:
            instance.remove()

    def test_removing_leaves_nothing_and_may_be_repeated(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        instance.write([])
        Path(instance.admin_socket).touch()
        instance.remove()
        instance.remove()
        assert os.listdir(base) == []

    @pytest.mark.parametrize("explicit", [False, True])
    def test_one_that_cannot_be_locked_leaves_nothing(
        self, base: str, explicit: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another thread has taken the last descriptor, just between the directory and its lock: a limit alone stops what comes before."""

        def lock(path: str, *, wait: bool) -> int | None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(registry, "_lock", lock)
        with pytest.raises(OptionError, match="Too many open files"):
            create_instance_dir(f"{base}/mine") if explicit else create_instance_dir(base=base)
        assert os.listdir(base) == []

    def test_its_lock_is_not_inherited(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        assert not os.get_inheritable(instance._lock)
        instance.remove()


@pytest.mark.os
class TestTheDead:
    def leave(self, base: str) -> str:
        """What a killed instance leaves."""
        program = (
            "import os, sys; from passenger_trio.admin.registry import create_instance_dir\n"
            "instance = create_instance_dir(base=sys.argv[1]); instance.write([]); print(instance.name, flush=True); os._exit(9)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program, base], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT
        )
        assert ended.returncode == 9
        return ended.stdout.strip()

    def test_they_are_recognised(self, base: str) -> None:
        name = self.leave(base)
        assert list_instances([base]) == []
        [stale] = list_instances([base], include_stale=True)
        assert (stale.name, stale.is_live) == (name, False)

    def test_the_next_instance_removes_them(self, base: str) -> None:
        name = self.leave(base)
        living = create_instance_dir(base=base)
        following = create_instance_dir(base=base)
        assert set(os.listdir(base)) == {living.name, following.name}
        assert name not in os.listdir(base)
        living.remove()
        following.remove()

    def test_a_directory_that_is_being_made_is_left_alone(self, base: str) -> None:
        os.mkdir(os.path.join(base, "newone"), 0o700)
        old = os.path.join(base, "oldone")
        os.mkdir(old, 0o700)
        os.utime(old, (0, 0))
        instance = create_instance_dir(base=base)
        assert set(os.listdir(base)) == {"newone", instance.name}
        instance.remove()

    def test_a_lock_that_was_tidied_away_is_not_taken_for_held(self, base: str) -> None:
        instance = create_instance_dir(explicit=os.path.join(base, "mine"))
        os.unlink(os.path.join(instance.path, "lock"))
        assert find_instance(instance.path) is None
        instance.remove()

    def test_a_lock_that_was_tidied_away_while_it_was_waited_for(self, base: str) -> None:
        path = os.path.join(base, "lock")
        with open(path, "w") as held, ThreadPoolExecutor(1) as pool:
            fcntl.flock(held, fcntl.LOCK_EX)
            waits = pool.submit(_lock, base, wait=True)
            # The kernel says who waits for it.
            inode = os.stat(path).st_ino
            eventually(lambda: re.search(rf"-> FLOCK .*:{inode} ", Path("/proc/locks").read_text()))
            os.unlink(path)
            fcntl.flock(held, fcntl.LOCK_UN)
            assert waits.result(30) is None
        lock = _lock(base, wait=True)
        assert lock is not None
        os.close(lock)


class TestAChosenDirectory:
    def test_a_new_one_is_made_and_removed(self, base: str) -> None:
        path = os.path.join(base, "mine")
        instance = create_instance_dir(path)
        assert instance.path == path
        instance.remove()
        assert not os.path.exists(path)

    def test_an_empty_one_is_used_and_kept(self, base: str) -> None:
        instance = create_instance_dir(base)
        instance.write([])
        instance.remove()
        assert os.listdir(base) == []

    def test_that_of_a_dead_instance_is_used_again(self, base: str) -> None:
        for name in ("lock", "admin.sock", "instance.json"):
            Path(base, name).touch()
        instance = create_instance_dir(base)
        assert os.listdir(base) == ["lock"]
        instance.remove()

    def test_that_of_a_living_instance_is_refused(self, base: str) -> None:
        instance = create_instance_dir(base)
        instance.write([])
        with pytest.raises(OptionError) as caught:
            create_instance_dir(base)
        assert f"pid {os.getpid()}" in str(caught.value)
        instance.remove()

    def test_one_with_other_files_is_refused_and_not_touched(self, base: str) -> None:
        Path(base, "letters.txt").write_text("dear")
        with pytest.raises(OptionError):
            create_instance_dir(base)
        assert Path(base, "letters.txt").read_text() == "dear"

    def test_it_is_found_by_its_path_and_by_its_socket(self, base: str) -> None:
        instance = create_instance_dir(base)
        for path in (base, instance.admin_socket):
            found = find_instance(path)
            assert found is not None
            assert found.is_live
        instance.remove()
        assert find_instance(base) is None

    def test_a_path_that_is_too_long_is_refused_at_once(self, base: str) -> None:
        most = LONGEST_SOCKET_PATH - 1 - LONGEST_SOCKET_NAME
        longest = base + "/" + "x" * (most - len(base) - 1)
        create_instance_dir(longest).remove()
        with pytest.raises(OptionError) as caught:
            create_instance_dir(longest + "x")
        assert f"at most {most} bytes" in str(caught.value)
        assert not os.path.exists(longest + "x")


class TestWhatIsNotPrivate:
    """F57: refused with a clear text, and not repaired."""

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
    def test_open_to_others(self, base: str, mode: int) -> None:
        os.chmod(base, mode)
        with pytest.raises(OptionError) as caught:
            create_instance_dir(base)
        assert "open to other users" in str(caught.value)
        assert list_instances([base]) == []

    def test_a_symbolic_link(self, base: str) -> None:
        os.mkdir(os.path.join(base, "real"), 0o700)
        os.symlink("real", os.path.join(base, "link"))
        with pytest.raises(OptionError) as caught:
            create_instance_dir(os.path.join(base, "link"))
        assert "symbolic link" in str(caught.value)
        assert os.listdir(os.path.join(base, "real")) == []

    def test_in_a_directory_where_others_could_replace_it(self, base: str) -> None:
        above = os.path.join(base, "open")
        os.mkdir(above)
        os.chmod(above, 0o777)
        with pytest.raises(OptionError) as caught:
            create_instance_dir(os.path.join(above, "mine"))
        assert "sticky" in str(caught.value)
        assert os.listdir(above) == []
        for mode in (0o720, 0o702):
            os.chmod(above, mode)
            with pytest.raises(OptionError, match="sticky"):
                create_instance_dir(os.path.join(above, "mine"))
        for mode in (0o1777, 0o755):
            os.chmod(above, mode)
            create_instance_dir(os.path.join(above, "mine")).remove()

    def test_of_another_user(self, base: str) -> None:
        path = "/usr"
        if os.geteuid() == 0:
            path = os.path.join(base, "theirs")
            os.mkdir(path, 0o700)
            os.chown(path, 12345, 12345)
        assert "another user" in why_insecure(path)
        with pytest.raises(PermissionError):
            make_private(os.path.join(path, "ours"))
        assert "ours" not in os.listdir(path)

    def test_links_inside_are_not_followed(self, base: str) -> None:
        """A lock or a description that is a link to somewhere else is not believed."""
        place = os.path.join(base, "abcdef")
        os.mkdir(place, 0o700)
        outside = os.path.join(base, "held")
        with open(outside, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            os.symlink(outside, os.path.join(place, "lock"))
            assert find_instance(place) is None

    def test_a_link_for_a_lock_is_not_taken(self, base: str) -> None:
        """Neither one to nothing, where the other end would be made, nor one of what looks like a dead instance: that would be removed."""
        place, outside = os.path.join(base, "abcdef"), os.path.join(base, "outside")
        os.mkdir(place, 0o700)
        os.symlink(outside, os.path.join(place, "lock"))
        with pytest.raises(OptionError, match="its lock cannot be had"):
            create_instance_dir(place)
        assert not os.path.exists(outside)
        Path(outside).write_text("")
        Path(place, "kept").write_text("")
        instance = create_instance_dir(base=base)
        assert sorted(os.listdir(place)) == ["kept", "lock"]
        instance.remove()

    def test_a_link_for_a_description_is_neither_read_nor_written_through(self, base: str) -> None:
        outside = Path(base, "outside")
        instance = create_instance_dir(os.path.join(base, "mine"))
        instance.write(["http://a"])
        os.rename(os.path.join(instance.path, "instance.json"), outside)
        os.symlink(outside, os.path.join(instance.path, "instance.json"))
        found = find_instance(instance.path)
        assert found is not None
        assert (found.pid, found.addresses) == (0, ())
        before = outside.read_text()
        os.symlink(outside, os.path.join(instance.path, "instance.json.new"))
        with pytest.raises(OptionError):
            instance.write(["http://b"])
        assert outside.read_text() == before
        instance.remove()

    def test_what_is_in_a_directory_that_is_not_safe_is_not_listed(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        instance.write(["http://a"])
        assert [found.name for found in list_instances([base])] == [instance.name]
        os.chmod(base, 0o755)
        assert list_instances([base]) == []
        os.chmod(base, 0o700)
        instance.remove()


class TestTheBase:
    def test_the_runtime_directory_comes_first(self, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        assert base_directories()[:2] == [f"{base}/passenger-trio", f"/tmp/passenger-trio-{os.geteuid()}"]
        assert default_base() == f"{base}/passenger-trio"
        assert os.stat(default_base()).st_mode & 0o777 == 0o700

    def test_a_runtime_directory_that_is_not_there_is_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
        monkeypatch.delenv("TMPDIR", raising=False)
        assert base_directories() == [f"/tmp/passenger-trio-{os.geteuid()}"]

    def test_one_that_is_not_safe_is_passed_over(self, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
        os.mkdir(os.path.join(base, "passenger-trio"))
        os.chmod(os.path.join(base, "passenger-trio"), 0o777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        assert default_base() != f"{base}/passenger-trio"

    def test_a_description_that_makes_no_sense_does_not_hide_an_instance(self, base: str) -> None:
        instance = create_instance_dir(base=base)
        for text in ("", "[]", "{}", json.dumps({"pid": "x"}), "\0" * 100):
            Path(instance.path, "instance.json").write_text(text)
            [listed] = list_instances([base])
            assert (listed.is_live, listed.pid) == (True, 0)
        instance.remove()
