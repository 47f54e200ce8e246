"""Several applications in one server, from a file; where each option comes from; one that crashes and leaves the others alone.

Starts the command: several applications of a file are the subject.
"""

from __future__ import annotations

import http.client
import sys
import time
from pathlib import Path

import pytest
from faces_tools import run_command

from passenger_trio.testing import Supervisor, eventually

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "storms"))

from storm_tools import Load, write_version

pytestmark = pytest.mark.os


def two(tmp_path: Path, more: str = "") -> Path:
    for name in ("shop", "blog"):
        (tmp_path / name).mkdir()
        write_version(tmp_path / name, name)
    (tmp_path / "passenger-trio.toml").write_text(
        f'[pool]\nmax_pool_size = 4\n\n[[app]]\nroot = "shop"\n\n[[app]]\nroot = "blog"\nbase_uri = "/blog"\n{more}'
    )
    return tmp_path


def of_host(server: Supervisor, host: str, path: str) -> bytes:
    client = http.client.HTTPConnection(*server.address, timeout=30)
    client.request("GET", path, headers={"Host": host})
    body = client.getresponse().read()
    client.close()
    return body


def test_by_path_and_by_host_name(tmp_path: Path) -> None:
    (tmp_path / "wiki").mkdir()
    write_version(tmp_path / "wiki", "wiki")
    two(tmp_path, '\n[[app]]\nroot = "wiki"\nhost_name = ["wiki.test"]\nenv = { A = "b" }\n')
    with Supervisor.start(tmp_path) as server:
        names = [server.get(path).body.split()[0].decode() for path in ("/", "/blog/x", "/blogs")]
        assert names == ["shop", "blog", "shop"]
        assert of_host(server, "wiki.test", "/blog").startswith(b"wiki")
        assert [group["name"] for group in server.status()["groups"]] == ["shop", "blog", "wiki"]


@pytest.mark.parametrize("first", ["positional", "option"])
def test_several_on_the_command_line(tmp_path: Path, first: str) -> None:
    """Section E of the earlier promises: what [[app]] tables say can be said on the command line, too."""
    for name in ("shop", "blog", "wiki"):
        (tmp_path / name).mkdir()
        write_version(tmp_path / name, name)
    arguments = [
        "--app",
        "/blog=blog",
        "--app",
        "wiki.test/w=wiki/passenger_wsgi.py:application",
        "--max-pool-size",
        "3",
    ]
    arguments = ["shop", *arguments] if first == "positional" else ["--app", "/=shop", *arguments]
    with Supervisor.start(None, *arguments, cwd=tmp_path) as server:
        names = [server.get(path).body.split()[0].decode() for path in ("/", "/blog/x", "/blogs")]
        assert names == ["shop", "blog", "shop"]
        assert of_host(server, "wiki.test", "/w").startswith(b"wiki")
        assert [app["mounted_at"] for app in server.ready["applications"]] == [
            "any host/",
            "any host/blog",
            "wiki.test/w",
        ]


def test_applications_of_the_command_line_join_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "wiki").mkdir()
    write_version(tmp_path / "wiki", "wiki")
    two(tmp_path)
    with Supervisor.start(tmp_path, "--app", f"wiki.test={tmp_path}/wiki") as server:
        assert [group["name"] for group in server.status()["groups"]] == ["shop", "blog", "wiki"]
        assert of_host(server, "wiki.test", "/").startswith(b"wiki")


@pytest.mark.parametrize(
    ("text", "code", "complaint"),
    [
        ("blog", 2, "'blog' cannot be used: write WHERE=WHAT, for example /blog=../blog"),
        ("/b log={}", 2, "a path as it stands in a URL"),
        ("/blog=/nowhere/at/all", 4, "there is no directory /nowhere/at/all"),
        ("/={}", 2, "another application"),
    ],
)
def test_an_application_of_the_command_line_that_cannot_be(
    tmp_path: Path, text: str, code: int, complaint: str
) -> None:
    write_version(tmp_path, "1")
    told = run_command("start", str(tmp_path), "--app", text.format(tmp_path), "-p", "0")
    assert told.returncode == code, told.stderr
    assert complaint in told.stderr


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    two(tmp_path)
    env = {"PASSENGER_TRIO_MAX_POOL_SIZE": "7", "PASSENGER_TRIO_POOL_IDLE_TIME": "9s"}
    shown = run_command("config", "show", "--origin", str(tmp_path), env=env).stdout
    assert "pool.max_pool_size = 7    # environment PASSENGER_TRIO_MAX_POOL_SIZE" in shown
    assert "pool.pool_idle_time = 9s    # environment PASSENGER_TRIO_POOL_IDLE_TIME" in shown
    assert f"app[1].base_uri = /blog    # {tmp_path}/passenger-trio.toml:9" in shown
    with Supervisor.start(tmp_path, "--max-pool-size", "3", env=env) as server:
        assert server.status()["pool"]["max"] == 3


