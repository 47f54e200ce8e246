"""Which directory is a Rack application, and which Ruby runs it. The interpreters are small programs that answer ``-v``."""

from __future__ import annotations

from pathlib import Path

import pytest

from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.options import AppOptions
from passenger_trio.spawning.detect import DetectedApp, detect

MRI = "ruby {} (2025-03-26 revision 0a3704f218) [x86_64-linux-gnu]"
JRUBY = "jruby 9.3.9.0 (2.6.8) 2023-01-16 9.3.9.0+ds-8 OpenJDK 64-Bit Server VM 17.0.15 +jit [x86_64-linux]"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with a PATH of its own, in which ruby is 3.1.7, and an application."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.ru").write_text("run ->(env) { [200, {}, []] }\n")
    install(tmp_path / "bin" / "ruby", MRI.format("3.1.7p261"))
    return tmp_path


def install(path: Path, answer: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return str(path)


def found(home: Path, **options: str) -> DetectedApp:
    return detect(AppOptions(root=str(home / "app"), **options), environ={"PATH": str(home / "bin"), "HOME": str(home)})  # type: ignore[arg-type]


def test_config_ru_is_a_rack_application(home: Path) -> None:
    app = found(home)
    assert (app.app_type, app.startup_file, app.can_fork) == ("rack", str(home / "app" / "config.ru"), True)
    assert app.reason == "config.ru is a Rack application"
    assert (app.python, app.python_reason) == (str(home / "bin" / "ruby"), "the first in PATH (Ruby 3.1.7)")


def test_it_goes_before_python_files_that_are_named_less_plainly(home: Path) -> None:
    (home / "app" / "app.py").write_text("def application(environ, start_response): return []\n")
    assert (found(home).app_type, found(home).candidates) == ("rack", ("app.py is there, too",))
    assert found(home, app_type="wsgi").app_type == "wsgi"
    assert found(home, target="app:application").app_type == "wsgi"
    (home / "app" / "passenger_wsgi.py").write_text("def application(environ, start_response): return []\n")
    assert found(home).app_type == "wsgi"
    assert found(home, app_type="rack").app_type == "rack"


def test_another_file_can_be_named(home: Path) -> None:
    (home / "app" / "admin.ru").write_text("")
    assert found(home, startup_file="admin.ru").startup_file.endswith("/admin.ru")
    assert found(home, target="admin.ru").reason == "admin.ru was asked for, a Rack application"
    with pytest.raises(NothingToServe, match=r"there is no file other\.ru"):
        found(home, startup_file="other.ru")
    (home / "app" / "config.ru").unlink()
    with pytest.raises(NothingToServe, match=r"there is no config\.ru"):
        found(home, app_type="rack")


def test_an_application_one_level_below_is_a_near_miss(home: Path) -> None:
    with pytest.raises(NothingToServe, match=r"app/config\.ru is one level below"):
        detect(AppOptions(root=str(home)), environ={})


@pytest.mark.parametrize(
    ("file", "text", "where"),
    [
        (".ruby-version", "3.3.8\n", ".ruby-version asks for 3.3.8"),
        (".ruby-version", "ruby-3.3.8", ".ruby-version asks for ruby-3.3.8"),
        (".ruby-version", "3.3", ".ruby-version asks for 3.3"),
        (".ruby-version", "3.3.1", ".ruby-version asks for 3.3.1, the nearest that is here is Ruby 3.3.8"),
        (".tool-versions", "nodejs 20\nruby 3.3.8 # ours\n", ".tool-versions asks for 3.3.8"),
        ("Gemfile", 'source "x"\nruby "3.3.8"\n', 'the Gemfile asks for "3.3.8"'),
        ("Gemfile", 'ruby "~> 3.3.0"\n', 'the Gemfile asks for "~> 3.3.0"'),
        ("Gemfile", 'ruby file: ".version"\n', "the Gemfile asks for 3.3.8"),
        ("Gemfile", 'ruby ">= 3.0", "< 4"\n', "the first in PATH (Ruby 3.1.7)"),
        ("Gemfile", 'ruby "2.7.8"\n', "the first in PATH (Ruby 3.1.7)"),
        ("Gemfile", 'gem "rack"\n', "the first in PATH (Ruby 3.1.7)"),
    ],
)
def test_what_a_file_asks_for(home: Path, file: str, text: str, where: str) -> None:
    (home / "app" / ".version").write_text("3.3.8\n")
    newer = install(home / ".rbenv" / "versions" / "3.3.8" / "bin" / "ruby", MRI.format("3.3.8"))
    (home / "app" / file).write_text(text)
    app = found(home)
    assert app.python_reason == where
    assert app.python == (newer if "3.3" in text or "file:" in text else str(home / "bin" / "ruby"))


def test_a_version_in_path_under_its_own_name(home: Path) -> None:
    newer = install(home / "bin" / "ruby3.3", MRI.format("3.3.8"))
    (home / "app" / ".ruby-version").write_text("3.3.8")
    assert found(home).python == newer


def test_a_version_that_is_not_there(home: Path) -> None:
    (home / "app" / ".ruby-version").write_text("3.2.1\n")
    with pytest.raises(OptionError, match=r"\.ruby-version asks for Ruby 3\.2\.1, which is not found"):
        found(home)


def test_jruby_cannot_fork(home: Path) -> None:
    jruby = install(home / "bin" / "jruby", JRUBY)
    (home / "app" / ".ruby-version").write_text("jruby-9.3.9.0\n")
    app = found(home)
    assert (app.python, app.can_fork, app.python_reason) == (jruby, False, ".ruby-version asks for jruby-9.3.9.0")


def test_one_that_is_named(home: Path) -> None:
    other = install(home / "elsewhere" / "bin" / "ruby", MRI.format("3.4.1"))
    for named in (other, str(home / "elsewhere")):
        assert (found(home, ruby=named).python, found(home, ruby=named).python_reason) == (
            other,
            "named by --ruby (Ruby 3.4.1)",
        )
    assert found(home, ruby="ruby").python == str(home / "bin" / "ruby")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("Python 3.11", "does not answer like a Ruby"),
        (MRI.format("2.5.9p229"), "it is Ruby 2.5.9; applications need Ruby 2.6"),
    ],
)
def test_one_that_cannot_be_used(home: Path, answer: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        found(home, ruby=install(home / "odd", answer))


def test_none_at_all(home: Path) -> None:
    (home / "bin" / "ruby").unlink()
    with pytest.raises(OptionError, match="there is no ruby in PATH"):
        found(home)
    for named in ("nowhere", str(home / "nowhere")):
        with pytest.raises(OptionError, match=r"there is no such file|no such program"):
            found(home, ruby=named)
