"""KE2, KE3: an access log that gets no descriptor at the start is an error that names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import os, resource, sys
from passenger_trio.errors import OptionError
from passenger_trio.error_kernel import ErrorKernel
from passenger_trio.options import Config, ServerOptions
from passenger_trio.server.logs.access_log import AccessLog

config = Config(server=ServerOptions(access_log=sys.argv[1]))
AccessLog.open(config, ErrorKernel()).close()
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
try:
    AccessLog.open(config, ErrorKernel())
except OptionError as error:
    print(error)
"""


def test_KE2_KE3_an_access_log_without_a_descriptor_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    done = subprocess.run([sys.executable, "-c", _PROGRAM, str(path)], check=True, capture_output=True, text=True)
    assert f"--access-log: {str(path)!r} cannot be used" in done.stdout
    assert "Too many open files" in done.stdout
