"""R47: what an application's directory has in a file's stead is neither waited for nor read for ever."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from passenger_trio.spawning.find_node_app import _text as node_text
from passenger_trio.spawning.ruby import _text as ruby_text
from passenger_trio.system.regular_files import read_regular


def test_a_file_is_read_as_far_as_is_wanted(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"x" * 100)
    link.symlink_to(file)
    assert read_regular(str(file), 1000) == b"x" * 100
    assert read_regular(str(link), 10) == b"x" * 10


def test_what_is_none_to_read(instance_dir: Path) -> None:
    fifo, directory, sock = instance_dir / "fifo", instance_dir / "directory", instance_dir / "sock"
    os.mkfifo(fifo)
    directory.mkdir()
    zero = instance_dir / "zero"
    zero.symlink_to("/dev/zero")
    for path in (fifo, directory, zero, instance_dir / "missing", fifo / "below"):
        assert read_regular(str(path), 10) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(sock))
        with pytest.raises(OSError, match="No such device"):
            read_regular(str(sock), 10)


@pytest.mark.parametrize("name", [".ruby-version", "package.json"])
def test_R47_no_application_holds_the_server_up_by_a_file(tmp_path: Path, name: str) -> None:
    """The files that are read for detection: a FIFO is no file, and a device is not read."""
    path = tmp_path / name
    for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        make(path)
        assert node_text(str(path)) == ""
        assert ruby_text(str(tmp_path), name) == ""
        path.unlink()
    path.write_text("3.1.2")
    assert node_text(str(path)) == ruby_text(str(tmp_path), name) == "3.1.2"
