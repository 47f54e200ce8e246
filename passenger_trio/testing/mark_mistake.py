"""The part of the plugin for a mistake that pytest's rules invite: ``passenger(app)`` with a function or a class as its only argument.

pytest takes that for the decoration of ``app``: the mark comes to stand at the application, and the test has none. It shows as an error of the
application (called with the test), or as no test at all. So a module in which the mark stands, empty, at what is no test is not collected.

This module is imported in every run of pytest, so it imports nothing but pytest (TH1).
"""

from __future__ import annotations

import types
from collections.abc import Generator, Iterable, Mapping

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if isinstance(collector, pytest.Module):
        names = _misled(collector, _names_of(collector, report))
        if names:
            name = names[0]
            report.outcome = "failed"
            report.longrepr = (
                f"{collector.path.name}: passenger({name}) marks {name} itself, because pytest takes a mark with a function or a class as its only "
                f"argument for a decoration: write passenger(app={name})"
            )
            report.result = []
    return report


def _names_of(module: pytest.Module, report: pytest.CollectReport) -> Mapping[str, object]:
    """The names of the module, also of one whose import failed."""
    call = getattr(report, "call", None)
    if call is None or call.excinfo is None:
        return _loaded(module)
    frames = (entry.frame.raw for entry in call.excinfo.traceback if str(entry.path) == str(module.path))
    names: Mapping[str, object] = next((f.f_globals for f in frames if f.f_code.co_name == "<module>"), {})
    return names or _loaded(module)


def _loaded(module: pytest.Module) -> Mapping[str, object]:
    found: object = getattr(module, "_obj", None)
    return {} if found is None else dict(vars(found))


def _misled(module: pytest.Module, names: Mapping[str, object]) -> list[str]:
    return [
        name
        for name, value in list(names.items())
        if isinstance(value, (types.FunctionType, type))
        and any(_is_empty(mark) for mark in _marks(value))
        and not (module.funcnamefilter(name) or module.classnamefilter(name))
    ]


def _marks(value: object) -> Iterable[object]:
    """A class may say ``pytestmark = mark`` or ``pytestmark = [mark, ...]``."""
    found = vars(value).get("pytestmark", ())
    return found if isinstance(found, list | tuple) else (found,)


def _is_empty(mark: object) -> bool:
    return isinstance(mark, pytest.Mark) and mark.name == "passenger" and not mark.args and not mark.kwargs
