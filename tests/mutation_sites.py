"""Where a module could be wrong: its mutation sites, found in its syntax tree. Pure; nothing is run here.

A site is one place and one small fault: a comparison at its boundary or turned round, a condition negated, ``and`` for ``or``, a side of one left out, a ``not``
left out, a constant one off, ``+`` for ``-``, ``min`` for ``max``, a statement left out. Texts are not touched, nor what only a reader sees (messages of
exceptions, ``repr``, annotations, assertions), nor decorators.

Laws: a site is known by what it is (function, fault, text before and after) and not by its line, so what is kept about it survives edits elsewhere; the sample
of a module is the sites with the smallest hashes, so an edit changes little of it, and a larger sample contains the smaller one.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HITS = "__mutation_hits__"
"""The name in an instrumented module of the set that blocks of statements add their numbers to."""

_BOUNDARY: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ONLY_FOR_READERS = ("__repr__", "__str__", "describe")


@dataclass(frozen=True)
class Site:
    """:ivar where: The qualified name of the function or class, "" in the module itself.
    :ivar nth: Which of those that are alike in all else, in the order of the text.
    :ivar block: The number of the block of statements that must run for the fault to matter; 0 is the module's own, which runs when it is imported.
    """

    where: str
    fault: str
    before: str
    after: str
    nth: int
    line: int = field(compare=False)
    block: int = field(compare=False)

    @property
    def key(self) -> str:
        return "\0".join((self.where, self.fault, self.before, self.after, str(self.nth)))

    def rank(self, seed: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{self.key}".encode()).digest()


Change = Callable[[], None]
"""Plants a fault in the tree."""


class _Walk:
    """Finds the sites of a tree, in the order of the text, each with what plants it in this very tree."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[tuple[Site, Change]] = []
        self.blocks = 0
        self.starts: list[tuple[list[ast.stmt], int]] = []
        """The blocks of statements inside functions, with their numbers."""
        self.statements: list[tuple[int, int, str, int]] = []
        """First line, last line, where, block of each; what is in another comes behind it."""
        self._names: list[str] = []
        self._alike: Counter[tuple[str, ...]] = Counter()
        self._block = 0
        self._in_function = False
        self._function_body: list[ast.stmt] = []
        self._statements(tree.body)

    # Statements

    def _statements(self, body: list[ast.stmt], *, new: bool = False) -> None:
        block = self._block
        if new:
            self.blocks += 1
            self._block = self.blocks
            self.starts.append((body, self.blocks))
        for index, statement in enumerate(body):
            self._statement(body, index, statement)
        self._block = block

    def _statement(self, body: list[ast.stmt], index: int, statement: ast.stmt) -> None:
        self.statements.append(
            (statement.lineno, statement.end_lineno or statement.lineno, ".".join(self._names), self._block)
        )
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                if statement.name in _ONLY_FOR_READERS or _is_overload(statement):
                    return
                for default in (*statement.args.defaults, *statement.args.kw_defaults):
                    if default is not None:
                        self._expression(default, lambda new, old=default: _replace(statement.args, old, new))
                inside, self._in_function = self._in_function, True
                around, self._function_body = self._function_body, statement.body
                self._names.append(statement.name)
                self._statements(statement.body, new=True)
                self._function_body = around
                self._names.pop()
                self._in_function = inside
            case ast.ClassDef():
                inside, self._in_function = self._in_function, False
                self._names.append(statement.name)
                self._statements(statement.body)
                self._names.pop()
                self._in_function = inside
            case ast.If() if "TYPE_CHECKING" in ast.unparse(statement.test):
                return
            case ast.If() | ast.While():
                self._condition(statement, "test")
                self._statements(statement.body, new=self._in_function)
                self._statements(statement.orelse, new=self._in_function and bool(statement.orelse))
            case ast.For() | ast.AsyncFor():
                self._field(statement, "iter")
                self._statements(statement.body, new=self._in_function)
                self._statements(statement.orelse, new=self._in_function and bool(statement.orelse))
            case ast.With() | ast.AsyncWith():
                for item in statement.items:
                    self._field(item, "context_expr")
                self._statements(statement.body)
            case ast.Try() | ast.TryStar():
                self._statements(statement.body)
                for handler in statement.handlers:
                    self._statements(handler.body, new=self._in_function)
                self._statements(statement.orelse, new=self._in_function and bool(statement.orelse))
                self._statements(statement.finalbody)
            case ast.Match():
                self._field(statement, "subject")
                for case in statement.cases:
                    if case.guard is not None:
                        self._condition(case, "guard")
                    self._statements(case.body, new=self._in_function)
            case ast.Raise():
                self._left_out(body, index, statement)
            case ast.Return():
                self._left_out(body, index, statement)
                if statement.value is not None:
                    self._field(statement, "value")
            case ast.Continue() | ast.Break() | ast.Delete():
                self._left_out(body, index, statement)
            case ast.Expr():
                if isinstance(statement.value, ast.Constant):
                    return  # a docstring
                self._left_out(body, index, statement)
                self._field(statement, "value")
            case ast.Assign():
                if any(isinstance(target, ast.Name) and target.id.startswith("__") for target in statement.targets):
                    return
                if self._in_function and any(
                    isinstance(target, ast.Attribute | ast.Subscript) for target in statement.targets
                ):
                    self._left_out(body, index, statement)
                self._field(statement, "value")
            case ast.AugAssign():
                self._left_out(body, index, statement)
                self._operator(statement)
                self._field(statement, "value")
            case ast.AnnAssign():
                if statement.value is not None and ast.unparse(statement.annotation) != "TypeAlias":
                    self._field(statement, "value")
            case _:
                return  # what declares, imports or asserts

    def _left_out(self, body: list[ast.stmt], index: int, statement: ast.stmt) -> None:
        ends = body is self._function_body and index == len(body) - 1
        if not self._in_function or (ends and ast.unparse(statement) in ("return", "return None")):
            return  # the second: a function returns None at its end anyway

        def change() -> None:
            body[body.index(statement)] = ast.copy_location(ast.Pass(), statement)

        self._add("left out", statement, "", change)

    # Expressions

    def _condition(self, owner: ast.AST, name: str) -> None:
        test = getattr(owner, name)
        if not isinstance(test, ast.Compare | ast.UnaryOp | ast.Constant):  # those have their own
            self._swap("negated", test, ast.UnaryOp(ast.Not(), test), lambda new: setattr(owner, name, new))
        self._field(owner, name)

    def _field(self, owner: ast.AST, name: str) -> None:
        self._expression(getattr(owner, name), lambda new: setattr(owner, name, new))

    def _operator(self, node: ast.BinOp | ast.AugAssign) -> None:
        other = _ARITHMETIC.get(type(node.op))
        # Outside of functions ``|`` joins types.
        if other is None or (isinstance(node.op, ast.BitOr) and not self._in_function):
            return
        changed = copy.copy(node)
        changed.op = other()
        self._add("operator", node, ast.unparse(changed), lambda: setattr(node, "op", other()))

    def _expression(self, node: ast.expr, put: Callable[[ast.expr], None]) -> None:
        match node:
            case ast.Compare(ops=[operator]):
                for fault, table in (("boundary", _BOUNDARY), ("turned round", _OPPOSITE)):
                    if type(operator) in table:
                        self._swap(
                            fault, node, ast.Compare(node.left, [table[type(operator)]()], node.comparators), put
                        )
            case ast.Compare():
                for place, operator in enumerate(node.ops):
                    for fault, table in (("boundary", _BOUNDARY), ("turned round", _OPPOSITE)):
                        if type(operator) in table:
                            ops = [*node.ops]
                            ops[place] = table[type(operator)]()
                            self._swap(fault, node, ast.Compare(node.left, ops, node.comparators), put)
            case ast.BoolOp():
                other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                self._swap("and, or", node, ast.BoolOp(other, node.values), put)
                for place in range(len(node.values)):
                    rest = [value for number, value in enumerate(node.values) if number != place]
                    self._swap("a side left out", node, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest), put)
            case ast.UnaryOp(op=ast.Not()):
                self._swap("not left out", node, node.operand, put)
            case ast.IfExp():
                self._condition(node, "test")
                self._field(node, "body")
                self._field(node, "orelse")
                return
            case ast.BinOp():
                self._operator(node)
            case ast.Constant(value=bool() as value):
                self._swap("constant", node, ast.Constant(not value), put)
            case ast.Constant(value=int() | float() as value):
                self._swap("constant", node, ast.Constant(value + 1), put)
                if value > 0:
                    self._swap("constant", node, ast.Constant(value - 1), put)
            case ast.Constant(value=bytes() as value) if value:
                self._swap("constant", node, ast.Constant(b"#" if value != b"#" else b"%"), put)
            case ast.Call(func=ast.Name(id=name), args=[_, *_]) if name in _NAMES:
                call = ast.Call(ast.Name(_NAMES[name], ast.Load()), node.args, node.keywords)
                self._swap("operator", node, call, put)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                for generator in node.generators:
                    for place, test in enumerate(generator.ifs):
                        ifs = generator.ifs
                        if not isinstance(test, ast.Compare | ast.UnaryOp | ast.Constant):
                            negated = ast.UnaryOp(ast.Not(), test)
                            self._swap(
                                "negated", test, negated, lambda new, ifs=ifs, place=place: ifs.__setitem__(place, new)
                            )
                        self._expression(test, lambda new, ifs=ifs, place=place: ifs.__setitem__(place, new))
                    self._field(generator, "iter")
                for name in ("elt", "key", "value"):
                    if hasattr(node, name):
                        self._field(node, name)
                return
            case ast.JoinedStr() | ast.Lambda():
                if isinstance(node, ast.Lambda):
                    self._field(node, "body")
                return
            case _:
                pass
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                self._field(node, name)
            elif isinstance(value, list):
                for place, item in enumerate(value):
                    if isinstance(item, ast.expr):
                        self._expression(item, lambda new, items=value, place=place: items.__setitem__(place, new))
                    elif isinstance(item, ast.keyword) and item.arg != "strict":
                        self._field(item, "value")

    def _swap(self, fault: str, node: ast.expr, new: ast.expr, put: Callable[[ast.expr], None]) -> None:
        ast.copy_location(new, node)
        self._add(fault, node, ast.unparse(new), lambda: put(new))

    def _add(self, fault: str, node: ast.stmt | ast.expr, after: str, change: Change) -> None:
        what = (".".join(self._names), fault, ast.unparse(node), after)
        self.found.append((Site(*what, self._alike[what], node.lineno, self._block), change))
        self._alike[what] += 1


