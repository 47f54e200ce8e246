"""Plants a sample of the faults that ``mutation_sites`` finds in ``core/`` and ``codecs/``, and runs the tests that reach the place of each.

First every test of ``TESTS`` runs once with modules that tell which blocks of statements run: that is the table "block -> tests". Then one forked process
a fault runs the tests of its block, the quickest first, until one fails. Nothing is written. A fault in a function is planted in a process that has everything
imported and collected: the function gets another code. A fault outside of functions is planted while the module is imported, in a process of its own that has imported
nothing yet.

Laws: tests are the same each time (Hypothesis is derandomized); a test that has killed passes in the same process where nothing is planted; a fault with which the module cannot be imported is none, and another takes its place;
a fault that no test reaches has survived; one that makes the tests take ten times as long is killed, for the suite has its time limits, too. Times are those of
the processor: how busy the machine is decides nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import inspect
import itertools
import json
import os
import resource
import selectors
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mutation_sites import HITS, Site, instrumented, place, planted, sample, sites

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("passenger_trio/core", "passenger_trio/codecs")
TESTS = ("tests/core", "tests/codecs", "tests/model/test_recorder.py")
"""What shows that these packages are right: without an event loop, a process or a clock."""
REASONS = ROOT / "tests" / "mutants" / "sampled.toml"
"""Survivors that no test can see, each with its reason."""
EXAMPLES = 40
"""Hypothesis' examples for each test that does not say how many."""
LONGEST = 3.0
"""Seconds that the tests of one fault may take together where there are many of them: the quickest are chosen."""
_MOST_MEMORY = 2 << 30
_WALL = 10.0
"""So many seconds for each that it may take of the processor's time."""
_OPTIONS = (
    *("-x", "-q", "--no-header", "--no-summary", "-p", "no:cacheprovider", "-o", "timeout=0", "-m", "not os"),
    *(
        "-p",
        "pytest_trio.plugin",
        "-p",
        "pytest_timeout",
        "-p",
        "_hypothesis_pytestplugin",
        "-p",
        "passenger_trio.testing.plugin",
    ),
)
Verdict = str
"""killed, survived, or "cannot be imported"."""


# In a forked process


class _Changed(importlib.abc.MetaPathFinder):
    """Finds modules whose code is made from a tree that was changed."""

    def __init__(self, change: Callable[[Path], CodeType | None], prepare: Callable[[ModuleType, Path], None]) -> None:
        self._change = change
        self._prepare = prepare

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if not fullname.startswith("passenger_trio."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return spec
        code = self._change(Path(spec.origin))
        if code is not None:
            spec.loader = _Loader(fullname, spec.origin, code, self._prepare)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType, prepare: Callable[[ModuleType, Path], None]) -> None:
        super().__init__(name, path)
        self._code = code
        self._prepare = prepare

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def exec_module(self, module: ModuleType) -> None:
        self._prepare(module, Path(self.path))
        super().exec_module(module)


class _Recorder:
    """A pytest plugin: which blocks each test reaches, and how long it takes."""

    def __init__(self, hits: dict[str, set[int]]) -> None:
        self._hits = hits
        self.reached: dict[str, dict[str, list[int]]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        for numbers in self._hits.values():
            numbers.clear()
        self._began = time.process_time()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid] = time.process_time() - self._began
        self.reached[nodeid] = {name: sorted(numbers) for name, numbers in self._hits.items() if numbers}


class _Chosen:
    """A pytest plugin: runs these tests only, in this order, and tells which one has failed. One that takes far longer than it should ends the process."""

    def __init__(self, tests: Mapping[str, float]) -> None:
        """:param tests: with the seconds of the processor's time that each may take."""
        self._seconds = tests
        self._rank = {test: place for place, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        most = int(time.process_time() + self._seconds[nodeid]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid} (while it is imported)"


def _same_each_time() -> None:
    from hypothesis import HealthCheck, settings

    checks = list(HealthCheck)
    settings.register_profile(
        "mutation", derandomize=True, database=None, deadline=None, max_examples=EXAMPLES, suppress_health_check=checks
    )
    settings.load_profile("mutation")


def _pytest(arguments: Iterable[str], plugins: list[Any]) -> int:
    import pytest

    _same_each_time()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))  # before an installed one
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return int(pytest.main([*_OPTIONS, *arguments], plugins))


