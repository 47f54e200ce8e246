"""The text of a Python module -> the names that it binds, without running it.

The supervisor never imports an application: the application's code runs only in the application's own
interpreter. What the supervisor needs earlier (is there an ``app`` in ``app.py``?) it reads from the
syntax tree.

This module follows statements at module level in the order of the text, also inside ``if``, ``try``,
``with``, ``for`` and ``match``. It skips the bodies of ``if __name__ == "__main__"`` and of
``if TYPE_CHECKING``, which do not run on import. A name may be bound several times
(``try: from x import app`` / ``except ImportError: app = None``), so all bindings are kept and the
caller decides.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

import attrs

from passenger_trio.late_classes import frozen

__all__ = [
    "Binding",
    "ImportedModule",
    "ImportedName",
    "Module",
    "bindings_of",
    "read_module",
    "returns_of",
    "string_of",
]


_REVEALING = frozenset({"globals", "exec", "vars", "setattr"})
"""Functions that may give a module names which its text does not show."""


@frozen
class ImportedName:
    """``from module import name``. ``module`` is absolute if that is known, else it begins with dots."""

    module: str
    name: str
    lineno: int = 0


@frozen
class ImportedModule:
    """``import module`` or ``import module as x``: the bound name is a module."""

    module: str
    lineno: int = 0


Binding = ast.expr | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ImportedName | ImportedModule


@frozen
class Module:
    """What the text of a module says.

    :ivar bindings: name -> everything that is bound to it, in the order of the text.
    :ivar stars: modules of ``from module import *``.
    :ivar syntax_error: where and why the text is not Python (of the supervisor's version); ``""``: it is.
    :ivar is_dynamic: the module may have names that its text does not show (``__getattr__``, ``globals()``,
        ``exec``).
    """

    tree: ast.Module = attrs.field(factory=lambda: ast.Module(body=[], type_ignores=[]), repr=False)
    bindings: dict[str, list[Binding]] = attrs.field(factory=dict)
    stars: tuple[str, ...] = ()
    syntax_error: str = ""
    is_dynamic: bool = False


def is_paste_factory(module: Module) -> bool:
    """Whether the module has ``main(global_config, **settings)``, which PasteDeploy calls with an ini file."""
    return any(
        isinstance(binding, ast.FunctionDef)
        and [argument.arg for argument in binding.args.args] == ["global_config"]
        and binding.args.kwarg is not None
        for binding in module.bindings.get("main", ())
    )


def read_module(source: bytes, *, package: str = "") -> Module:
    """Read a module. If the text cannot be parsed, the module has no names, and ``syntax_error``.

    :param package: dotted name of the package that contains the module; resolves relative imports.
    """
    try:
        with warnings.catch_warnings():
            # An invalid escape in the application's text concerns the application: the supervisor prints no
            # warning.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except SyntaxError as exc:
        return Module(syntax_error=f"line {exc.lineno}: {exc.msg}" if exc.lineno else str(exc.msg))
    except (ValueError, RecursionError, MemoryError) as exc:
        # NUL bytes; brackets nested deeper than the parser's stack.
        return Module(syntax_error=str(exc) or type(exc).__name__)
    bindings, stars = bindings_of(tree.body, package)
    return Module(tree=tree, bindings=bindings, stars=tuple(stars), is_dynamic=_is_dynamic(source, tree, bindings))


def bindings_of(body: list[ast.stmt], package: str = "") -> tuple[dict[str, list[Binding]], list[str]]:
    """The names that a sequence of statements binds, and the modules from which it imports ``*``."""
    bindings: dict[str, list[Binding]] = {}
    stars: list[str] = []
    for statement in _statements(body):
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    _bind_target(bindings, target, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                bindings.setdefault(name, []).append(value)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bindings.setdefault(name, []).append(statement)
            case ast.Import(names=names):
                for alias in names:
                    # `import a.b` binds `a`; `import a.b as c` binds c to the module a.b.
                    bound = alias.asname or alias.name.partition(".")[0]
                    module = alias.name if alias.asname else bound
                    bindings.setdefault(bound, []).append(ImportedModule(module, statement.lineno))
            case ast.ImportFrom(names=names):
                module = _absolute(statement, package)
                for alias in names:
                    if alias.name == "*":
                        stars.append(module)
                    else:
                        imported = ImportedName(module, alias.name, statement.lineno)
                        bindings.setdefault(alias.asname or alias.name, []).append(imported)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        bindings.pop(target.id, None)
            case _:
                pass
    return bindings, stars


def returns_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """The expressions that a function returns, without those of functions inside it."""
    for statement in _statements(function.body):
        if isinstance(statement, ast.Return) and statement.value is not None:
            yield statement.value


def string_of(module: Module, name: str) -> str:
    """The last plain string literal that is assigned to ``name``; ``""``: none."""
    for binding in reversed(module.bindings.get(name, [])):
        if isinstance(binding, ast.Constant) and isinstance(binding.value, str):
            return binding.value
    return ""


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Every statement of a block and of the nested blocks that run with it, but not of functions and classes."""
    for statement in body:
        yield statement
        match statement:
            case ast.If(test=test, body=inner, orelse=orelse):
                if not _is_never_true_on_import(test):
                    yield from _statements(inner)
                yield from _statements(orelse)
            case ast.For() | ast.While():
                yield from _statements(statement.body)
                yield from _statements(statement.orelse)
            case ast.With():
                yield from _statements(statement.body)
            case ast.Try() | ast.TryStar():
                yield from _statements(statement.body)
                for clause in statement.handlers:
                    yield from _statements(clause.body)
                yield from _statements(statement.orelse)
                yield from _statements(statement.finalbody)
            case ast.Match():
                for case in statement.cases:
                    yield from _statements(case.body)
            case _:
                pass


def _is_never_true_on_import(test: ast.expr) -> bool:
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]):
            return True
        case ast.Compare(left=ast.Constant(value="__main__"), ops=[ast.Eq()], comparators=[ast.Name(id="__name__")]):
            return True
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case ast.Constant(value=value):
            return not value
        case _:
            return False


def _bind_target(bindings: dict[str, list[Binding]], target: ast.expr, value: ast.expr) -> None:
    match target, value:
        case ast.Name(id=name), _:
            bindings.setdefault(name, []).append(value)
        case (
            (ast.Tuple(elts=targets) | ast.List(elts=targets)),
            (ast.Tuple(elts=values) | ast.List(elts=values)),
        ) if len(targets) == len(values):
            for one, part in zip(targets, values, strict=True):
                _bind_target(bindings, one, part)
        case ((ast.Tuple(elts=targets) | ast.List(elts=targets)), _):
            for one in targets:
                # Unpacking does not show the parts: the whole expression stands for each part.
                if isinstance(one, ast.Name):
                    bindings.setdefault(one.id, []).append(
                        ast.Subscript(value, ast.Constant(0), ast.Load(), lineno=value.lineno)
                    )
        case _:
            pass


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - (statement.level - 1)]
    if not kept:
        return "." * statement.level + (statement.module or "")
    return ".".join([*kept, statement.module] if statement.module else kept)


def _is_dynamic(source: bytes, tree: ast.Module, bindings: dict[str, list[Binding]]) -> bool:
    if "__getattr__" in bindings:
        return True
    if not any(name.encode() in source for name in _REVEALING) and source.isascii():
        return False  # nearly always, and much faster than to walk the tree
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _REVEALING
        for node in ast.walk(tree)
    )