def test_check_says_what_is_served_or_what_is_wrong(tmp_path: Path) -> None:
    two(tmp_path)
    good = run_command("config", "check", str(tmp_path))
    assert good.returncode == 0, good
    assert "any host/blog" in good.stdout
    file = tmp_path / "passenger-trio.toml"
    for text, complaint in (
        ("[pool]\nmax_pool_size = 0\n", ":2: max_pool_size: "),
        ("[pool]\npool_idle_time = 'x'\n", ":2: pool_idle_time: "),
        ("[[app]]\nspawn_methd = 'x'\n", ":2: there is no option spawn_methd; did you mean spawn_method?"),
        (
            "[server]\ntrusted_proxies = ['1.2.3']\n[app]\nroot = 'shop'\n",
            ":2: trusted_proxies: '1.2.3' cannot be used",
        ),
        (
            "[server]\ndata_buffer_dir = '/nowhere'\n[app]\nroot = 'shop'\n",
            ":2: data_buffer_dir: '/nowhere' cannot be used",
        ),
        ("[pool]\nhook = ['nothing=true']\n[app]\nroot = 'shop'\n", ":2: hook: 'nothing=true' cannot be used"),
        ("[app]\nroot = 'shop'\nbase_uri = 'shop'\n", ":3: base_uri: 'shop' cannot be used"),
        ("[server]\nsocket_mode = 0o660\n", ':2: socket_mode must be a text: "0660"'),
        ("[server]\nsocket_mode = '99'\n", ":2: socket_mode: '99' cannot be used: three octal digits"),
        ("[server]\nport = [80]\n", ":2: port cannot be [80]"),
        ("[server]\naddress = ['a', 'b']\n", ":2: address cannot be ['a', 'b']"),
        ("[app]\nhost_name = [['a']]\n", ":2: host_name cannot have ['a'] in it"),
        ("[app]\nenv = { A = { B = 1 } }\n", ":2: env: A cannot be {'B': 1}"),
        ("[app]\nenv = { '' = 1 }\n", ":2: env: '' is no name of a variable"),
        ("[app]\nenv = { 'A=B' = 1 }\n", ":2: env: 'A=B' is no name of a variable"),
        ('[app]\nenv = { A = "\\u0000" }\n', ":2: env cannot have a NUL in it"),
        ('[app]\nroot = "shop\\u0000"\n', ":2: root cannot have a NUL in it"),
        ('[app]\nname = "shop\\u0000"\n', ":2: name cannot have a NUL in it"),
        ("[app]\nmin_instances = " + "9" * 5000, ": it is not valid TOML"),
        ('[[app]]\nroot = "shop"\n[[app]]\nroot = "shop"\n', "another application has it"),
        ('[[app]]\nroot = "shop"\n[[app]]\nroot = "blog"\n', "another application is mounted at any host/"),
    ):
        file.write_text(text)
        bad = run_command("config", "check", str(tmp_path))
        assert bad.returncode == 2, text
        assert complaint in bad.stderr


def test_a_passengerfile_is_read_and_what_means_nothing_is_named(tmp_path: Path) -> None:
    write_version(tmp_path, "v1")
    (tmp_path / "Passengerfile.json").write_text('{"max_pool_size": 2, "turbocaching": true}')
    with Supervisor.start(tmp_path) as server:
        assert server.status()["pool"]["max"] == 2
        server.wait_log("these keys mean nothing here: turbocaching")
    (tmp_path / "Passengerfile.json").write_text('{\n"address": null}')
    bad = run_command("config", "check", str(tmp_path))
    assert (bad.returncode, "Passengerfile.json:2: address cannot be None" in bad.stderr) == (2, True)


def test_one_that_crashes_at_every_start_costs_the_other_nothing(tmp_path: Path) -> None:
    """F9: few spawns, an answer at once, and the neighbour does not notice."""
    two(tmp_path)
    (tmp_path / "blog" / "passenger_wsgi.py").write_text(
        "import os\nos._exit(3)\ndef application(environ, start_response): pass\n"
    )
    with Supervisor.start(tmp_path) as server:
        eventually(lambda: server.status()["groups"][1]["last_error"])
        with Load(server, 4, pause=0.01) as load:
            times = []
            for _ in range(20):
                begun = time.monotonic()
                assert server.get("/blog").status in (500, 503)
                times.append(time.monotonic() - begun)
        assert set(load.outcomes) == {"200"}
        spawns = sum("does not start" in line for line in server.log)
        assert spawns <= 8, spawns
        # At once: most answers waited for no spawn, for there were not so many; and whatever else would hold them up would hold up the quickest.
        assert min(times) < 0.1, times
        write_version(tmp_path / "blog", "mended")
        assert run_command("restart", "blog", "--instance", str(server.instance_dir)).returncode == 0
        eventually(lambda: server.get("/blog").status == 200)


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ('[[app]]\nroot = "shop"\nloop = "trio"\n', ":3: loop: 'trio' cannot be used: "),
        ('[[app]]\nroot = "shop"\n[[app]]\nname = "b"\nbase_uri = "/b"\nroot = "shop"\nruby = "x"\n', ":7: ruby: 'x' "),
        ('[server]\nport = 80\nsocket = "s"\n', ":2: port: 80 cannot be used: --socket listens on no port"),
        ('[[app]]\nroot = "shop"\nmax_requests_jitter = 5\n', ":3: max_requests_jitter: 5 cannot be used"),
        ("[pool]\nmemory_check_interval = '9s'\n", ":2: memory_check_interval: 9.0 cannot be used"),
        ('[[app]]\nroot = "shop"\ntarget = "app:app"\n', ":3: target: the command line names another, 'shop:app'"),
    ],
    ids=lambda value: value.split(":")[2].strip() if value.startswith(":") else "",
)
def test_a_contradiction_in_the_file_is_named_by_its_line(tmp_path: Path, lines: str, place: str) -> None:
    """Issue 14: by the name of the file, as other mistakes in it are; `start` and `config check` say the same."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    (tmp_path / "passenger-trio.toml").write_text(lines)
    words = [str(tmp_path), "shop:app"] if "target" in lines else [str(tmp_path)]
    commands = [("start", *words)] if "target" in lines else [("start", *words), ("config", "check", *words)]
    for command in commands:
        told = run_command(*command)
        assert told.returncode == 2
        assert told.stderr.startswith(f"passenger-trio: {tmp_path}/passenger-trio.toml{place}")
