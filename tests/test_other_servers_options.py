"""OP23: the options of gunicorn, uvicorn, puma and Passenger: accepted, or told what they are called here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
import pytest

from passenger_trio.cli.bind import parse_bind
from passenger_trio.cli.flags import flags
from passenger_trio.cli.main import main
from passenger_trio.cli.settings import settle
from passenger_trio.cli.start_cmd import start
from passenger_trio.core import other_servers_options
from passenger_trio.core.other_servers_options import advice_for
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
        ("--http2", "proxy"),
        ("-k", "--thread-count N"),
        ("-t", "--max-request-time"),
        ("-D", "foreground"),
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
    for option, advice in {**other_servers_options._ADVICE, **other_servers_options._SHORT_ADVICE}.items():
        assert option not in known, f"{option} is an option here"
        for named in re.findall(r"--[a-z][a-z-]+", advice):
            assert named in known, f"{option}: there is no {named}"


def options_of_gunicorn() -> set[str]:
    from gunicorn.config import KNOWN_SETTINGS

    return {option for setting in KNOWN_SETTINGS for option in setting.cli or ()}


def options_of_uvicorn() -> set[str]:
    from uvicorn.main import main as command

    return {
        option
        for param in command.params
        for option in (*param.opts, *param.secondary_opts)
        if param.param_type_name == "option"
    }


def options_of_passenger() -> set[str]:
    """Of ``passenger start`` 6.0, as its ``config_options_list.rb`` has them."""
    names = """
        address port socket socket-backlog ssl ssl-certificate ssl-certificate-key ssl-port daemonize user log-file pid-file instance-registry-dir
        data-buffer-dir core-file-descriptor-ulimit environment ruby python nodejs meteor-app-settings rackup app-type startup-file app-start-command
        app-support-kuria-protocol spawn-method direct-instance-request-address static-files-dir restart-dir friendly-error-pages
        no-friendly-error-pages load-shell-envvars preload-bundler app-file-descriptor-ulimit debugger envvar max-pool-size min-instances
        pool-idle-time max-preloader-idle-time force-max-concurrent-requests-per-process start-timeout concurrency-model thread-count memory-limit
        rolling-restarts resist-deployment-errors max-requests max-request-time max-request-queue-size sticky-sessions sticky-sessions-cookie-name
        sticky-sessions-cookie-attributes vary-turbocache-by-cookie disable-turbocaching unlimited-concurrency-path
        abort-websockets-on-process-shutdown nginx-bin nginx-version nginx-tarball nginx-config-template debug-nginx-config
        disable-security-update-check security-update-check-proxy disable-anonymous-telemetry anonymous-telemetry-proxy engine log-level
        disable-log-prefix admin-panel-url admin-panel-auth-type admin-panel-username admin-panel-password auto ctl binaries-url-root
        runtime-check-only dont-install-runtime dont-compile-runtime"""
    return {f"--{name}" for name in names.split()}


def options_of_puma() -> set[str]:
    """Of puma 6, as ``puma --help`` has them."""
    names = """
        bind bind-to-activated-sockets config no-config control-url control-token debug dir environment fork-worker include extra-runtime-dependencies
        early-hints port pidfile plugin preload prune-bundler quiet log-requests restart-cmd silent state threads idle-timeout version workers tag
        redirect-stdout redirect-stderr redirect-append first-data-timeout persistent-timeout"""
    return {f"--{name}" for name in names.split()}


@pytest.mark.parametrize("options", [options_of_gunicorn, options_of_uvicorn, options_of_passenger, options_of_puma])
def test_OP23_every_option_of_the_other_server_is_known(options: Callable[[], set[str]]) -> None:
    known = {spelling for param in start.params for spelling in (*param.opts, *param.secondary_opts)}
    known |= {"--help", "--version", "-h"}
    unknown = {option for option in options() if option not in known and not advice_for(option)}
    assert not unknown, "say what they are called here, or why there is none"
