"""OP25: a command of a project that runs a server of its own, of datasette's kind."""

from __future__ import annotations

import pytest

from passenger_trio.core.python_names import read_module
from passenger_trio.core.script_service import service_arguments

CLICK_GROUP = """
import click
import uvicorn
from .app import Service

@click.group()
def cli():
    pass

@cli.command()
@click.option("--port", help="of the container")
def package(port):
    pass

@cli.command()
@click.argument("files", nargs=-1)
@click.option("-p", "--port", type=int, default=8001)
{name}
def serve(files, port):
    uvicorn.run(Service(files).app(), port=port)
"""
CLICK_COMMAND = """
import click
from waitress import serve as wait

@click.command()
@click.option("--port", default=8000)
def main(port):
    import waitress
    waitress.serve(app, port=port)
"""
ARGPARSE = """
import argparse
from aiohttp import web

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-P", "--port", type=int)
    web.run_app(make(), port=parser.parse_args().port)
"""
TYPER = """
import typer, uvicorn
cli = typer.Typer()

@cli.command("run-it")
def run(port: int = 8000):
    uvicorn.run(app, port=port)
"""


@pytest.mark.parametrize(
    ("text", "function", "arguments"),
    [
        (CLICK_GROUP.format(name=""), "cli", ("serve", "--port")),
        (CLICK_COMMAND, "main", ("--port",)),
        (ARGPARSE, "main", ("--port",)),
        (TYPER, "cli", ("run-it", "--port")),
    ],
)
def test_a_command_that_serves_and_can_be_told_its_port_is_a_service(
    text: str, function: str, arguments: tuple[str, ...]
) -> None:
    assert service_arguments(read_module(text.encode()), function) == arguments


@pytest.mark.parametrize(
    "text",
    [
        CLICK_COMMAND.replace("--port", "--bind"),
        CLICK_COMMAND.replace("waitress", "other"),
        ARGPARSE.replace("web.run_app", "web.stop_app"),
        "def main(:",
        "",
    ],
)
def test_others_are_none(text: str) -> None:
    assert service_arguments(read_module(text.encode()), "main") is None
