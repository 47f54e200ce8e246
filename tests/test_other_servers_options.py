"""OP23: the options of gunicorn, uvicorn, puma and Passenger: accepted, or told what they are called here."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest

from passenger_trio.cli.bind import parse_bind
from passenger_trio.cli.flags import flags
from passenger_trio.cli.main import main
from passenger_trio.cli.settings import settle
from passenger_trio.cli.start_cmd import start
from passenger_trio.core import other_servers
from passenger_trio.options import Config


def config_of(*arguments: str) -> Config:
    ctx = start.make_context("start", list(arguments))
    values: dict[str, Any] = ctx.params
    return settle(ctx, values, None, root=".", target="", environ={}).config


@pytest.mark.parametrize(
    ("arguments", "listens"),
    [
        (("-b", "0.0.0.0:8000"), ("0.0.0.0", 8000, "")),
        (("--bind", ":8000"), ("0.0.0.0", 8000, "")),
        (("--bind=[::1]:8000",), ("::1", 8000, "")),
        (("-b", "example.com"), ("example.com", 3000, "")),
        (("-b", "tcp://0.0.0.0:9292"), ("0.0.0.0", 9292, "")),
        (("-b", "localhost", "-p", "80"), ("localhost", 80, "")),
        (("-b", "unix:/run/app.sock"), ("127.0.0.1", 3000, "/run/app.sock")),
        (("-b", "unix:///run/app.sock"), ("127.0.0.1", 3000, "/run/app.sock")),
        (("-b", "unix:app.sock"), ("127.0.0.1", 3000, "app.sock")),
        (("--host", "::1"), ("::1", 3000, "")),
        (("--uds", "/run/app.sock"), ("127.0.0.1", 3000, "/run/app.sock")),
    ],
)
def test_addresses_as_others_write_them(arguments: tuple[str, ...], listens: tuple[str, int, str]) -> None:
    server = config_of(*arguments).server
    assert (server.address, server.port, server.socket) == listens


@pytest.mark.parametrize("arguments", [("-w", "4"), ("--workers", "4"), ("--max-pool-size", "4")])
def test_workers(arguments: tuple[str, ...]) -> None:
    assert config_of(*arguments).pool.max_pool_size == 4


def test_root_path() -> None:
    assert config_of("--root-path", "/shop").apps[0].base_uri == "/shop"


@pytest.mark.parametrize("text", ["", "::", "a:b:c", "localhost:port", "fd://3", "host:99999", "unix:", "http://a/b"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_bind(text)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--bind", ":80", "--port", "81"), "--port is given, too"),
        (("--bind", "unix:a", "-S", "b"), "--socket is given, too"),
        (("--bind", ":80", "--bind", ":81"), "listens on one address"),
    ],
)
def test_addresses_that_contradict_each_other(arguments: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(click.ClickException) as caught:
        config_of(*arguments)
    assert complaint in caught.value.format_message()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--threads", "use --thread-count"),
        ("--worker-class", "--thread-count N"),
        ("--daemon", "foreground"),
        ("--pid-file", "passenger-trio list"),
        ("--pid", "passenger-trio list"),
        ("--timeout-keep-alive", "--keep-alive-timeout"),
        ("--factory", "module:factory()"),
        ("--ssl-keyfile", "proxy"),
        ("--rolling-restarts", "every restart is rolling"),
        ("--tag", "--name"),
    ],
)
def test_an_option_of_another_server_is_told_what_it_is_here(
    capsys: pytest.CaptureFixture[str], option: str, words: str
) -> None:
    assert main(["start", option, "4"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"passenger-trio: there is no option {option}: ")
    assert words in told


def test_another_unknown_option_is_compared_with_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["start", "--max-pool-sise", "4"]) == 2
    told = capsys.readouterr().err
    assert "Did you mean" in told
    assert "'--max-pool-size'" in told


def test_each_advice_names_options_that_exist_and_is_needed() -> None:
    known = {spelling for param in start.params for spelling in (*param.opts, *param.secondary_opts)}
    known |= {flag.long for flag in flags()} | {"--json", "--all"}
    for option, advice in other_servers._ADVICE.items():
        assert option not in known, f"{option} is an option here"
        for named in re.findall(r"--[a-z][a-z-]+", advice):
            assert named in known, f"{option}: there is no {named}"
