"""The command as a person meets it: help, mistakes, exit codes; and how flags become a configuration."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
import click
import pytest
from faces_tools import AS_OURSELVES, run_command
from hypothesis import given
from hypothesis import strategies as st

import passenger_trio
from passenger_trio.cli import banner, main
from passenger_trio.cli.applications import root_and_target
from passenger_trio.cli.flags import SECTIONS, Flag, flags, human_duration, human_size
from passenger_trio.cli.reference import options_reference
from passenger_trio.cli.settings import settle
from passenger_trio.cli.start_cmd import start
from passenger_trio.core.option_values import parse_duration, parse_size
from passenger_trio.errors import BindError, NothingToServe, OptionError, PassengerError, StartupAborted
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.spawning.detect import DetectedApp

ROOT = Path(passenger_trio.__file__).parents[1]


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return run_command(*arguments, cwd=ROOT, env={**AS_OURSELVES, "COLUMNS": "80", **env})


def run_program(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a program that the interpreter loads."""
    return subprocess.run(
        [sys.executable, "-m", "passenger_trio", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, **AS_OURSELVES, "COLUMNS": "80"},
    )


def configuration(*arguments: str, **environ: str) -> Config:
    context = start.make_context("start", list(arguments))
    root, target = root_and_target(context.params["what"])
    return settle(context, context.params, None, root=root, target=target, environ=environ).config


