"""From the supervisor's ``options`` to an interpreter that looks as if it had been started for the application."""

import os
import sys

from passenger_trio_loader.control_connection import CONTRACT
from passenger_trio_loader.interface import StartFailed

PROGRAMS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The directory of the programs that the supervisor starts, and of this package."""


def check_options(options, interface):
    """Return ``options`` if all members that the loader uses are there.

    :raises StartFailed: a member is missing, or has another type.
    """
    for name, kind in list(REQUIRED_OPTIONS.items()) + list(interface.options.items()):
        if not isinstance(options.get(name), kind) or (name == "contract" and options[name] != CONTRACT):
            raise StartFailed(
                "loader",
                "The supervisor and its Python loader are of different versions",
                "The member %r of the options is missing, or not as contract version %d defines it." % (name, CONTRACT),
                "Install passenger_trio again: its files are of two versions.",
            )
    return options


def prepare_runtime(options):
    """Set ``sys.path``, ``sys.argv`` and the buffering of the output."""
    root = options["app_root"]
    # Python has put the program's directory in front (unless it runs isolated). The application's root belongs there.
    if sys.path and os.path.realpath(sys.path[0] or ".") == PROGRAMS:
        del sys.path[0]
    sys.path.insert(0, root)
    # An application that reads the command line must not find our arguments.
    sys.argv[:] = [options["startup_file"] or options["entry_module"]]
    for stream in (sys.stdout, sys.stderr):
        # Python buffers pipes by the block. Output is to be seen when it is printed.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)


REQUIRED_OPTIONS = {
    "contract": int,
    "app_root": str,
    "startup_file": str,
    "entry_module": str,
    "entry_object": str,
    "entry_is_factory": bool,
    "threads": int,
    "socket_dir": str,
    "socket_name": str,
    "server_software": str,
    "shutdown_timeout": (int, float),
    "name": str,
}


def name_process(options, role):
    """Set the name that ``ps`` and ``top`` show. The standard library can set 15 bytes of it."""
    name = options["name"] if role == "worker" else "pre:" + options["name"]
    try:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(name.encode("utf-8", "replace")[:15])
    except OSError:
        pass
