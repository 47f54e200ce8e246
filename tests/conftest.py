"""What tests of every folder share: a place for sockets, and the check that nothing is left behind.

``nothing_left`` looks at the kernel and not at our objects: a process, a descriptor or a file that is still there
after the test is a leak, whoever was to see to it. It works for synchronous and for trio tests alike, because it is
torn down after the test's event loop has ended.
"""

from __future__ import annotations

import gc
import os
import re
import select
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import settings

from passenger_trio.system.syscalls import pidfd_open

PLUGIN = "passenger_trio.testing.plugin"
# Our own plugin. An environment that was installed before the plugin had its entry point does not load it.
pytest_plugins = [] if any(entry.value == PLUGIN for entry in entry_points(group="pytest11")) else [PLUGIN]
pytest_plugins += ["pytester"]

settings.register_profile("without_deadline", parent=settings.default, deadline=None)
settings.load_profile("without_deadline")
# An example that takes long on a busy machine is no failure.

GONE_WITHIN = 2.0
"""Seconds in which a process that nobody waits for any more (one that lost its supervisor) must be gone."""

LONG_ONES = (
    "test_evidence",
    "test_unseen",
    "test_lint",
    "test_plugin",
    "test_sample_suites",
    "test_python_asgi_conformance",
    "test_ruby_rack_conformance",
    "test_error_kernel_real",
    "test_process_faults",
    "test_python_wsgi_conformance",
    "test_ruby_rack_spec",
    "test_ruby_rails",
    "test_short_of_resources",
    "test_no_thread_no_process",
    "test_buffering",
    "test_plain_request_equals_h11",
    "test_python_asgi_sessions",
    "test_node_conformance",
    "test_upgrade",
    "test_python_wsgi_endings",
    "test_node",
    "test_pool_machine",
    "test_long_polls",
    "test_storms",
    "test_status_command",
    "test_websocket_end_to_end",
    "test_library_face",
    "test_startup_errors",
    "test_generic_programs",
    "test_ruby_several",
    "test_smart_spawner",
    "test_fork_safety",
    "test_python_forking",
    "test_ruby_forking",
    "test_python_patched",
)
"""Modules that take long, the longest first: `pytest --durations=100` says which they are."""


SECOND_RUNS = 3
"""In CI, so many tests of real processes may need a second run; that of one more is a failure. See tests/README.md."""


def pytest_configure() -> None:
    """What tests start hears a hangup and Ctrl-C, also where the tests themselves are run so that they do not (nohup; ``&`` in a script)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """The order. Where it is shuffled (``-p randomly``, as in CI, with the seed in the heading), that is for the quick half: what is marked ``os`` keeps its
    order, for its modules share servers that take long to start.

    Where several processes share the tests, what lasts long begins first, lest one of them has it to itself at the end. They are given out by class or
    module (``--dist loadscope``). Of those that are not long, the ones with the most tests come first.
    """
    written = {id(item): number for number, item in enumerate(items)}
    yield
    shuffled = config.pluginmanager.hasplugin("randomly")
    if shuffled:
        keeps = [item.get_closest_marker("os") is not None for item in items]
        real = sorted(
            (item for item, kept in zip(items, keeps, strict=True) if kept), key=lambda item: written[id(item)]
        )
        items[:] = real + [item for item, kept in zip(items, keeps, strict=True) if not kept]
        if items:
            # Tests with the same parameter of a module's fixture stand together again: else a JRuby is started for each of them.
            items[0].session._fixturemanager.pytest_collection_modifyitems(items)
    if not hasattr(config, "workerinput"):
        return
    scopes = Counter(item.nodeid.rpartition("::")[0] for item in items)
    rank = {name: place for place, name in enumerate(LONG_ONES)}

    def place(item: pytest.Item) -> tuple[int, int, str]:
        if shuffled and item.get_closest_marker("os") is None:
            return rank.get(item.path.stem, len(rank) + 1), 0, ""
        scope = item.nodeid.rpartition("::")[0]
        return rank.get(item.path.stem, len(rank)), -scopes[scope], scope

    items.sort(key=place)


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """In CI a failed test of real processes runs once more: its real clock is one that it shares with all that runs beside it."""
    if os.environ.get("CI") and item.get_closest_marker("os") is not None:
        item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and len(reporter.stats.get("rerun", [])) > SECOND_RUNS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The tests themselves are a million objects, which stay: a test that looks for garbage need not go through them (a third of a second each time)."""
    gc.collect()
    if hasattr(gc, "freeze"):  # not PyPy's
        gc.freeze()


