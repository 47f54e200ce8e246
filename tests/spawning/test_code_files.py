"""The signature of an application's code: it changes with the code, and with nothing else that lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from passenger_trio.spawning.code_files import code_signature


def write(root: Path, name: str, text: str = "x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["app.py", "config.ru", "lib/deep/er.rb", "server.mjs"])
def test_code_that_appears_changes_and_goes_is_seen(name: str, tmp_path: Path) -> None:
    """KE9."""
    write(tmp_path, "passenger_wsgi.py")
    seen = [code_signature(str(tmp_path))]
    path = write(tmp_path, name)
    seen.append(code_signature(str(tmp_path)))
    path.write_text("longer")
    seen.append(code_signature(str(tmp_path)))
    os.utime(path, ns=(1, 1))
    seen.append(code_signature(str(tmp_path)))
    assert len(set(seen)) == 4
    path.unlink()
    assert code_signature(str(tmp_path)) == seen[0]


@pytest.mark.parametrize(
    "name",
    ["db.sqlite3", "log/x.py", "tmp/x.py", ".git/x.py", "node_modules/a/x.js", "__pycache__/x.py", "env/lib/x.py"],
)
def test_what_an_application_writes_and_what_is_installed_is_no_code(name: str, tmp_path: Path) -> None:
    write(tmp_path, "passenger_wsgi.py")
    write(tmp_path, "env/pyvenv.cfg")
    before = code_signature(str(tmp_path))
    write(tmp_path, name)
    assert code_signature(str(tmp_path)) == before


def test_what_cannot_be_read_breaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "gone.py").symlink_to("nowhere")
    (tmp_path / os.fsdecode(b"\xff.py")).write_text("x")
    assert code_signature(str(tmp_path)) == code_signature(str(tmp_path))
    assert code_signature(str(tmp_path / "no such directory")) == code_signature("/proc/self/fd/no")


def test_what_is_looked_at_has_a_bound_and_code_near_the_root_is_seen_before_uploads(tmp_path: Path) -> None:
    """KE9: an application with a million uploads costs no more than one with thousands, and its own code is still seen."""
    for number in range(50):
        write(tmp_path, f"a_media/{number % 5}/{number}.jpg")
    code = write(tmp_path, "site/app.py")
    far = write(tmp_path, "a_media/9/z.py")
    before = code_signature(str(tmp_path), 20)
    far.write_text("changed")
    assert code_signature(str(tmp_path), 20) == before
    code.write_text("changed")
    assert code_signature(str(tmp_path), 20) != before
