"""What every thread and every task of this process is doing, as text, for a person who asks why it hangs (CONTRACT.md 2.34).

The watcher's thread calls ``backtraces`` while the application runs, loads or hangs. Two things follow from that:

* Nothing is imported here when it is called: the main thread may hang in an import and hold its lock.
* An application that holds the interpreter lock in C code holds this thread, too. For that there is
  ``BACKTRACE_SIGNAL``: faulthandler's C code writes the stacks of the threads on descriptor 2 and needs no lock.

Law: nothing here raises. A part that fails is left out, and says so.
"""

import faulthandler
import signal
import sys
from _thread import get_ident

BACKTRACE_SIGNAL = getattr(signal, "SIGRTMAX", 0) - 5 if hasattr(faulthandler, "register") else 0
"""Not one of those that applications and runtimes use. 0: this interpreter cannot do it."""
MAX_FRAMES = 100
MAX_TASKS = 200
SHARE = 40000
"""Characters, at most, of the threads. Tasks get the rest of a message."""

task_sources = []
"""Functions of the event loops that run: each returns a list of (title, frames) of its tasks."""


def catch_backtrace_signal():
    if BACKTRACE_SIGNAL > 0:
        try:
            faulthandler.register(BACKTRACE_SIGNAL, file=2, all_threads=True, chain=False)
        except (OSError, RuntimeError, ValueError):
            pass  # The supervisor sees that the signal is not caught, and does not send it.


def forget_backtrace_signal():
    """In a process that the application forks."""
    if BACKTRACE_SIGNAL > 0:
        faulthandler.unregister(BACKTRACE_SIGNAL)


def backtraces():
    """The text: tasks first, then threads, the main thread last, and in each stack the newest call last."""
    parts = []
    for source in list(task_sources):
        try:
            tasks = source()
        except Exception as error:
            parts.append("the tasks of an event loop cannot be listed: %s" % type(error).__name__)
            continue
        if len(tasks) > MAX_TASKS:
            parts.append("%d tasks more" % (len(tasks) - MAX_TASKS))
        parts += ["%s\n%s" % (title, "\n".join(frames)) for title, frames in tasks[:MAX_TASKS]]
    threads = []
    try:
        names = _thread_names()
        main = names[0]
        own = get_ident()
        frames = sorted(sys._current_frames().items(), key=lambda item: (item[0] == main, item[0]))
        for ident, frame in frames:
            if ident != own or own == main:  # a preloader answers in its main thread
                name = "main thread" if ident == main else "thread %s" % names[1].get(ident, "without a name")
                threads.append("%s (%d)\n%s" % (name, ident, "\n".join(frames_of_thread(frame))))
    except Exception as error:
        threads.append("the threads cannot be listed: %s" % type(error).__name__)
    text = "\n\n".join(threads)
    tasks = "\n\n".join(parts)
    if tasks:
        text = "%s\n\n%s" % (tasks[:SHARE], text[-SHARE:])
    return text.encode("utf-8", "backslashreplace").decode()


def _thread_names():
    """The main thread's number, and number -> name of the threads that ``threading`` knows."""
    # The application may be in the middle of importing it.
    active = dict(getattr(sys.modules.get("threading"), "_active", {}))
    return main_ident, {ident: str(getattr(thread, "_name", "")) for ident, thread in active.items()}


main_ident = get_ident()
"""The thread that imports this module is the main thread, also in a process that it forks."""


def frames_of_thread(frame):
    lines = []
    while frame is not None and len(lines) < MAX_FRAMES:
        lines.append(_line(frame))
        frame = frame.f_back
    return lines[::-1] + (["  ..."] if frame is not None else [])


def frames_of_coroutine(coroutine):
    """The frames in which a coroutine waits, the innermost last."""
    lines = []
    while coroutine is not None and len(lines) < MAX_FRAMES:
        for prefix, awaited in (("cr_", "cr_await"), ("gi_", "gi_yieldfrom"), ("ag_", "ag_await")):
            if hasattr(coroutine, prefix + "frame"):
                frame = getattr(coroutine, prefix + "frame")
                if frame is not None:
                    lines.append(_line(frame))
                coroutine = getattr(coroutine, awaited, None)
                break
        else:
            coroutine = None  # a future, or an awaitable of C code
    return lines


def _line(frame):
    code = frame.f_code
    line = '  File "%s", line %s, in %s' % (code.co_filename, frame.f_lineno, code.co_name)
    linecache = sys.modules.get("linecache")
    if linecache is not None:
        try:
            source = linecache.getline(code.co_filename, frame.f_lineno or 0).strip()
        except Exception:
            source = ""
        if source:
            line += "\n    %s" % source[:200]
    return line
