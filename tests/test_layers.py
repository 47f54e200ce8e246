"""Imports point downwards only: an AST walk over the package, and over the loaders, which may import nothing of ours."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "passenger_trio"

# Layer -> what it may import of the package. Order: bottom to top.
ALLOWED: dict[str, set[str]] = {
    "version": set(),
    "late_classes": set(),
    "late_patterns": set(),
    "errors": {"core"},  # the evidence of a spawn that failed, which errors carry
    "options": {"errors"},
    "core": {"core", "errors", "options"},
    "codecs": {"codecs", "core", "errors", "options"},
    "events": set(),
    "log_lines": {"log_lines", "core"},
    "error_kernel": {"log_lines", "core", "errors"},
    "system": {"system", "error_kernel", "errors"},
    "spawning": {"spawning", "log_lines", "system", "error_kernel", "codecs", "core", "errors", "options", "version"},
    "pool": {
        "pool",
        "log_lines",
        "spawning",
        "system",
        "error_kernel",
        "codecs",
        "core",
        "events",
        "errors",
        "options",
    },
    "server": {
        "server",
        "log_lines",
        "app_response",
        "pool",
        "system",
        "error_kernel",
        "codecs",
        "core",
        "errors",
        "options",
    },
    "fronts": {
        "fronts",
        "later",
        "log_lines",
        "server",
        "pool",
        "spawning",
        "system",
        "error_kernel",
        "codecs",
        "core",
        "errors",
        "options",
    },
    "preflight": {"server", "pool", "spawning", "system", "core", "errors", "options"},
    "app_response": set(),
    "library_errors": {"errors"},
    "app_handle": {"pool", "spawning", "core", "errors", "options"},
    "borrowed_process": {"app_response", "pool", "spawning", "codecs", "core", "errors"},
    "pool_parts": {"extensions", "pool", "spawning", "system", "error_kernel", "core", "options"},
    "pool_tree": {
        "pool_parts",
        "extensions",
        "library_errors",
        "borrowed_process",
        "app_handle",
        "admin",
        "preflight",
        "pool",
        "spawning",
        "system",
        "error_kernel",
        "core",
        "errors",
        "options",
    },
    "served_app": {"app_handle", "app_response", "server"},
    "extensions": {"server", "pool", "spawning", "error_kernel", "core", "errors", "options"},
    "status_types": set(),
    "reload": {
        "reload",
        "log_lines",
        "pool_parts",
        "extensions",
        "preflight",
        "server",
        "pool",
        "spawning",
        "system",
        "core",
        "errors",
        "options",
    },
    "running": {
        "reload",
        "core",
        "app_handle",
        "status_types",
        "fronts",
        "served_app",
        "server",
        "pool",
        "spawning",
        "codecs",
        "errors",
        "options",
    },
    "admin": {
        "admin",
        "app_handle",
        "log_lines",
        "status_types",
        "served_app",
        "running",
        "server",
        "pool",
        "spawning",
        "system",
        "error_kernel",
        "codecs",
        "core",
        "events",
        "errors",
        "options",
        "version",
    },
    "early_start": {"preflight", "server", "admin", "spawning", "system", "codecs", "core", "errors", "options"},
    "tree": {
        "early_start",
        "log_lines",
        "pool_parts",
        "library_errors",
        "extensions",
        "later",
        "reload",
        "admin",
        "fronts",
        "running",
        "preflight",
        "server",
        "pool",
        "spawning",
        "system",
        "error_kernel",
        "core",
        "errors",
        "options",
    },
    "later": set(),
    "signals": set(),
    "program_tasks": {
        "early_start",
        "log_lines",
        "signals",
        "tree",
        "running",
        "reload",
        "spawning",
        "system",
        "error_kernel",
        "errors",
        "options",
    },
    "program": {
        "early_start",
        "program_tasks",
        "signals",
        "running",
        "reload",
        "spawning",
        "system",
        "errors",
        "options",
    },
    "dashboard": {"dashboard", "system", "errors"},
    "cli": {
        "cli",
        "dashboard",
        "reload",
        "program",
        "preflight",
        "running",
        "admin",
        "spawning",
        "system",
        "core",
        "errors",
        "options",
        "version",
    },
    "testing": {
        "testing",
        "cli",  # with ``program``: what it starts, loaded in advance (``warm_process``)
        "early_start",
        "program",
        "program_tasks",
        "later",
        "tree",
        "running",
        "admin",
        "server",
        "pool",
        "spawning",
        "system",
        "error_kernel",
        "codecs",
        "core",
        "errors",
        "options",
    },
    "in_thread": {"errors", "extensions", "tree", "running", "server", "options"},
    "__main__": {"cli"},
    "": {
        "extensions",
        "tree",
        "running",
        "in_thread",
        "pool_tree",
        "borrowed_process",
        "app_handle",
        "served_app",
        "app_response",
        "errors",
        "options",
        "version",
    },
}
# "" is the package itself: it names its faces.

BELOW_EVERYTHING = {"late_classes", "late_patterns"}  # attrs and re, for the start

# The rooms of server/, bottom to top: a module may import what is in its own row, or below. ``http`` is on three floors: its state, its stages, its driver.
SERVER_ROOMS: list[set[str]] = [
    {"mounts", "health_paths", "flood_turns", "trusted_proxies", "date_and_ids", "http_date", "spill"},
    {
        "http.stage",
        "http.interruptions",
        "http.peer",
        "http.body_clock",
        "http.exchange",
        "http.deadline_scanner",
    },
    {"logs", "log_limits", "tracing", "answers.page_layout", "answers.custom_page"},
    {"front"},
    {"http.client", "http.client_watch", "front_statistics"},
    {"answers", "upgraded"},
    {"http"},
    {"http.connection"},
    {"listening"},
]

# What the pure layers may not touch, by name of the module.
IMPURE = {
    "trio",
    "os",
    "socket",
    "time",
    "random",
    "logging",
    "subprocess",
    "threading",
    "secrets",
    "pathlib",
    "datetime",
    "signal",
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    name = first.removesuffix(".py")
    return "" if name == "__init__" else name


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """All of a file's syntax. Each file is looked at by half a dozen of the tests."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """The dotted names of all that a file imports, for types only or inside a function too. A module of the package is named, not the folder it is in."""
    found = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if inner in NAMES else node.module)
    return tuple(dict.fromkeys(found))


