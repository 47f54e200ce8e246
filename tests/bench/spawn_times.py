"""How long a further process takes until it is ready, forked from the preloader and started afresh, and what several cost in memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

from measure import Figures, command_of, median, pss, spread, started, table
from peers import APPS, OURS_ALL, PASSENGER_RACK, Running, running

from passenger_trio.testing import Supervisor, eventually

_PROCESSES = 4


def work(rounds: int, seconds: int) -> Figures:
    """A further process of Sinatra, Flask and a generated Rails application, forked and fresh; the memory of three (PSS)."""
    del seconds
    rows: Figures = {}
    applications = {"Sinatra": APPS / "sinatra", "Flask": APPS / "flask_page"}
    rails = _rails_application()
    if rails is None:
        print("rails is not installed: its application is left out")
    else:
        applications["Rails"] = rails
    for name, app in applications.items():
        for one in OURS_ALL:
            for method in ("smart", "direct"):
                rows[f"{one.name}, {name}, {'forked' if method == 'smart' else 'fresh'}"] = _ours(
                    one.program, app, method, rounds
                )
        if PASSENGER_RACK.installed and (app / "config.ru").exists():
            rows[f"Phusion Passenger, {name}, forked"] = _passenger(app, rounds)
    table(
        "a further process is ready",
        ("ms", "spread", "PSS of three MiB"),
        {
            name: (f"{row['ms']:.0f}", spread(row["all"]), f"{row['pss_of_three_mib']:.1f}")
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def _ours(python: str, app: Path, method: str, rounds: int) -> Figures:
    """One at a time, so that none waits for a core that another has."""
    times: list[float] = []
    sizes: list[float] = []
    options = ("--spawn-method", method, "--min-instances", str(_PROCESSES), "--max-pool-size", str(_PROCESSES))
    for _ in range(rounds):
        environment = {"RAILS_ENV": "production"}
        if any(app.glob("*.py")):
            environment["PASSENGER_TRIO_PYTHON"] = OURS_ALL[0].program
        with Supervisor.start(
            app, *options, "--max-concurrent-spawns", "1", "-e", "production", env=environment, python=python
        ) as server:
            eventually(lambda server=server: len(server.pids) == _PROCESSES, 90)
            found = [re.search(r"is ready after (\d+) ms", line) for line in server.log]
            # The first waited for the preloader.
            times += [float(match[1]) for match in found if match][1:]
            sizes.append(pss(server.pids[:3]) / 2**20)
    return {"ms": median(times), "all": times, "pss_of_three_mib": median(sizes)}


def _passenger(app: Path, rounds: int) -> Figures:
    """It does not say when a process is ready, but forks the next one when the last is: so it is the time from fork to fork, to 10 ms."""
    times: list[float] = []
    sizes: list[float] = []
    for _ in range(rounds):
        with running(PASSENGER_RACK, app, processes=_PROCESSES) as server:
            workers: list[int] = []

            def all_are_there(server: Running = server, workers: list[int] = workers) -> bool:
                workers[:] = [pid for pid in server.processes() if b"Passenger RubyApp" in command_of(pid)]
                return len(workers) == _PROCESSES

            eventually(all_are_there, 60)
            begun = sorted(started(pid) for pid in workers)
            times += [(after - before) * 1000 for before, after in pairwise(begun)]
            sizes.append(pss(workers[:3]) / 2**20)
    return {"ms": median(times), "all": times, "pss_of_three_mib": median(sizes)}


def _rails_application() -> Path | None:
    """``rails new`` and a scaffold, made once; its home is ``.bench/rails``."""
    if shutil.which("rails") is None:
        return None
    root = Path(".bench/rails/notebook").resolve()
    if (root / "made").exists():
        return root
    shutil.rmtree(root.parent, ignore_errors=True)
    root.parent.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("RAILS_ENV", "RACK_ENV")}

    def run(*command: str, cwd: Path = root) -> None:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"[-2000:])

    skipped = ["--minimal", "--skip-bundle", "--skip-git", "--skip-javascript", "--skip-spring", "--skip-listen"]
    run("rails", "new", "notebook", *skipped, "-d", "sqlite3", cwd=root.parent)
    (root / "Gemfile").write_text('gem "rails"\ngem "sqlite3"\ngem "sprockets-rails"\n')
    run("bin/rails", "generate", "scaffold", "Note", "title:string", "body:text", "--no-test-framework")
    environment["RAILS_ENV"] = "production"
    environment["SECRET_KEY_BASE"] = "0" * 64
    (root / "config/secrets.yml").write_text(f'production:\n  secret_key_base: "{"0" * 64}"\n')
    (root / "config/routes.rb").write_text(
        'Rails.application.routes.draw do\n  resources :notes\n  root to: proc { [200, {}, ["ok"]] }\nend\n'
    )
    run("bin/rails", "db:migrate")
    (root / "made").touch()
    return root
