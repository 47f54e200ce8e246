"""One server, an application on each Ruby, side by side: Debian's, JRuby, and those that ``PASSENGER_TRIO_TEST_RUBIES`` names. In CI a missing one is a failure."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import jruby_archive
import pytest
import trio
from needs import needs

import passenger_trio
from passenger_trio import AppOptions, Config, PoolOptions, ServerOptions
from passenger_trio.testing.harness import eventually, is_running

pytestmark = [pytest.mark.os, pytest.mark.slow]

APP = Path(__file__).resolve().parent.parent / "apps" / "ruby" / "which_ruby"


def rubies() -> dict[str, str]:
    """Path -> engine and version of the language: of Debian's, JRuby, and each that ``PASSENGER_TRIO_TEST_RUBIES`` names."""
    named = [path for path in os.environ.get("PASSENGER_TRIO_TEST_RUBIES", "").split(os.pathsep) if path]
    for name in ("ruby", "jruby"):
        needs(shutil.which(name) is not None, name)
    found = {}
    for path in dict.fromkeys([*named, *filter(None, map(shutil.which, ("ruby", "jruby")))]):
        question = "print RUBY_ENGINE, ' ', RUBY_VERSION"
        env = {**os.environ, **jruby_archive.environment()}  # another Ruby has no use for it
        found[path] = subprocess.run(
            [path, "-e", question], capture_output=True, text=True, timeout=60, check=True, env=env
        ).stdout
    return found


def test_several_rubies_in_one_server(instance_dir: Path) -> None:
    """Versions of the language side by side, and none is missing: what is named, Debian's and JRuby, which are two versions already."""
    found = rubies()
    assert {name.split()[0] for name in found.values()} >= {"ruby", "jruby"}
    assert len({name.split()[1] for name in found.values()}) >= 2, f"only one version: {found}"
    apps = []
    for number, (path, name) in enumerate(found.items()):
        env = tuple(jruby_archive.environment().items()) if name.startswith("jruby") else ()
        apps.append(AppOptions(root=str(APP), name=f"app{number}", base_uri=f"/app{number}", ruby=path, env=env))
    config = Config(
        server=ServerOptions(port=0, access_log="off", instance_dir=str(instance_dir / "i")),
        pool=PoolOptions(max_pool_size=len(apps)),
        apps=tuple(apps),
    )
    pids: list[int] = []

    async def main() -> None:
        async with (
            passenger_trio.open_server(config) as server,
            httpx.AsyncClient(base_url=server.addresses[0], timeout=60) as client,
        ):

            async def ask(number: int) -> tuple[str, int]:
                answer = await client.get(f"/app{number}/")
                match = re.fullmatch(r"(.*) (\d+)", answer.text)
                assert match is not None, answer.text
                return match[1], int(match[2])

            told = [await ask(number) for number in range(len(apps))]
            assert [name for name, _ in told] == list(found.values())
            assert [app.can_fork for app in server.apps] == [not name.startswith("jruby") for name in found.values()]
            # One of them ends and comes again. The others are the processes that they were.
            os.kill(told[0][1], signal.SIGKILL)
            await trio.to_thread.run_sync(lambda: eventually(lambda: not is_running(told[0][1])))
            again = [await ask(number) for number in range(len(apps))]
            assert again[0][0] == told[0][0]
            assert again[0][1] != told[0][1]
            assert again[1:] == told[1:]
            pids.extend(pid for _, pid in again)

    trio.run(main)
    assert not [pid for pid in pids if is_running(pid)]