def dotted(path: Path) -> str:
    """``passenger_trio.core.policy``"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path) for path in modules()}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules each of which can be reached from each other (what does not depend on itself is left out)."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += graph.get(name, ())
        reached[start] = found
    together = {
        frozenset(other for other in reached[name] if name in reached.get(other, ()))
        for name in graph
        if name in reached[name]
    }
    return [set(group) for group in sorted(together, key=sorted)]


def target_layer(name: str) -> str | None:
    if not name.startswith("passenger_trio"):
        return None
    parts = name.split(".")
    return "" if len(parts) < 2 or parts[1].startswith("__") else parts[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    layer = layer_of(path)
    for name in imports(path):
        target = target_layer(name)
        if target is not None:
            assert target in BELOW_EVERYTHING | ALLOWED[layer], f"{layer or 'the package'} imports {name}"


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert circles({"a": {"b"}, "b": set(), "c": {"b", "a"}}) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    """HO1: imports for types included."""
    found = circles({dotted(path): set(imports(path)) & NAMES for path in modules()})
    assert not found, [sorted(group) for group in found]


def floor_of(name: str) -> int | None:
    """The row of SERVER_ROOMS in which a module of ``server/`` is, by the longest name that fits."""
    inner = name.removeprefix("passenger_trio.server.")
    if inner == name:
        return None
    fits = [
        (len(room), row)
        for row, rooms in enumerate(SERVER_ROOMS)
        for room in rooms
        if f"{inner}.".startswith(f"{room}.")
    ]
    assert fits, f"{name} is in no room"
    return max(fits)[1]


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "server").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_rooms_of_the_server_import_downwards(path: Path) -> None:
    """HO1: an order of rooms inside ``server/``, like the order of layers."""
    own = floor_of(dotted(path))
    for name in set(imports(path)) & NAMES:
        floor = floor_of(name)
        if own is not None and floor is not None:
            assert floor <= own, f"{dotted(path)} imports {name}, which is above it"


def test_one_module_imports_all_stages() -> None:
    """HO1: the driver. A stage that drives others names them here."""
    stages = {"init_request", "buffer_body", "checkout_session", "send_request", "forward_response"}
    drivers = set()
    for path in (PACKAGE / "server" / "http").glob("*.py"):
        names = {name.rpartition(".")[2] for name in imports(path) if name.startswith("passenger_trio.server.http.")}
        if len(stages & names) > 2:
            drivers.add(path.stem)
    assert drivers == {"connection", "fast_path"}


@pytest.mark.parametrize(
    "path", [p for p in modules() if layer_of(p) in ("core", "codecs", "errors", "options")], ids=str
)
def test_pure_layers_touch_nothing(path: Path) -> None:
    touched = {name.split(".")[0] for name in imports(path)} & IMPURE
    assert not touched


def test_the_server_knows_the_pool_by_its_seam_only() -> None:
    for path in (PACKAGE / "server").rglob("*.py"):
        names = set(imports(path))
        assert not {n for n in names if n.startswith(("passenger_trio.core.policy", "passenger_trio.core.state"))}, path
        assert {n for n in names if n.startswith("passenger_trio.pool")} <= {
            f"passenger_trio.pool.{name}" for name in ("interface", "session", "waiter")
        }


def test_the_server_calls_of_the_pool_what_the_seam_says() -> None:
    """ARCHITECTURE.md, the pool's interface."""
    used = {
        node.attr
        for path in (PACKAGE / "server").rglob("*.py")
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Attribute) and node.value.attr == "pool")
            or (isinstance(node.value, ast.Name) and node.value.id == "pool")
        )
    }
    assert used == {"checkout_or_queue", "rejection", "evidence"}