def _record(tests: str) -> dict[str, Any]:
    hits: dict[str, set[int]] = defaultdict(set)
    inside = tuple(f"{ROOT}/{package}/" for package in PACKAGES)

    def is_inside(path: Path) -> bool:
        """Folders of theirs are, too."""
        return str(path).startswith(inside)

    def change(path: Path) -> CodeType | None:
        return compile(instrumented(path.read_text()), path, "exec", dont_inherit=True) if is_inside(path) else None

    def prepare(module: ModuleType, path: Path) -> None:
        if is_inside(path):
            setattr(module, HITS, hits[str(path.relative_to(ROOT))])

    sys.meta_path.insert(0, _Changed(change, prepare))
    recorder = _Recorder(hits)
    status = _pytest([word for word in tests.split() if word], [recorder])
    return {"status": status, "reached": recorder.reached, "seconds": recorder.seconds, "failed": recorder.failed}


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _try(fault: Fault) -> dict[str, Any]:
    file, tests = fault.file, fault.tests
    path = ROOT / file
    code = fault.code()
    sys.meta_path.insert(0, _Changed(lambda wanted: code if wanted == path else None, lambda module, of: None))
    sys.path.insert(0, str(ROOT))  # before an installed one
    _limit_memory()
    try:
        importlib.import_module(_name(file))
    except Exception as exc:  # noqa: BLE001 - whatever it is: there is nothing that could be tested
        return {"verdict": "cannot be imported", "by": repr(exc)}
    chosen = _Chosen(tests)
    status = _pytest(dict.fromkeys(test.partition("::")[0] for test in tests), [chosen])
    if status not in (0, 1, 2):
        return {"verdict": "", "by": f"pytest ends with {status}"}
    return {"verdict": "killed" if status else "survived", "by": chosen.failed}


class _Collected:
    """A pytest plugin: instead of running the tests, plants fault after fault in functions and runs, in a fork, the tests of each."""

    def __init__(self, faults: Sequence[Fault], jobs: int, tell: Callable[[dict[str, Any]], None]) -> None:
        self._faults = faults
        self._jobs = jobs
        self._tell = tell

    def pytest_runtestloop(self, session: Any) -> bool:
        self._items = {item.nodeid: item for item in session.items}
        work = ((number, partial(self._try, fault), fault.patience) for number, fault in enumerate(self._faults))
        killers: dict[str, float] = {}
        for number, came in _forked(work, self._jobs):
            self._tell({"number": number, **came})
            if came["by"] in self._items:
                killers[came["by"]] = 60.0
        for _, came in _forked([("nothing", partial(self._run, killers), 3600.0)], 1):
            if came["verdict"] != "survived":
                self._tell({"number": -1, **came})
        return True

    def _try(self, fault: Fault) -> dict[str, Any]:
        code = fault.code()
        function, changed = _function(sys.modules[_name(fault.file)], fault.where), _code(code, fault.where, fault.line)
        if function is None or changed is None or len(changed.co_freevars) != len(function.__code__.co_freevars):
            return {"verdict": "not here", "by": ""}
        function.__code__ = changed
        _limit_memory()
        came = self._run(fault.tests)
        if came["verdict"] == "survived" and changed.co_name != fault.where.rpartition(".")[2]:
            return {"verdict": "not here", "by": ""}  # what an outer function has made at import is as it was
        return came

    def _run(self, tests: Mapping[str, float]) -> dict[str, Any]:
        chosen = _Chosen(tests)
        for test in tests:
            item = self._items[test]
            item.config.pluginmanager.register(chosen)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            item.config.pluginmanager.unregister(chosen)
            if chosen.failed:
                return {"verdict": "killed", "by": chosen.failed}
        return {"verdict": "survived", "by": ""}


def _function(module: ModuleType, where: str) -> FunctionType | None:
    """The outermost function of a qualified name, as it is in the imported module."""
    found: Any = module
    for name in where.split("."):
        found = vars(found).get(name)
        for inner in ("__func__", "fget", "func", "__wrapped__"):
            found = getattr(found, inner, None) or found
        if isinstance(found, FunctionType):
            return found
        if not isinstance(found, type):
            return None
    return None


def _code(code: CodeType, where: str, line: int) -> CodeType | None:
    """The same in a module's code. (A property has several of one name.)"""
    for name in where.split("."):
        inner = [one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name]
        before = [one for one in inner if one.co_firstlineno <= line]
        if not before:
            return None
        code = max(before, key=lambda one: one.co_firstlineno)
        if code.co_flags & inspect.CO_NEWLOCALS:
            return code
    return None