def sites(text: str) -> list[Site]:
    """All of a module, in the order of its text."""
    return [site for site, _ in _Walk(ast.parse(text)).found]


def place(text: str, line: int) -> tuple[str, int]:
    """The function or class, and the block, of the statement in a line."""
    around = [
        (where, block) for first, last, where, block in _Walk(ast.parse(text)).statements if first <= line <= last
    ]
    return around[-1] if around else ("", 0)


def sample(found: list[Site], count: int, seed: str) -> Iterator[Site]:
    """As many as that of them, always the same ones."""
    return iter(sorted(found, key=lambda site: site.rank(seed))[:count])


def planted(text: str, wanted: Site) -> ast.Module:
    """The module with that fault in it.

    :raises LookupError: there is no such site.
    """
    tree = ast.parse(text)
    for site, change in _Walk(tree).found:
        if site == wanted:
            change()
            return ast.fix_missing_locations(tree)
    raise LookupError(f"no such site: {wanted}")


def instrumented(text: str) -> ast.Module:
    """The module, where each block of statements in a function tells that it runs: it adds its number to the set that the module's ``HITS`` is."""
    tree = ast.parse(text)
    for body, number in _Walk(tree).starts:
        told = ast.parse(f"{HITS}.add({number})").body[0]
        docstring = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        body.insert(1 if docstring else 0, ast.copy_location(told, body[0]))
    return ast.fix_missing_locations(tree)


def _is_overload(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).endswith(("overload", "abstractmethod")) for decorator in function.decorator_list)


def _replace(arguments: ast.arguments, old: ast.expr, new: ast.expr) -> None:
    for defaults in (arguments.defaults, arguments.kw_defaults):
        for place, default in enumerate(defaults):
            if default is old:
                defaults[place] = new