@pytest.fixture
def instance_dir() -> Iterator[Path]:
    """A private directory whose path leaves room for the names of Unix sockets (107 bytes in all)."""
    path = Path(tempfile.mkdtemp(prefix="pt-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def nothing_left(instance_dir: Path) -> Iterator[Path]:
    """The instance directory; at the end no child process, no descriptor and no file in that directory may be left.

    A process also counts when it is a grandchild that has lost its parent: it is known by the directory's path, which
    is in the environment with which it (or what forked it) was started.
    """
    descriptors = open_descriptors()
    children = child_processes()
    yield instance_dir
    deadline = time.monotonic() + GONE_WITHIN
    strays = [pid for pid in processes_of(instance_dir) if not wait_gone(pid, deadline)]
    assert not strays, f"processes are left: {[describe(pid) for pid in strays]}"
    left = child_processes() - children
    assert not left, f"children are left, or were not reaped: {[describe(pid) for pid in left]}"
    opened = open_descriptors() - descriptors
    assert not opened, f"descriptors are left: {sorted(opened)}"
    files = sorted(path.name for path in instance_dir.iterdir())
    assert not files, f"files are left: {files}"


def open_descriptors() -> set[tuple[int, str]]:
    """Number and target of every descriptor of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            pass  # the one with which the directory was read
    return found


def child_processes() -> set[int]:
    """Pids of the children of this process, zombies included."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found.update(int(word) for word in file.read().split())
    return found


def processes_of(directory: Path) -> list[int]:
    """Living processes that were started with the directory's path in their environment."""
    mark = os.fsencode(directory)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                environment = Path("/proc", name, "environ").read_bytes()
            except OSError:
                continue  # it has ended, or is somebody else's
            if mark in environment:
                found.append(int(name))
    return found


def wait_gone(pid: int, deadline: float) -> bool:
    """Whether a process ends before the deadline."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(pidfd)


def describe(pid: int) -> str:
    try:
        return f"{pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().decode(errors='replace')!r}"
    except OSError:
        return f"{pid}: gone meanwhile"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a run is to tell beside its verdict: figures that tests recorded, and which loaders were held to the contract with which interpreters."""
    passed = terminalreporter.stats.get("passed", [])
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section(
            f"needed a second run: {len(again)} (at most {SECOND_RUNS}); each is a fault to be mended"
        )
        for report in again:
            terminalreporter.write_line(report.nodeid)
            terminalreporter.write_line(report.longreprtext)
            for name, text in report.sections:
                terminalreporter.write_line(f"--- {name}\n{text[-3000:]}")
    figures = [text for report in passed for name, text in report.user_properties if name == "figure"]
    kept: Counter[str] = Counter()
    for report in passed:
        match = re.search(r"/test_(\w+)_conformance\.py::test_contract\w*\[(.*)\]", report.nodeid)
        if report.when == "call" and match:
            interpreter = re.search(r"(?:cpython|pypy|j?ruby|node)-[\d.]+", match[2])
            kept[f"{match[1]} with {interpreter[0] if interpreter else 'the first interpreter'}"] += 1
    if figures or kept:
        terminalreporter.section("figures, and loaders that keep the contract")
        for text in figures:
            terminalreporter.write_line(text)
        for loader, count in sorted(kept.items()):
            terminalreporter.write_line(f"{loader}: {count} tests")