LOADERS = ROOT / "spawn_servers"
PYTHON_LOADER = LOADERS / "python" / "passenger_trio_loader"


def name_of_loader(path: Path) -> str:
    return path.relative_to(LOADERS).as_posix()


@pytest.mark.parametrize("path", sorted(LOADERS.rglob("*.py")), ids=name_of_loader)
def test_loaders_import_the_standard_library_only(path: Path) -> None:
    """HO2: nothing of ours, but the package beside the programs; and the Trio of an application that is to run on it."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    assert tree.body
    own = {PYTHON_LOADER.name} | ({"trio"} if path == PYTHON_LOADER / "asgi/on_trio.py" else set())
    for name in imports(path):
        assert name.split(".")[0] in sys.stdlib_module_names | own, name


def test_the_python_loader_is_in_layers() -> None:
    """HO2: no circle, and what every interface needs knows none of them."""
    modules = {
        path.relative_to(PYTHON_LOADER.parent).with_suffix("").as_posix().replace("/", "."): path
        for path in PYTHON_LOADER.rglob("*.py")
    }
    imported = {module: set(imports(path)) & set(modules) for module, path in modules.items()}
    root = PYTHON_LOADER.name
    parts = {module: module.split(".")[1] for module in modules}
    allowed = {"process": {"preloading"}, "wsgi": {"wsgi", "asgi"}, "asgi": {"asgi"}, "preloading": {"preloading"}}
    for module, names in imported.items():
        rooms = {parts[name] for name in names} & {"asgi", "preloading", "process", "wsgi"}
        assert rooms <= allowed.get(parts[module], set()), module
        if "asgi" in rooms and parts[module] == "wsgi":
            assert module == f"{root}.wsgi.interface", "where a guess was wrong, and nowhere else"
    assert not circles(imported)


@pytest.mark.parametrize("path", sorted(LOADERS.rglob("*.py")), ids=name_of_loader)
def test_a_file_of_the_python_loader_can_be_read_in_one_sitting(path: Path) -> None:
    """HO2: no file over 500 lines, and each opens with what it is."""
    assert len(path.read_text().splitlines()) <= 500
    module = nodes(path)[0]
    assert isinstance(module, ast.Module)
    assert ast.get_docstring(module)


def test_one_module_asks_for_threads_and_one_starts_programs() -> None:
    """KE3: so there is one place where it is known that none may be had. (What looks for an interpreter does so before the server starts.)"""
    asks = {str(path.relative_to(PACKAGE)) for path in modules() if ".to_thread." in path.read_text()}
    assert asks == {"system/threads.py"}
    words = ("subprocess.Popen(", "run_process(", "open_process(", "os.fork(")
    starts = {str(path.relative_to(PACKAGE)) for path in modules() if any(word in path.read_text() for word in words)}
    assert {name for name in starts if not name.startswith("testing/")} == {"system/children.py"}


def test_no_word_of_fashion_names_a_class() -> None:
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                assert not any(word in node.name for word in ("Manager", "Handler", "Helper", "Util")), (
                    f"{path}: {node.name}"
                )
