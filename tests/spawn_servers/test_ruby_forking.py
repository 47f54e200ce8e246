"""OP15: what a preloader finds in a Rack application, what it puts right, and what forked workers have of their own."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from needs import needs
from ruby_rack import can_fork, command, rubies

from preloader_ends import check_exit_hooks
from passenger_trio.testing.conformance import FakeSupervisor, Loader

pytestmark = pytest.mark.os

RUBIES = {name: path for name, path in rubies().items() if can_fork(path)}
RUN = 'run ->(_env) { [200, { "content-type" => "text/plain" }, [answer.to_s]] }\n'


@pytest.fixture(params=RUBIES or ["none"])
def ruby(request: pytest.FixtureRequest) -> str:
    needs(bool(RUBIES), "a Ruby that forks")
    return RUBIES[request.param]


@contextmanager
def preloader_of(ruby: str, directory: Path, source: str) -> Iterator[tuple[FakeSupervisor, Loader]]:
    answer = "" if "def answer" in source else "def answer; 'hello'; end\n"
    (directory / "config.ru").write_text(textwrap.dedent(source) + "\n" + answer + RUN)
    with FakeSupervisor() as supervisor:
        yield (
            supervisor,
            supervisor.start(command(ruby, preload=True), directory, "config.ru", app_type="rack"),
        )


def kinds(preloader: Loader) -> list[str]:
    return sorted({hazard["kind"] for hazard in preloader.messages[-1]["hazards"]})


HARMLESS = {
    "nothing": "",
    "Sinatra": "require 'sinatra/base'",
    "Rails": "require 'rails'; require 'action_controller/railtie'; require 'active_record'",
    "a database of ActiveRecord's, with its reaper": (
        "require 'active_record'\n"
        "ActiveRecord::Base.establish_connection(adapter: 'sqlite3', database: 'a.db')\n"
        "ActiveRecord::Base.connection.execute('create table a (b)')\n"
    ),
    "a log file": "require 'logger'; LOG = Logger.new('log'); LOG.info('hello')",
    "a thread that has ended": "Thread.new { 1 }.join",
    "a thread that is about to end": "Thread.new { sleep 0.02 }",
    "a program that has ended": "system('true')",
    "an exit hook that removes nothing": "at_exit { [1].each { |x| x.to_s } }",
    "a temporary file": "require 'tempfile'; FILE = Tempfile.new('x', '.')",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_no_false_alarm(ruby: str, tmp_path: Path, name: str) -> None:
    """What common frameworks hold when they have been loaded keeps nobody from forking."""
    with preloader_of(ruby, tmp_path, HARMLESS[name]) as (supervisor, preloader):
        assert preloader.messages[-1]["hazards"] == []
        assert supervisor.fork(preloader).request().body == b"hello"


HAZARDS = {
    "thread": "Thread.new { sleep }",
    "socket": "require 'socket'; S = TCPServer.new('127.0.0.1', 0)",
    "pipe": "ENDS = IO.pipe",
    "process": "PID = spawn('sleep 600')",
    "exit_hook": "require 'tmpdir'; require 'fileutils'; DIR = Dir.mktmpdir(nil, Dir.pwd); at_exit { FileUtils.remove_entry(DIR) }",
}


@pytest.mark.parametrize("kind", HAZARDS)
def test_what_cannot_be_shared_is_found(ruby: str, tmp_path: Path, kind: str) -> None:
    with preloader_of(ruby, tmp_path, HAZARDS[kind]) as (_, preloader):
        assert kinds(preloader) == [kind]
        assert all(hazard["what"] for hazard in preloader.messages[-1]["hazards"])


@pytest.mark.parametrize(
    "hook",
    [
        "at_exit { FileUtils.rm_rf('shared') }",
        "at_exit { Dir.each_child('shared') { |name| File.delete(name) }; Dir.rmdir('shared') }",
        "Kernel.at_exit { FileUtils.remove_entry_secure('shared') }",
    ],
)
def test_a_hook_of_each_process_and_one_of_the_preloaders(ruby: str, tmp_path: Path, hook: str) -> None:
    """Fault 8: what removes something is run once, by the preloader, when its last worker has ended; every other hook in each worker."""
    source = f"""
        require "fileutils"
        Dir.mkdir("shared")
        {hook}
        at_exit {{ File.write("ran", "#{{Process.pid}}\\n", mode: "a") }}
    """
    with preloader_of(ruby, tmp_path, source) as (supervisor, preloader):
        assert kinds(preloader) == ["exit_hook"]
        check_exit_hooks(supervisor, preloader, tmp_path)


def test_a_preloader_that_serves_removes_what_is_its_own(ruby: str, tmp_path: Path) -> None:
    """``--spawn-method auto``: each process has loaded the application, and what it made goes with it."""
    with preloader_of(ruby, tmp_path, HAZARDS["exit_hook"] + "\ndef answer; DIR; end\n") as (_, worker):
        worker.send({"type": "serve"})
        worker.expect("ready")
        directory = worker.request().body.decode()
        assert os.path.isdir(directory)
        worker.shut_down()
        assert worker.exit_status() == 0
        assert not os.path.exists(directory)


def test_random_numbers_differ(ruby: str, tmp_path: Path) -> None:
    """R44, section F: each worker draws other numbers from every generator of Ruby's, also after the application has seeded and used it.

    Ruby and OpenSSL notice the fork and seed themselves anew. A generator of the application's own is copied with its state,
    so it draws the same in all workers: this shows that the test sees a generator that nobody has seeded anew.
    """
    source = """
        require "openssl"
        require "securerandom"
        srand(1)
        OWN = Random.new(1)
        GENERATORS = {
          "Kernel.rand" => -> { rand }, "Random.rand" => -> { Random.rand }, "Array#shuffle" => -> { (1..50).to_a.shuffle },
          "SecureRandom" => -> { SecureRandom.hex }, "OpenSSL" => -> { OpenSSL::Random.random_bytes(16).unpack("H*") },
          "a copy" => -> { OWN.rand }
        }
        GENERATORS.each_value(&:call)
        def answer; GENERATORS.map { |name, draw| "#{name}: #{draw.call}" }.join("\n"); end
    """
    drawn: dict[str, set[str]] = {}
    with preloader_of(ruby, tmp_path, source) as (supervisor, preloader):
        for _ in range(3):
            for line in supervisor.fork(preloader).request().body.decode().splitlines():
                name, _, value = line.partition(": ")
                drawn.setdefault(name, set()).add(value)
    different = {name: len(values) for name, values in drawn.items()}
    assert different.pop("a copy") == 1
    assert different == dict.fromkeys(("Kernel.rand", "Random.rand", "Array#shuffle", "SecureRandom", "OpenSSL"), 3)


def test_connections_of_active_record_are_closed_before_the_fork(ruby: str, tmp_path: Path) -> None:
    source = """
        require "active_record"
        ActiveRecord::Base.establish_connection(adapter: "sqlite3", database: "a.db")
        ActiveRecord::Base.connection.execute("create table a (b)")
        FIRST = ActiveRecord::Base.connection.raw_connection
        def answer
          "#{FIRST.closed?} #{ActiveRecord::Base.connection.execute('select 7 as n').first['n']}"
        end
    """
    with preloader_of(ruby, tmp_path, source) as (supervisor, preloader):
        for worker in [supervisor.fork(preloader) for _ in range(2)]:
            assert worker.request().body == b"true 7"


def test_connections_of_sequel_are_closed_before_the_fork(ruby: str, tmp_path: Path) -> None:
    """Played by what Sequel promises: ``Sequel::DATABASES``, each of which has ``disconnect``."""
    source = """
        require "socket"
        class Database
          attr_reader :connection
          def connect; @connection, @other = UNIXSocket.pair; self; end
          def disconnect; [@connection, @other].each(&:close); @connection = nil; end
        end
        module Sequel; DATABASES = [Database.new.connect]; end
        def answer; Sequel::DATABASES.first.connection.inspect; end
    """
    with preloader_of(ruby, tmp_path, source) as (supervisor, preloader):
        assert kinds(preloader) == []
        assert supervisor.fork(preloader).request().body == b"nil"
