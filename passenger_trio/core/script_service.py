"""A service that is started by a command of its own (``[project.scripts]``): which arguments give it its port.

Some services have no application object to import: a command makes it from its arguments, and runs a server itself
(for example datasette). This module knows the text of the module that a script names. It never runs or imports anything.

A script is taken for a service only if its module runs one of the servers in ``_SERVERS`` and has an option
``--port`` (of click, Typer or argparse): then it can be told where to listen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from passenger_trio.core.python_names import Module

__all__ = ["service_arguments"]

_SERVERS = {
    "uvicorn": "run",
    "hypercorn": "serve",
    "waitress": "serve",
    "granian": "Granian",
    "bjoern": "run",
    "cheroot": "Server",
    "aiohttp": "run_app",
    "eventlet": "server",
    "gevent": "WSGIServer",
    "tornado": "listen",
}
"""Package of a server -> the last name of its function that serves."""
_PORT = "--port"


def service_arguments(module: Module, function: str) -> tuple[str, ...] | None:
    """The arguments before the port: ``("serve", "--port")``. None: the script is no such service.

    :param function: the one that the script calls.
    """
    if module.syntax_error or not _runs_a_server(module.tree):
        return None
    commands = [
        command
        for command in _functions(module.tree)
        if any(_is_port_option(decorator) for decorator in command.decorator_list) or _has_port_parameter(command)
    ]
    # Several functions may have a port parameter: take the one that calls the server.
    serving = [command for command in commands if _calls(command) & {*_SERVERS.values()}] or commands
    if serving:
        return (*_subcommand(serving[0], function), _PORT)
    calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    if any(
        isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument" and _names(call) for call in calls
    ):
        return (_PORT,)
    return None


def _runs_a_server(tree: ast.Module) -> bool:
    imported = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                imported |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(module=str() as name, level=0):
                imported.add(name.partition(".")[0])
            case _:
                pass
    called = _calls(tree)
    return any(package in imported and name in called for package, name in _SERVERS.items())


def _calls(tree: ast.AST) -> set[str]:
    """The last name of each function that is called in a syntax tree."""
    return {_last_name(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef))


def _names(call: ast.Call) -> bool:
    return any(isinstance(argument, ast.Constant) and argument.value == _PORT for argument in call.args)


def _is_port_option(decorator: ast.expr) -> bool:
    """``@click.option("-p", "--port")``"""
    return isinstance(decorator, ast.Call) and _last_name(decorator.func) == "option" and _names(decorator)


def _has_port_parameter(command: ast.FunctionDef) -> bool:
    """Typer: ``port: int = 8000`` of a command."""
    arguments = [*command.args.args, *command.args.kwonlyargs]
    return any(_last_name(_called(one)) == "command" for one in command.decorator_list) and any(
        argument.arg == "port" for argument in arguments if not _is_click(command)
    )


def _is_click(command: ast.FunctionDef) -> bool:
    return any(_last_name(_called(one)) in ("option", "argument") for one in command.decorator_list)


def _subcommand(command: ast.FunctionDef, function: str) -> tuple[str, ...]:
    """The name of the command in its group of commands; nothing if the script calls the command itself."""
    if command.name == function:
        return ()
    for decorator in command.decorator_list:
        called = _called(decorator)
        if isinstance(called, ast.Attribute) and called.attr == "command" and _last_name(called.value) != "click":
            match decorator:
                case ast.Call(args=[ast.Constant(value=str() as name), *_]):
                    return (name,)
                case ast.Call(keywords=[ast.keyword(arg="name", value=ast.Constant(value=str() as name)), *_]):
                    return (name,)
                case _:
                    return (command.name.replace("_", "-"),)
    return ()


def _called(decorator: ast.expr) -> ast.expr:
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _last_name(expression: ast.expr) -> str:
    match expression:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""