def _name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


# In the process that forks them


@dataclass(frozen=True, eq=False)
class Fault:
    """:ivar what: What it is, for its reader.
    :ivar code: Compiles the module with the fault in it.
    :ivar block: As that of a site.
    :ivar tests: Those that reach it, the quickest first, each with the seconds of the processor's time after which it is taken for failed.
    """

    what: Any
    file: str
    where: str
    line: int
    block: int
    code: Callable[[], CodeType]
    tests: Mapping[str, float]

    @property
    def patience(self) -> float:
        """Seconds after which a process that waits for ever is ended, however busy the machine is."""
        return 300.0 + _WALL * sum(self.tests.values())

    @classmethod
    def at(cls, site: Site, file: str, reach: Reach) -> Fault:
        path = ROOT / file

        def code() -> CodeType:
            return compile(planted(path.read_text(), site), path, "exec", dont_inherit=True)

        tests = reach.tests(file, site.block)
        return cls(site, file, site.where, site.line, site.block, code, tests)

    @classmethod
    def of_text(cls, what: Any, file: str, before: str, after: str, modules: Collection[str], reach: Reach) -> Fault:
        """:param modules: The test modules that are to see it, by their paths."""
        path = ROOT / file
        text = path.read_text()
        changed = text.replace(before, after)
        same = next(at for at, (old, new) in enumerate(zip(text, changed, strict=False)) if old != new)
        line = text.count("\n", 0, same) + 1
        where, block = place(text, line)
        tests = reach.tests(file, block, modules)
        code = partial(compile, changed, path, "exec", dont_inherit=True)
        return cls(what, file, where, line, block, code, tests)


@dataclass
class _Child:
    pid: int
    said: int
    deadline: float
    what: Any
    answer: bytearray = field(default_factory=bytearray)


