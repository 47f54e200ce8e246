"""The exit status of a process, in words and as fields. A status has the form of ``subprocess.Popen.returncode``: negative for a signal, None if unknown."""

from __future__ import annotations

import signal

__all__ = ["describe_exit", "exit_fields", "signal_name"]


def describe_exit(status: int | None) -> str:
    """``status`` as of ``subprocess.Popen.returncode`` -> ``"exit status 3"``, ``"killed by signal
    9 (SIGKILL)"``.
    """
    if status is None:
        return "its exit status is unknown"
    if status >= 0:
        return f"exit status {status}"
    name = signal_name(-status)
    if -status == signal.SIGXCPU:
        name += ": its processor time is used up"  # --cpu-time, or a limit of whoever started the server
    return f"killed by signal {-status}" + (f" ({name})" if not name.isdigit() else "")


def exit_fields(status: int | None) -> tuple[int | None, str | None]:
    """(Exit status, name of the signal that killed the process), for programs to read. The one that does not apply is None."""
    if status is None:
        return None, None
    return (status, None) if status >= 0 else (None, signal_name(-status))


def signal_name(number: int) -> str:
    """``"SIGSEGV"``, or the number of a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
