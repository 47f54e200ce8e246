"""The application's standard output and standard error. Nothing here raises, whatever the application has put there."""

import sys


def write_stderr(text):
    """Write to the application's standard error, where messages of the loader go, too."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # The pipe is closed, or ``sys.stderr`` is an object of the application's that fails.


def flush_output():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass
