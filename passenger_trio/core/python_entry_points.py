"""The names of a Python module -> which of them is an application that can be served, and how sure that is.

A name gets a *verdict*: WSGI or ASGI (the text shows it), PROBABLE (only running the module would show
it, for example the result of an unknown call), or NEITHER (a module, a string, a Celery application).
Imports are followed as far as the caller's ``load`` finds their text, because
``from shop.web import app`` shows nothing by itself.

``python_frameworks`` is a table of the frameworks' classes. A verdict is advice to the command line:
the loader, which runs the code, decides.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

import attrs

from passenger_trio.core.python_frameworks import (
    Opinion,
    Verdict,
    asgi,
    framework,
    method_result,
    neither,
    probable,
    wsgi,
)
from passenger_trio.core.python_names import (
    Binding,
    ImportedModule,
    ImportedName,
    Module,
    bindings_of,
    returns_of,
)
from passenger_trio.late_classes import frozen

__all__ = [
    "FACTORY_NAMES",
    "OBJECT_NAMES",
    "Finding",
    "Load",
    "Verdict",
    "judge",
    "other_applications",
    "usual_entry_points",
]

Load = Callable[[str], Module | None]
"""Dotted module name -> the module as read from its text; None: not among the application's own files."""

OBJECT_NAMES = ("application", "app")
FACTORY_NAMES = ("create_app", "make_app")


@frozen
class Finding:
    """What one name of a module is.

    :ivar path: attribute path in the module: ``app``, ``create_app``, ``app.server``.
    :ivar what: a description for messages: ``"a Flask application"``.
    """

    path: str
    verdict: Verdict
    what: str
    is_factory: bool = False

    @property
    def target(self) -> str:
        """The part of a command-line target after the colon."""
        return f"{self.path}()" if self.is_factory else self.path

    @property
    def can_be_served(self) -> bool:
        return self.verdict is not Verdict.NEITHER


_WSGI_FUNCTION = wsgi("a function of (environ, start_response)")
_DEEPEST = 12
"""How many imports and calls are followed. Longer chains, and cycles, end as PROBABLE."""


def usual_entry_points(module: Module, load: Load) -> list[Finding]:
    """A finding for each usual name (``application``, ``app``, ``create_app``, ``make_app``) that the module binds,
    in that order.
    """
    objects = [judge(module, name, load) for name in OBJECT_NAMES]
    factories = [judge(module, name, load, is_factory=True) for name in FACTORY_NAMES]
    return [finding for finding in objects + factories if finding is not None]


def other_applications(module: Module, load: Load) -> list[Finding]:
    """Unusual names that are certainly an application, WSGI or ASGI."""
    names = [name for name in module.bindings if name not in OBJECT_NAMES + FACTORY_NAMES and not name.startswith("_")]
    findings = []
    for name in names:
        # A plain function of two arguments counts as an application only under a usual name.
        if any(isinstance(binding, ast.Call | ImportedName) for binding in module.bindings[name]):
            finding = judge(module, name, load)
            if finding is not None and finding.verdict in (Verdict.WSGI, Verdict.ASGI):
                findings.append(finding)
    return findings


def judge(module: Module, path: str, load: Load, *, is_factory: bool = False) -> Finding | None:
    """What ``path`` (``name``, or ``name.attribute``) of a module is; None: the text does not bind it.

    :param is_factory: judge the result of calling the object without arguments.
    """
    name, _, rest = path.partition(".")
    court = _Court(load)
    scope = _Scope(module.bindings, module.stars)
    opinion = court.factory(name, scope, 0) if is_factory else court.name(name, scope, 0)
    if opinion is None:
        return None
    if rest:
        opinion = probable("an attribute")
    elif opinion.attribute and is_factory:
        # A target cannot express "call it, and take an attribute of the result".
        opinion = neither(f"a function whose result has the application in its attribute `{opinion.attribute}`")
    elif opinion.attribute:
        path = f"{path}.{opinion.attribute}"
    return Finding(path, opinion.verdict, opinion.what, is_factory)


@frozen
class _Scope:
    bindings: dict[str, list[Binding]]
    stars: tuple[str, ...] = ()
    outer: _Scope | None = None

    def lookup(self, name: str) -> list[Binding]:
        found = self.bindings.get(name, [])
        return found or (self.outer.lookup(name) if self.outer else [])

    def all_stars(self) -> tuple[str, ...]:
        return self.stars + (self.outer.all_stars() if self.outer else ())