@pytest.mark.os
class TestAsAProgram:
    def test_without_arguments_it_helps(self) -> None:
        plain, asked = run_program(), run("--help")
        assert plain.returncode == asked.returncode == 0
        assert plain.stdout == asked.stdout
        assert "start" in plain.stdout
        assert "status" in plain.stdout

    def test_help_of_a_command_fits_on_a_screen_and_says_where_the_rest_is(self) -> None:
        short, full = run("start", "--help"), run("start", "--help-all")
        assert short.returncode == full.returncode == 0
        assert len(short.stdout.splitlines()) <= 70
        assert "--max-pool-size N" in short.stdout
        assert "--help-all" in short.stdout
        assert "--plain-parser" not in short.stdout
        for flag in flags():
            assert flag.long in full.stdout
        for section in SECTIONS:
            assert f"\n{section}:\n" in full.stdout

    def test_version(self) -> None:
        for told in (run("--version"), run_program("--version")):
            assert (told.returncode, told.stdout) == (0, f"passenger-trio {passenger_trio.__version__}\n")

    def test_a_mistake_of_the_program_itself(self) -> None:
        """As those of ``test_mistakes``, which are told by a process that had loaded it before."""
        told = run_program("start", "tests/apps/python/demo", "--socket-mode", "rw")
        assert told.returncode == 2
        assert told.stdout == ""
        assert told.stderr.startswith("passenger-trio: ")
        assert told.stderr == run("start", "tests/apps/python/demo", "--socket-mode", "rw").stderr

    @pytest.mark.parametrize(
        ("arguments", "code", "part"),
        [
            (("strat",), 2, "No such command"),
            (("start", "--no-such-option"), 2, "No such option"),
            (("start", "--port", "many"), 2, "'many' is not a number"),
            (("start", "--port", "70000"), 2, "from 0 to 65535"),
            (("start", "--start-timeout", "5x"), 2, "250ms, 30s, 5m"),
            (("start", "--start-timeout", "0"), 2, "cannot be 0"),
            (("start", "--max-request-body", "big"), 2, "64K, 512M"),
            (("start", "--max-pool-size", "0"), 2, "1 or more"),
            (("start", "--socket-backlog", "99999999999"), 2, "from 1 to 2147483647"),
            (("start", "--max-request-line", "0"), 2, "cannot be 0"),
            (("start", "--max-header-size", "0"), 2, "cannot be 0"),
            (("start", "--max-header-field-size", "0"), 2, "cannot be 0"),
            (("start", "--memory-limit", "9" * 400), 2, "64K, 512M"),
            (("start", "--min-instances", "9"), 2, "--max-pool-size allows 6 processes"),
            (("start", "--websocket-max-message-size", "17M"), 2, "a process takes at most 16M at once"),
            (("start", "--spawn-method", "slow"), 2, "smart"),
            (("start", "-a", "::1", "-a", "127.0.0.1"), 2, "'--address': it is given more than once"),
            (("start", "-p", "3000", "-S", "/tmp/x"), 2, "--socket listens on no port: give one of the two"),
            (("start", "--max-requests-jitter", "5"), 2, "give --max-requests, and more than this"),
            (("start", "--memory-limit", "2K", "--hard-memory-limit", "1K"), 2, "make it the larger one"),
            (("start", "--warmup-url", "nopath"), 2, "from its first slash on: /health?deep=1"),
            (("start", "tests/apps/python/demo", "--loop", "trio"), 2, "is a WSGI application: only ASGI"),
            (("start", "tests/apps/python/demo", "--ruby", "ruby"), 2, "this option is for Rack applications"),
            (("start", "tests/apps/python/demo", "--node", "node"), 2, "this option is for Node.js applications"),
            (("start", "--env", "NAME"), 2, "write NAME=VALUE"),
            (("stop", "--timeout", "-1"), 2, "-1.0 is not in the range"),
            (("start", "a", "b", "c"), 2, "give a directory and a target at most"),
            (("start", "tests/apps/python/demo", "--socket-mode", "rw"), 2, "'rw' cannot be used: three octal digits"),
            (("start", "/nowhere/at/all"), 4, "there is no directory /nowhere/at/all"),
            (("start", "no_such_directory"), 4, "no_such_directory:app"),
            (("start", "tests/apps/python/demo", "--data-buffer-dir", "/nowhere"), 2, "not a directory"),
            (("start", "tests/apps/python/demo", "--data-buffer-dir", "/proc/self"), 2, "no file can be made in it"),
            (
                ("start", "tests/apps/python/demo", "-S", "/nowhere/s"),
                5,
                "No such file or directory; choose another with -S\n",
            ),
            (
                ("start", "tests/apps/python/demo", "-S", "/tmp/" + "s" * 103),
                5,
                "107 bytes long; choose another with -S\n",
            ),
            (("start", "tests/apps/python/demo", "-S", "/etc/passwd"), 5, "choose another with -S, or remove it\n"),
            (("start", "tests/apps/python/demo", "-a", "2001:db8::1"), 5, "cannot listen on [2001:db8::1]:3000"),
            (("start", "tests/apps/python/demo", "-a", "[2001:db8::1]"), 5, "cannot listen on [2001:db8::1]:3000"),
            (("start", "tests/apps", "no_such_module:app"), 4, "no module 'no_such_module'"),
            (("start", "tests/core"), 4, "no application found"),
            (("start", ".", "--python", "/nowhere/python"), 4, ""),
            (("start", "tests/apps/python/demo", "--python", "/nowhere/python"), 2, "no such file"),
            (("status", "/nowhere"), 1, "no instance runs in /nowhere"),
        ],
    )
    def test_mistakes(self, arguments: tuple[str, ...], code: int, part: str) -> None:
        """One short clear message, no traceback, the documented code."""
        told = run(*arguments)
        assert told.returncode == code, told.stderr
        assert told.stdout == ""
        assert part in told.stderr
        assert told.stderr.startswith("passenger-trio: ")
        assert "Traceback" not in told.stderr
        assert len(told.stderr.splitlines()) <= 6

    @pytest.mark.parametrize(
        ("variable", "value", "part"),
        [
            ("PASSENGER_TRIO_MAX_POOL_SIZE", "many", "'many' cannot be used: a number of processes"),
            ("PASSENGER_TRIO_PLAIN_PARSER", "perhaps", "'perhaps' is not"),
            ("PASSENGER_TRIO_ENV", "A=1 B", "write NAME=VALUE"),
            ("PORT", "http", "'http' is not a number"),
            ("WEB_CONCURRENCY", "0", "it must be 1 or more"),
        ],
    )
    def test_a_mistake_in_the_environment_is_named_by_its_variable(self, variable: str, value: str, part: str) -> None:
        told = run("start", **{variable: value})
        assert told.returncode == 2, told.stderr
        assert told.stderr.startswith(f"passenger-trio: Invalid value for {variable} in the environment: ")
        assert part in told.stderr

    def test_a_variable_that_nearly_is_an_option_is_told_of(self) -> None:
        told = run("start", "tests/core", PASSENGER_TRIO_MAX_POOL_SIEZ="3", PASSENGER_TRIO_OF_SOMEBODY_ELSE="1")
        assert "PASSENGER_TRIO_MAX_POOL_SIEZ is no option; did you mean PASSENGER_TRIO_MAX_POOL_SIZE?" in told.stderr
        assert "SOMEBODY" not in told.stderr

    def test_status_without_an_instance(self, tmp_path: Path) -> None:
        told = run("status", "--json", XDG_RUNTIME_DIR=str(tmp_path), TMPDIR=str(tmp_path))
        # Others may run instances on this machine; what must not happen is a traceback.
        assert told.returncode in (0, 1)
        assert "Traceback" not in told.stderr

    def test_a_reader_that_goes_away_is_no_error(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        told = subprocess.run(
            [sys.executable, "-m", "passenger_trio", "start", "--help-all"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            cwd=ROOT,
        )
        os.close(writer)
        assert told.stderr == b""
        assert told.returncode == 1

    def test_it_starts_quickly(self) -> None:
        """What is imported for help and for the flags of ``start``: neither Trio nor anything that is used later."""
        program = "import sys, passenger_trio.cli.main, passenger_trio.cli.start_cmd; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
        heavy = {"trio", "h11", "psutil", "structlog", "json", "subprocess", "http.client", "asyncio", "logging"}
        assert not heavy & set(loaded.stdout.split())


class TestTheBoundary:
    """What an error looks like from outside."""

    @pytest.fixture(autouse=True)
    def logging_as_before(self) -> Iterator[None]:
        logger = logging.getLogger("passenger_trio")
        before = (logger.handlers[:], logger.level, logger.propagate)
        yield
        logger.handlers[:], logger.level, logger.propagate = before

    @pytest.fixture
    def fails_with(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def install(error: BaseException) -> None:
            @click.command()
            @click.pass_obj
            def fail(outcome: main.Outcome) -> None:
                raise error

            monkeypatch.setattr(main.cli, "get_command", lambda ctx, name: fail)

        return install

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (OptionError("--port", 1, "another"), 2),
            (NothingToServe("nothing"), 4),
            (BindError("in use"), 5),
            (PassengerError("odd"), 70),
            (ExceptionGroup("a nursery", [ExceptionGroup("another", [BindError("in use")])]), 5),
            (KeyboardInterrupt(), 130),
            (BaseExceptionGroup("a nursery", [KeyboardInterrupt()]), 130),
            (click.Abort(), 130),
        ],
    )
    def test_exit_codes(
        self, fails_with: Any, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
    ) -> None:
        fails_with(error)
        assert main.main(["start"]) == code
        told = capsys.readouterr().err
        assert len(told.strip().splitlines()) == (0 if code == 130 else 1)

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
    @pytest.mark.parametrize("grouped", [False, True])
    def test_KE2_KE3_what_the_machine_lacks_is_no_fault_of_ours(
        self, fails_with: Any, capsys: pytest.CaptureFixture[str], number: int, grouped: bool
    ) -> None:
        error = OSError(number, os.strerror(number), "/proc")
        fails_with(ExceptionGroup("a nursery", [error, BindError("x")]) if grouped else error)
        assert main.main(["start"]) == 70
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"passenger-trio: {os.strerror(number)}: ")

    @pytest.mark.parametrize(
        "error", [ValueError("odd"), ExceptionGroup("a nursery", [ValueError("odd"), BindError("x")])]
    )
    def test_a_fault_of_ours(self, fails_with: Any, capfd: pytest.CaptureFixture[str], error: Exception) -> None:
        fails_with(error)
        assert main.main(["start"]) == 70
        log, *rest = capfd.readouterr().err.splitlines()
        assert "internal error" in log
        traceback = [line for line in rest if line.startswith("  | ")]
        assert any(line.endswith("ValueError: odd") for line in traceback), "fault 35: in lines that can be read"
        first = rest[len(traceback)]
        assert first == "passenger-trio: internal error: ValueError: odd"

    def test_a_fault_of_ours_with_its_traceback(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        @click.command()
        @click.pass_obj
        def fail(outcome: main.Outcome) -> None:
            outcome.log_level = "debug"
            raise ValueError("odd")

        monkeypatch.setattr(main.cli, "get_command", lambda ctx, name: fail)
        assert main.main(["start"]) == 70
        assert capfd.readouterr().err.startswith("Traceback (most recent call last):\n")

    def test_every_error_has_a_documented_code(self) -> None:
        documented = set(re.findall(r"^\| (\d+) \|", options_reference(), re.M))
        for error in (OptionError, NothingToServe, BindError, StartupAborted, PassengerError):
            assert str(error.exit_code) in documented


class TestFlags:
    def test_defaults_are_those_of_the_schema(self) -> None:
        assert configuration() == Config(apps=(AppOptions(),))

    def test_every_field_has_one_flag_and_one_name(self) -> None:
        found = [(flag.owner, flag.field) for flag in flags()]
        wanted = [
            (owner, field.name) for owner in (ServerOptions, PoolOptions, AppOptions) for field in attrs.fields(owner)
        ]
        assert sorted(map(str, found)) == sorted(str(one) for one in wanted if one[1] not in ("root", "target"))
        names = [flag.name for flag in flags()]
        assert len(set(names)) == len(names)
        assert {flag.section for flag in flags()} == set(SECTIONS)

    EXAMPLES: ClassVar[dict[str, tuple[str, Any]]] = {
        "duration": ("7s", 7.0),
        "size": ("3K", 3072),
        "int": ("2", 2),
        "text": ("x", "x"),
        "mode": ("0600", "0600"),
        "path": ("/x", "/x"),
        "pool size": ("75%", "75%"),
    }
    BESIDES: ClassVar[dict[str, dict[str, Any]]] = {
        "socket_mode": {"socket": "/s"},
        "memory_check_interval": {"memory_limit": 4096},
        "max_requests_jitter": {"max_requests": 9},
        "sticky_sessions_cookie_name": {"sticky_sessions": True},
        "sticky_sessions_cookie_attributes": {"sticky_sessions": True},
    }
    """What an option needs to have an effect."""

    @pytest.mark.parametrize("flag", flags(), ids=lambda flag: flag.name)
    @pytest.mark.parametrize("source", ["command line", "environment"])
    def test_each_reaches_its_field(self, flag: Flag, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
        text, value = self.EXAMPLES.get(flag.kind, ("", None))
        if flag.kind == "choice":
            text = value = flag.choices[-1]
        elif flag.kind == "flag":
            text, value = ("0", False) if flag.default else ("1", True)
        elif flag.name == "warmup_url":
            text = value = "/x"
        elif flag.name == "core":
            text = value = "64M"
        elif flag.name == "cpu_max":
            text = value = "50%"
        elif flag.name == "fronts":
            text = value = "2"
        elif flag.name == "apps_dir":
            text = value = "/sys"  # it is there, and has no such files
        elif flag.name == "env":
            text, value = "A=b=c", (("A", "b=c"),)
        elif flag.name == "allowed_methods":
            text, value = "PROPFIND", ("PROPFIND",)
        elif flag.kind == "list":
            text, value = "10.0.0.0/8", ("10.0.0.0/8",)
        besides = self.BESIDES.get(flag.name, {})
        more = []
        for name, content in besides.items():
            more += [f"--{name.replace('_', '-')}", *(() if content is True else (str(content),))]
        if source == "environment":
            monkeypatch.setenv(flag.env_name, text)
            config = configuration(*more)
        elif flag.kind == "flag":
            config = configuration(f"--no-{flag.long[2:]}" if flag.default else flag.long)
        else:
            config = configuration(flag.long, text, *more)
        owners = {
            ServerOptions: config.server,
            PoolOptions: config.pool,
            AppOptions: config.apps[0] if config.apps else None,
        }
        own = {name: content for name, content in besides.items() if hasattr(flag.owner(), name)}
        changed = attrs.evolve(flag.owner(), **{flag.field: value, **own})
        assert owners[flag.owner] == changed

    def test_short_flags(self) -> None:
        config = configuration("-a", "0.0.0.0", "-p", "80", "-e", "production")
        assert (config.server.address, config.server.port) == ("0.0.0.0", 80)
        assert configuration("-S", "/x.sock").server.socket == "/x.sock"
        assert config.apps[0].environment == "production"

    def test_what_can_be_repeated(self) -> None:
        config = configuration("--env", "A=1", "--env", "B=2 3", "--trusted-proxies", "::1")
        assert config.apps[0].env == (("A", "1"), ("B", "2 3"))
        assert config.server.trusted_proxies == ("::1",)

    @pytest.mark.parametrize(
        "words",
        [("-a", "::1", "-a", "127.0.0.1"), ("--port", "1", "-p", "2"), ("--plain-parser", "--no-plain-parser")],
    )
    def test_what_cannot_be_repeated(self, words: tuple[str, ...]) -> None:
        """Issue 14: the first of two was passed over without a word."""
        with pytest.raises(click.BadParameter, match=r"given more than once, as .* and .*: give it once"):
            configuration(*words)

    def test_to_say_the_same_twice_is_no_contradiction(self) -> None:
        assert configuration("-p", "80", "--port", "80", "--plain-parser", "--plain-parser").server.port == 80

    @pytest.mark.parametrize("words", [("-p", "3000"), ("-p", "80"), ("-a", "127.0.0.1")])
    def test_a_socket_has_no_port_and_no_address(self, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where they are the defaults, and wherever they are said; but a platform's PORT only takes the place of a default."""
        with pytest.raises(OptionError, match="give one of the two"):
            configuration(*words, "-S", "/x.sock")
        assert configuration(*words, "-S", "").server.socket == ""
        given = configuration("-S", "/x.sock", PORT="4000").server
        assert (given.socket, given.port, given.address) == ("/x.sock", 3000, "127.0.0.1")
        monkeypatch.setenv("PASSENGER_TRIO_PORT", "4000")
        with pytest.raises(OptionError, match="PASSENGER_TRIO_PORT in the environment: 4000 cannot be used"):
            configuration("-S", "/x.sock")

    def test_the_command_line_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PASSENGER_TRIO_PORT", "4000")
        assert configuration().server.port == 4000
        assert configuration("--port", "5000").server.port == 5000

    def test_OP10_variables_of_the_platform_take_the_place_of_a_default(self) -> None:
        """OP10, fault 24: RAILS_ENV=production ran as development."""
        config = configuration(PORT="4000", WEB_CONCURRENCY="3", NODE_ENV="test")
        assert (config.server.address, config.server.port) == ("0.0.0.0", 4000)
        assert config.pool.max_pool_size == 3
        assert config.apps[0].environment == "test"
        said = configuration("-p", "1", "--max-pool-size", "2", "-e", "x", PORT="4", WEB_CONCURRENCY="5", RACK_ENV="y")
        assert (said.server.address, said.server.port) == ("127.0.0.1", 1)
        assert (said.pool.max_pool_size, said.apps[0].environment) == (2, "x")
        assert configuration("-a", "::1", PORT="4000").server.address == "::1"
        assert configuration(PORT="", WEB_CONCURRENCY="", RAILS_ENV="") == configuration()
        assert configuration(WEB_CONCURRENCY="auto").pool.max_pool_size == "auto", "OP6"

    def test_OP10_the_order_of_the_environments_is_that_of_passenger(self) -> None:
        names = ("RAILS_ENV", "RACK_ENV", "NODE_ENV", "PASSENGER_APP_ENV")
        for number, first in enumerate(names):
            assert configuration(**{name: name for name in names[number:]}).apps[0].environment == first

    def test_two_shutdown_timeouts_are_told_apart(self) -> None:
        config = configuration("--shutdown-timeout", "1m", "--process-shutdown-timeout", "2s")
        assert (config.server.shutdown_timeout, config.apps[0].shutdown_timeout) == (60.0, 2.0)

    @given(st.integers(0, 10**8))
    def test_what_is_shown_can_be_read_back(self, number: int) -> None:
        assert parse_size(human_size(number)) == number
        assert parse_duration(human_duration(float(number))) == number
        assert parse_duration(human_duration(number / 1000)) == pytest.approx(number / 1000)

    @pytest.mark.parametrize(
        ("seconds", "shown"), [(300.0, "5m"), (90.0, "90s"), (0.25, "250ms"), (3600.0, "1h"), (0.0, "0"), (60, "60s")]
    )
    def test_durations_as_people_write_them(self, seconds: float, shown: str) -> None:
        assert human_duration(seconds) == shown


class TestWhatToStart:
    def test_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop/app.py").write_text("")
        (tmp_path / "run.py").write_text("")
        for words, expected in {
            (): (".", ""),
            ("shop",): ("shop", ""),
            ("shop:app",): (".", "shop:app"),
            ("shop.web:make()",): (".", "shop.web:make()"),
            ("run.py",): (".", "run.py"),
            ("run.py:app",): (".", "run.py:app"),
            ("shop/app.py",): ("shop", "app.py"),
            ("shop/app.py:make()",): ("shop", "app.py:make()"),
            ("shop", "app:app"): ("shop", "app:app"),
            ("no/such/place",): ("no/such/place", ""),
        }.items():
            assert root_and_target(words) == expected

    def test_a_directory_with_a_colon_is_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "a:b").mkdir()
        assert root_and_target((str(tmp_path / "a:b"),)) == (str(tmp_path / "a:b"), "")


class TestTheReference:
    def test_it_is_up_to_date(self) -> None:
        text = (ROOT / "docs" / "options.md").read_text()
        assert text == options_reference(), "run: python -m passenger_trio.cli.reference > docs/options.md"


@attrs.define
class Server:
    """What the banner reads of a ``RunningServer``."""

    config: Config
    addresses: list[str]
    admin_socket: str
    apps: list[DetectedApp]


class TestTheBanner:
    def server(self, **options: Any) -> Any:
        found = DetectedApp(
            "wsgi", "/srv/shop", "/srv/shop/app.py", "", "app", False, "/usr/bin/python3", "why not", "app.py has `app`"
        )
        config = Config(
            server=ServerOptions(log_format=options.pop("log_format", "console")),
            apps=(AppOptions(root="/srv/shop", **options),),
        )
        return Server(config, ["http://127.0.0.1:45863/"], "/run/pt/abc/admin.sock", [found])

    def test_it_has_six_lines_at_most_and_says_everything(self) -> None:
        lines = banner.as_lines(self.server(thread_count=4))
        assert len(lines) == 6
        text = "\n".join(lines)
        for part in (
            "http://127.0.0.1:45863/",
            "/srv/shop (development): app.py has `app`",
            "/usr/bin/python3: why not",
            "1 to 6 processes",
            "4 threads each",
            "/run/pt/abc/admin.sock",
            "Ctrl-C stops",
        ):
            assert part in text
        assert "\x1b" not in text
        assert "\x1b[1mhttp" in "\n".join(banner.as_lines(self.server(), coloured=True))

    def test_as_json_it_is_one_line(self) -> None:
        text = banner.as_json(self.server())
        assert "\n" not in text
        said = json.loads(text)
        assert (said["event"], said["addresses"]) == ("ready", ["http://127.0.0.1:45863/"])
        assert said["applications"][0]["reason"] == "app.py has `app`"

    def test_OP5_of_thousands_of_applications_it_tells_of_a_hundred(self) -> None:
        """As JSON it told of all: five megabytes for 10 000, written while nobody was served."""
        server = self.server()
        server.apps *= 10_000
        server.config = attrs.evolve(server.config, apps=server.config.apps * 10_000)
        said = json.loads(banner.as_json(server))
        assert (len(said["applications"]), said["more_applications"]) == (100, 9_900)
        assert len(banner.as_lines(server)) < 110

    def test_it_goes_where_it_is_told(self, tmp_path: Path) -> None:
        for log_format in ("console", "json"):
            with open(tmp_path / log_format, "wb") as file:
                banner.show(self.server(log_format=log_format), file.fileno())
            assert (tmp_path / log_format).read_bytes().endswith(b"\n")

    def test_a_closed_standard_error_is_no_reason_not_to_serve(self) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        banner.show(self.server(), writer)
        os.close(writer)
