"""OP12: which changed files restart an application in development."""

from __future__ import annotations

import pytest

from passenger_trio.core.reload_filter import ReloadFilter


@pytest.mark.parametrize(
    "path",
    ["app.py", "shop/views.py", "templates/index.html", "config/settings.toml", ".env", "app.js", "Gemfile", "a/b.erb"],
)
def test_code_templates_and_configuration_count(path: str) -> None:
    assert ReloadFilter().concerns(path)
    assert not ReloadFilter(exclude=(path.rpartition("/")[2],)).concerns(path)


@pytest.mark.parametrize(
    "path",
    [
        *("db.sqlite3", "data.json", "uploads/a.png", "log/development.log", "app.pyc", "notes.txt", "app.py~", ".app.py.swp"),
        *("__pycache__/app.py", "node_modules/x/index.js", ".git/hooks/a.py", ".venv/lib/a.py", "lib/site-packages/a.py", "tmp/a.py"),
    ],
)  # fmt: skip
def test_what_an_application_writes_or_has_installed_does_not(path: str) -> None:
    assert not ReloadFilter().concerns(path)


def test_more_files_and_fewer() -> None:
    assert ReloadFilter(include=("*.sql",)).concerns("queries/all.sql")
    assert ReloadFilter(include=("locale/*",)).concerns("locale/de.po")
    assert not ReloadFilter(include=("locale/*",)).concerns("other/de.po")
    assert not ReloadFilter(exclude=("generated",)).concerns("generated/a.py")
    assert not ReloadFilter(exclude=("shop/generated/",)).concerns("shop/generated/deep/a.py")
    assert ReloadFilter(exclude=("shop/generated",)).concerns("generated/a.py")
    assert not ReloadFilter(include=("*.sql",), exclude=("*.sql",)).concerns("a.sql")
    assert not ReloadFilter(include=("*",)).concerns("node_modules/a.py")
