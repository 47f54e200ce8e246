"""The application's output, standard output and standard error. Writing to it never raises."""

import sys


def say(text):
    """A line of the application's output."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # Nobody reads it any more, or the application has put something else there.


def flush_output():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except Exception:
            pass