@frozen
class _Court:
    """One judgement: ``load`` and the rules. Each method gets its depth of recursion."""

    load: Load

    def name(self, name: str, scope: _Scope, depth: int) -> Opinion | None:
        """The opinion on the last binding that may be an application. None: the name is not bound."""
        bindings = scope.lookup(name)
        if not bindings:
            return self._from_stars(name, scope, depth)
        opinions = [self.binding(binding, scope, depth + 1) for binding in reversed(bindings)]
        return next((opinion for opinion in opinions if opinion.verdict is not Verdict.NEITHER), opinions[0])

    def binding(self, binding: Binding, scope: _Scope, depth: int) -> Opinion:
        if depth > _DEEPEST:
            return probable("something that is bound in a roundabout way")
        match binding:
            case ImportedName():
                return self._imported(binding, depth)
            case ImportedModule(module=module):
                return neither(f"the module {module}")
            case ast.FunctionDef():
                return _function(binding)
            case ast.AsyncFunctionDef():
                return asgi("an async function") if _takes(binding.args, 3) else neither("an async function")
            case ast.ClassDef():
                init = _method(binding, "__init__")
                takes_a_request = init is not None and _takes(init.args, 3)
                return wsgi("a class of (environ, start_response)") if takes_a_request else neither("a class")
            case _:
                return self.value(binding, scope, depth)

    def value(self, value: ast.expr, scope: _Scope, depth: int) -> Opinion:
        if depth > _DEEPEST:
            return probable("something that is bound in a roundabout way")
        match value:
            case ast.Call():
                return self.call(value, scope, depth + 1)
            case ast.Name(id=name):
                return self.name(name, scope, depth + 1) or probable(f"`{name}`")
            case ast.Lambda(args=args):
                return _WSGI_FUNCTION if _takes(args, 2) else neither("a function of other arguments")
            case ast.IfExp(body=one, orelse=other):
                return self._first_useful([one, other], scope, depth)
            case ast.BoolOp(values=values):
                return self._first_useful(values, scope, depth)
            case ast.NamedExpr(value=inner):
                return self.value(inner, scope, depth + 1)
            case ast.Attribute(value=ast.Name() as base, attr=attribute):
                module = self.load(self.dotted(base, scope))
                found = self.name(attribute, _Scope(module.bindings, module.stars), depth + 1) if module else None
                return found or probable("an attribute")
            case ast.Constant(value=constant):
                return neither("None" if constant is None else f"a constant ({type(constant).__name__})")
            case ast.List() | ast.Dict() | ast.Set() | ast.Tuple() | ast.ListComp() | ast.DictComp() | ast.SetComp():
                return neither("a collection")
            case ast.JoinedStr() | ast.Compare() | ast.UnaryOp() | ast.BinOp():
                return neither("a plain value")
            case _:
                return probable("a value that only running the file shows")

    def call(self, call: ast.Call, scope: _Scope, depth: int) -> Opinion:
        for dotted in self._possible_names(call.func, scope):
            known = framework(dotted)
            if known is not None:
                return known
        made = method_result(call.func.attr) if isinstance(call.func, ast.Attribute) else None
        if made is not None:
            return made
        if isinstance(call.func, ast.Name):
            found = self._definition(call.func.id, scope, depth)
            if found is not None:
                definition, home = found
                if isinstance(definition, ast.ClassDef):
                    return self.instance(definition, home, depth + 1)
                return self.result(definition, home, depth + 1)
        # A wrapper of an ASGI application is one too, unless it is a known adapter.
        for argument in [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "app")]:
            if isinstance(argument, ast.Name | ast.Call):
                inner = self.value(argument, scope, depth + 1)
                if inner.verdict is Verdict.ASGI:
                    return inner
        words = ast.unparse(call.func)
        return probable(f"the result of {words}()" if len(words) < 60 else "the result of a call")

    def factory(self, name: str, scope: _Scope, depth: int) -> Opinion | None:
        """The result of calling ``name`` without arguments."""
        found = self._definition(name, scope, depth)
        if found is not None:
            definition, home = found
            if isinstance(definition, ast.ClassDef):
                return self.instance(definition, home, depth + 1)
            needed = _required(definition.args)
            if needed:
                return neither(f"a function that needs arguments ({', '.join(needed)})")
            return self.result(definition, home, depth + 1)
        opinion = self.name(name, scope, depth)
        return probable("a factory") if opinion is not None and opinion.verdict is not Verdict.NEITHER else opinion

    def result(self, function: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope, depth: int) -> Opinion:
        """What a function returns, as far as its own text shows."""
        if depth > _DEEPEST:
            return probable("what it makes")
        if isinstance(function, ast.AsyncFunctionDef):
            return neither("an async function")
        bindings, stars = bindings_of(function.body)
        inside = _Scope(bindings, tuple(stars), scope)
        values = list(returns_of(function))
        if not values:
            return neither("a function that returns nothing")
        opinions = [self.value(value, inside, depth + 1) for value in reversed(values)]
        chosen = next((opinion for opinion in opinions if opinion.verdict is not Verdict.NEITHER), opinions[0])
        return probable("what it makes") if chosen.verdict is Verdict.PROBABLE else chosen

    def instance(self, cls: ast.ClassDef, scope: _Scope, depth: int) -> Opinion:
        call = _method(cls, "__call__")
        if call is not None:
            if isinstance(call, ast.AsyncFunctionDef):
                takes_a_scope = _takes(call.args, 4)
                return asgi(f"an instance of {cls.name}") if takes_a_scope else neither(f"an instance of {cls.name}")
            takes_a_request = _takes(call.args, 3)
            return wsgi(f"an instance of {cls.name}") if takes_a_request else neither(f"an instance of {cls.name}")
        for base in cls.bases:
            for dotted in self._possible_names(base, scope):
                known = framework(dotted)
                if known is not None:
                    return known
            found = self._definition(base.id, scope, depth) if isinstance(base, ast.Name) else None
            if found is not None and isinstance(found[0], ast.ClassDef) and depth < _DEEPEST:
                inherited = self.instance(found[0], found[1], depth + 1)
                if inherited.verdict is not Verdict.NEITHER:
                    return inherited
            elif found is None:
                return probable(f"an instance of {cls.name}")
        return neither(f"an instance of {cls.name}, which cannot be called")

    def dotted(self, value: ast.expr, scope: _Scope) -> str:
        """``Flask`` -> ``flask.Flask``, according to the visible imports; ``""``: they do not say."""
        match value:
            case ast.Attribute(value=base, attr=attribute):
                front = self.dotted(base, scope)
                return f"{front}.{attribute}" if front else ""
            case ast.Name(id=name):
                for binding in reversed(scope.lookup(name)):
                    if isinstance(binding, ImportedName):
                        return f"{binding.module}.{binding.name}"
                    if isinstance(binding, ImportedModule):
                        return binding.module
        return ""

    def _possible_names(self, function: ast.expr, scope: _Scope) -> list[str]:
        dotted = self.dotted(function, scope)
        if dotted or not isinstance(function, ast.Name) or scope.lookup(function.id):
            return [dotted]
        return [f"{star}.{function.id}" for star in scope.all_stars()]

    def _definition(
        self, name: str, scope: _Scope, depth: int
    ) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, _Scope] | None:
        """The ``def`` or ``class`` behind a name, also through imports, and the scope of its text."""
        if depth > _DEEPEST:
            return None
        for binding in reversed(scope.lookup(name)):
            if isinstance(binding, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                return binding, scope
            if isinstance(binding, ImportedName):
                module = self.load(binding.module)
                if module is not None:
                    return self._definition(binding.name, _Scope(module.bindings, module.stars), depth + 1)
        return None

    def _imported(self, imported: ImportedName, depth: int) -> Opinion:
        where = imported.module or "."
        module = self.load(imported.module)
        if module is not None:
            opinion = self.name(imported.name, _Scope(module.bindings, module.stars), depth + 1)
            if opinion is not None:
                return (
                    opinion
                    if opinion.verdict is Verdict.NEITHER
                    else attrs.evolve(opinion, what=f"{opinion.what} from {where}")
                )
        if self.load(f"{imported.module}.{imported.name}") is not None:
            return neither(f"the module {imported.module}.{imported.name}")
        return probable(f"imported from {where}")

    def _from_stars(self, name: str, scope: _Scope, depth: int) -> Opinion | None:
        if depth > _DEEPEST:
            return None
        for star in scope.all_stars():
            module = self.load(star)
            if module is not None:
                opinion = self.name(name, _Scope(module.bindings, module.stars), depth + 1)
                if opinion is not None:
                    return opinion
        return None

    def _first_useful(self, values: list[ast.expr], scope: _Scope, depth: int) -> Opinion:
        opinions = [self.value(value, scope, depth + 1) for value in values]
        return next((opinion for opinion in opinions if opinion.verdict is not Verdict.NEITHER), opinions[0])


def _function(function: ast.FunctionDef) -> Opinion:
    if _positional(function.args) == ["scope", "receive", "send"]:
        return asgi("a function of (scope, receive, send)")  # it returns an awaitable
    if _takes(function.args, 2):
        return _WSGI_FUNCTION
    if function.decorator_list:
        # @Request.application (Werkzeug) and @wsgify (WebOb) turn a function of a request into a WSGI function.
        return probable("a decorated function")
    names = ", ".join(_positional(function.args))
    return neither(f"a function of ({names})")


def _method(cls: ast.ClassDef, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    found = [
        node for node in cls.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]
    return found[-1] if found else None


def _positional(args: ast.arguments) -> list[str]:
    return [argument.arg for argument in (*args.posonlyargs, *args.args)]


def _required(args: ast.arguments) -> list[str]:
    positional = _positional(args)
    named = [
        argument.arg for argument, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None
    ]
    return positional[: len(positional) - len(args.defaults)] + named


def _takes(args: ast.arguments, count: int) -> bool:
    """Whether the function can be called with ``count`` positional arguments."""
    positional = len(_positional(args))
    named = [default for default in args.kw_defaults if default is None]
    required = positional - len(args.defaults)
    return not named and required <= count and (count <= positional or args.vararg is not None)