def _forked(
    work: Iterable[tuple[Any, Callable[[], dict[str, Any]], float]], jobs: int
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """(What, what came out) of each piece of work (what, how, seconds), as they end. One that takes too long, or ends without an answer, says so."""
    waiting = iter(work)
    selector = selectors.DefaultSelector()
    alive: dict[int, _Child] = {}
    try:
        while True:
            while len(alive) < jobs and (one := next(waiting, None)) is not None:
                child = _fork(*one)
                alive[child.said] = child
                selector.register(child.said, selectors.EVENT_READ)
            if not alive:
                return
            for key, _ in selector.select(0.2):
                child = alive[key.fd]
                data = os.read(key.fd, 1 << 16)
                child.answer += data
                if not data:
                    yield _ended(selector, alive, child, "")
            for child in [child for child in alive.values() if child.deadline < time.monotonic()]:
                os.killpg(child.pid, signal.SIGKILL)
                yield _ended(selector, alive, child, "time")
    finally:
        for child in alive.values():
            os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def _fork(what: Any, how: Callable[[], dict[str, Any]], seconds: float) -> _Child:
    mine, its = os.pipe()
    pid = os.fork()
    if pid:
        os.close(its)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        return _Child(pid, mine, time.monotonic() + seconds, what)
    try:
        os.setpgid(0, 0)
        os.close(mine)
        _quiet()
        answer = json.dumps(how())
        with os.fdopen(its, "w") as file:
            file.write(answer)
    finally:
        os._exit(0)


def _quiet() -> None:
    with open(os.devnull, "w") as nothing:
        for number in (1, 2):
            os.dup2(nothing.fileno(), number)


def _ended(
    selector: selectors.BaseSelector, alive: dict[int, _Child], child: _Child, why: str
) -> tuple[Any, dict[str, Any]]:
    selector.unregister(child.said)
    del alive[child.said]
    os.close(child.said)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    if why:
        return child.what, {"verdict": "killed", "by": why}
    return child.what, json.loads(child.answer) if child.answer else {
        "verdict": "killed",
        "by": "time, memory, or the end of the process",
    }


class Reach:
    """Which tests reach which block. What is known from an earlier run is kept in a file, and holds while a test module and the packages are the same."""

    def __init__(self, jobs: int, memory: Path) -> None:
        files = [
            path for name in TESTS for path in ([ROOT / name] if name.endswith(".py") else (ROOT / name).glob("*.py"))
        ]
        helpers = [path for path in files if not path.name.startswith("test_")]
        files = [path for path in files if path not in helpers]
        packages = [ROOT / name for name in modules()]
        common = hashlib.sha256(b"".join(path.read_bytes() for path in (*helpers, *packages)))
        marks = {}
        for path in files:
            mark = common.copy()
            mark.update(path.read_bytes())
            marks[path] = mark.hexdigest()
        known: dict[str, Any] = json.loads(memory.read_text()) if memory.exists() else {}
        known = {mark: came for mark, came in known.items() if mark in marks.values()}
        work = [
            (path, partial(_record, str(path.relative_to(ROOT))), 1800.0)
            for path in sorted(files, key=lambda path: path.stat().st_size, reverse=True)
            if marks[path] not in known
        ]
        self.seconds: dict[str, float] = {}
        self._of: dict[tuple[str, int], set[str]] = defaultdict(set)
        self._of_file: dict[str, set[str]] = defaultdict(set)
        self._texts = {str(path.relative_to(ROOT)): path.read_text() for path in files}
        for path, came in _forked(work, jobs):
            if came.get("failed") or "seconds" not in came or came["status"] not in (0, 5):
                raise ValueError(f"{path}: tests fail although nothing is planted: {came.get('failed') or came}")
            known[marks[path]] = came
            memory.parent.mkdir(parents=True, exist_ok=True)
            memory.write_text(json.dumps(known))
        for came in known.values():
            self.seconds.update(came["seconds"])
            for test, reached in came["reached"].items():
                for file, blocks in reached.items():
                    self._of_file[file].add(test)
                    for block in blocks:
                        self._of[file, block].add(test)

    def tests(self, file: str, block: int, modules: Collection[str] = ()) -> dict[str, float]:
        """The tests that reach a block, the quickest first. What runs at import is reached by the tests of all functions of the module, and by those of
        modules that name it.

        :param modules: Only those of these test modules, all of them.
        """
        found = self._of[file, block]
        if not block:
            name = Path(file).stem
            naming = {test for test in self.seconds if name in self._texts[test.partition("::")[0]]}
            found = self._of_file[file] | naming
            if not self._of_file[file]:
                users = [
                    user
                    for user in self._of_file
                    if f"{name} import" in (text := (ROOT / user).read_text()) or f"import {name}" in text
                ]
                found = found.union(*(self._of_file[user] for user in users))
        chosen: list[str] = []
        together = 0.0
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            if modules and test.partition("::")[0] not in modules:
                continue
            together += self.seconds[test]
            if chosen and together > LONGEST and not modules:
                break
            chosen.append(test)
        return {test: 2.0 + 10.0 * self.seconds[test] for test in chosen}


def reasons() -> dict[tuple[str, str], str]:
    """(File, key of a site) -> why no test can see it."""
    entries = tomllib.loads(REASONS.read_text()).get("survivor", []) if REASONS.exists() else []
    found = {}
    for entry in entries:
        site = Site(entry["where"], entry["fault"], entry["before"], entry["after"], entry.get("nth", 0), 0, 0)
        found[entry["file"], site.key] = entry["reason"]
    return found


def modules(only: str = "") -> list[str]:
    found = [str(path.relative_to(ROOT)) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [name for name in found if only in name]


def verdicts(faults: Sequence[Fault], jobs: int) -> Iterator[tuple[Fault, dict[str, Any]]]:
    """Each fault, with whether it is killed, and by what."""
    left = []
    for fault in faults:
        if not fault.tests:
            yield fault, {"verdict": "survived", "by": "no test reaches it"}
        elif not fault.block:
            left.append(fault)
    inside = [fault for fault in faults if fault.tests and fault.block]
    for fault, came in _in_functions(inside, jobs):
        if came["verdict"] == "not here":
            left.append(fault)
        else:
            yield fault, came
    yield from _forked(((fault, partial(_try, fault), fault.patience) for fault in left), jobs)


def _in_functions(faults: Sequence[Fault], jobs: int) -> Iterator[tuple[Fault, dict[str, Any]]]:
    if not faults:
        return
    ours, its = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(ours)
            _quiet()

            def tell(came: dict[str, Any]) -> None:
                os.write(its, (json.dumps(came) + "\n").encode())

            needed = dict.fromkeys(test.partition("::")[0] for fault in faults for test in fault.tests)
            _pytest(needed, [_Collected(faults, jobs, tell)])
        finally:
            os._exit(0)
    os.close(its)
    told = 0
    try:
        with os.fdopen(ours) as lines:
            for line in lines:
                came = json.loads(line)
                if came["number"] < 0:
                    raise ValueError(f"a test that has killed fails although nothing is planted: {came['by']}")
                told += 1
                yield faults[came["number"]], came
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    if told < len(faults):
        raise ValueError(f"pytest ended after {told} of {len(faults)} faults")


def known_reach(jobs: int) -> Reach:
    """Call it before anything of the package is imported."""
    for name in ("attrs", "h11", "hypothesis.stateful", "hypothesis.strategies", "pytest", "trio.testing", "wsproto"):
        importlib.import_module(name)  # what every process needs and is not ours, nor a plugin of pytest
    began = time.monotonic()
    reach = Reach(jobs, ROOT / ".nox" / "mutation" / "reach.json")
    print(f"{len(reach.seconds)} tests reach what is planted; {time.monotonic() - began:.0f} s", flush=True)
    return reach


def run(count: int, seed: str, only: str, jobs: int, results: Path | None) -> int:
    """As many faults as that a module. Prints each verdict, then the figures.

    :param results: A file to which each verdict is added, a line of JSON each. What is killed in there is not tried again while its module is the same.
    :returns: 1 if something survived without a reason, or a reason no longer holds.
    """
    reach = known_reach(jobs)
    reason_of = reasons()
    tried: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    wrong: list[str] = []
    excused: list[str] = []
    spare = {name: sample(sites((ROOT / name).read_text()), 10**6, seed) for name in modules(only)}
    known = _known(results) if results else {}
    with open(results, "a") if results else contextlib.nullcontext() as kept:
        while faults := [
            Fault.at(site, name, reach)
            # One of each module in turn: what is known before the end is known of all of them.
            for row in itertools.zip_longest(
                *(
                    [(name, site) for site in itertools.islice(found, count - tried[name])]
                    for name, found in spare.items()
                )
            )
            for name, site in filter(None, row)
        ]:
            before = {fault: known[key] for fault in faults if (key := _mark(fault)) in known}
            rest = [fault for fault in faults if fault not in before]
            for fault, came in itertools.chain(before.items(), verdicts(rest, jobs)):
                verdict, by = came["verdict"], came["by"]
                if verdict == "cannot be imported":
                    continue
                if not verdict:
                    raise ValueError(f"{fault.what}: {by}")
                tried[fault.file] += 1
                killed[fault.file] += verdict == "killed"
                site = fault.what
                named = f"{fault.file}:{site.line} {site.where}: {site.fault}: {_short(site.before)} -> {_short(site.after)}"
                text = f"{named} ({by})" if by else named
                print(f"{verdict:8} {text}", flush=True)
                if kept and fault not in before:
                    of_site = {key: getattr(site, key) for key in ("where", "fault", "before", "after", "nth", "line")}
                    print(
                        json.dumps({"file": fault.file, **of_site, "mark": _mark(fault), **came}), file=kept, flush=True
                    )
                reason = reason_of.get((fault.file, site.key))
                if verdict == "survived" and reason is None:
                    wrong.append(f"survives: {text}")
                elif verdict == "survived":
                    excused.append(f"with a reason: {named}: {reason}")
                elif reason is not None:
                    wrong.append(f"is killed, strike its reason: {text}")
    print()
    for package in PACKAGES:
        of = sum(number for name, number in tried.items() if name.startswith(package))
        if of:
            dead = sum(number for name, number in killed.items() if name.startswith(package))
            alike = sum(package in text for text in excused)
            print(f"{package}: {dead} of {of} killed ({100 * dead / of:.0f} %), {alike} survive with a reason")
    for text in (*excused, *wrong):
        print(text)
    return 1 if wrong else 0


def _known(results: Path) -> dict[str, dict[str, Any]]:
    lines = map(json.loads, results.read_text().splitlines() if results.exists() else ())
    return {line["mark"]: line for line in lines if line["verdict"] == "killed" and "mark" in line}


def _mark(fault: Fault) -> str:
    text = (ROOT / fault.file).read_bytes()
    return hashlib.sha256(text + fault.what.key.encode()).hexdigest()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:87]}..."
