"""OP8, OP9: limits of a program of another user where root may not set them from outside, as in a container (no CAP_SYS_RESOURCE, no CAP_SYS_NICE)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from needs import needs

pytestmark = pytest.mark.os

SCRIPT = """
import json, os, sys
from passenger_trio.system.children import start_program
from passenger_trio.system.resource_limits import set_limits

told = []
def prepare(pid):
    told.append(set_limits(pid, json.loads(sys.argv[1]), min(19, os.nice(0) + 2)))
    return told[0]

reading, writing = os.pipe()
show = ["sh", "-c", "cat /proc/self/limits; echo; nice; echo $*", "sh", "a b", "$HOME"]
pid = start_program(show, env={"PATH": "/usr/bin:/bin"}, output=writing, user=(65534, 65534, ()), prepare=prepare)
os.close(writing)
text = os.read(reading, 65536)
while more := os.read(reading, 65536):
    text += more
print(json.dumps([told[0], os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text.decode()]))
"""
ROWS = {"NOFILE": "Max open files", "NPROC": "Max processes", "CORE": "Max core file size", "AS": "Max address space", "CPU": "Max cpu time"}  # fmt: skip


def run(limits: dict[str, int], *without: str) -> tuple[str, int, str]:
    needs(os.geteuid() == 0 and shutil.which("setpriv") is not None, "root and setpriv")
    command = [sys.executable, "-c", SCRIPT, json.dumps(limits)]
    if without:
        command = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in without), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told, code, text = json.loads(done.stdout)
    return told, code, text


def test_OP9_the_shell_sets_what_root_may_not() -> None:
    limits = {"NOFILE": 70, "NPROC": 900, "CORE": 1024, "AS": 8 * 1024**3, "CPU": 7}
    told, code, text = run(limits, "sys_resource", "sys_nice")
    assert told, "root may set them after all"
    assert code == 0, text
    for name, value in limits.items():
        row = next(line for line in text.splitlines() if line.startswith(ROWS[name]))
        hard = value + 5 if name == "CPU" else value  # SIGXCPU comes before SIGKILL
        assert row.split()[-3:-1] == [str(value), str(hard)], text
    assert text.splitlines()[-2:] == [str(min(19, os.nice(0) + 2)), "a b $HOME"], (
        "the nice value, and the words as they are"
    )


def test_OP9_what_it_may_not_either_is_an_error_and_the_program_does_not_run() -> None:
    told, code, text = run({"NOFILE": 2**30}, "sys_resource", "sys_nice")
    assert told
    assert code == 126
    assert "ulimit" in text
    assert "Max open files" not in text


TRIES = """
import os, resource
from passenger_trio.system.resource_limits import has_capability, most_files

def works(act):
    try:
        act()
    except (OSError, ValueError):
        return False
    return True

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.nice(1)
raises = works(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 1)))
hastens = works(lambda: os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) - 1))
print(has_capability("SYS_RESOURCE") == raises, has_capability("SYS_NICE") == hastens, hastens, most_files() > 1000)
"""


@pytest.mark.parametrize("without", ["", "-sys_nice", "-sys_nice,-sys_resource"])
def test_OP9_what_root_may_raise_is_known_before_a_program_is_to_start(without: str) -> None:
    """A limit that a container's root may not grant was found out by the program: it ended with 126, without a word why."""
    needs(os.geteuid() == 0 and shutil.which("setpriv") is not None, "root and setpriv")
    command = [sys.executable, "-c", TRIES]
    if without:
        command = ["setpriv", "--bounding-set", without, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "True", str("sys_nice" not in without), "True"]
