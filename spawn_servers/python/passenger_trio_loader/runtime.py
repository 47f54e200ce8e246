"""Makes the interpreter look as if it had been started for the application, from the supervisor's ``options``."""

import os
import sys

from passenger_trio_loader.control_connection import CONTRACT
from passenger_trio_loader.interface import Unfit

PROGRAMS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The directory of the programs that are started, and of this package."""


def checked_options(options, interface):
    for name, kind in list(REQUIRED_OPTIONS.items()) + list(interface.options.items()):
        if not isinstance(options.get(name), kind) or (name == "contract" and options[name] != CONTRACT):
            raise Unfit(
                "loader",
                "The supervisor and its Python loader do not understand each other",
                "The member %r of the options is missing, or is not what contract version %d has." % (name, CONTRACT),
                "Look for an installation of passenger_trio that mixes two versions.",
            )
    return options


def prepare_runtime(options):
    """Make the interpreter look as if it had been started for the application."""
    root = options["app_root"]
    # Python put the directory of the program in front (unless it runs isolated): the application's root goes there.
    if sys.path and os.path.realpath(sys.path[0] or ".") == PROGRAMS:
        del sys.path[0]
    sys.path.insert(0, root)
    # An application that looks at the command line must not find our arguments in it.
    sys.argv[:] = [options["startup_file"] or options["entry_module"]]
    for stream in (sys.stdout, sys.stderr):
        # They are pipes, which Python buffers by the block. What is printed is to be seen when it is printed.
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
    """What ``ps`` and ``top`` show, as far as the standard library can change it: 15 bytes."""
    name = options["name"] if role == "worker" else "pre:" + options["name"]
    try:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(name.encode("utf-8", "replace")[:15])
    except OSError:
        pass
