"""Runs a WSGI application for passenger_trio, in the application's own interpreter.

    python wsgi_loader.py              a worker: loads the application and serves it
    python wsgi_loader.py --preload    a preloader: loads it once, and forks workers when it is asked to

This program keeps spawn_servers/CONTRACT.md, which is the text to read first. It knows the control connection
(lines of JSON), the session protocol (frames) and PEP 3333. It runs on Python 3.8 and everything after it, on the
standard library alone, and imports nothing of the supervisor. What it imports it imports before the application is
loaded, under its own names: what the application does to ``socket.socket`` afterwards does not reach it.

The file is read from top to bottom:

    Control                     the control connection
    Lifeline                    the thread that watches it, and the process's signals
    load_application, explain   from a file or a name to a callable; from an exception to advice
    Input, FileWrapper          what PEP 3333 gives to the application besides the environ
    Session                     one request and its response
    Worker                      the socket, the streams, the threads
    Preloader                   the loop that forks
    main                        the order of it all

Laws:

* A small session costs one ``recv`` and one write. Nothing is polled: whoever waits, waits in the kernel.
* Whatever arrives that is not in the contract closes its stream. It is never answered, and the worker lives.
* ``close()`` of an application's iterable is called exactly once, on every path.
* Nothing that the application raises ends the worker, ``sys.exit()`` in a request included.
* The supervisor's end is seen on the control connection, and the process is gone within a second of it, whatever
  the application does in that moment: its thread is interrupted, its exit hooks are run, and a C thread that needs
  no interpreter lock ends what is left (``Lifeline._farewell``).

  There is no ``PR_SET_PDEATHSIG`` here, on purpose. A signal that cannot be caught would take the exit hooks away
  from every application; one that can be caught sees no more than the control connection does; it would be no use
  to forked workers, whose parent is the preloader and may go; and it fires when the *thread* that started us ends.
  What it would add is the death of an application that is in a call into C which keeps the interpreter lock for
  ever. Of these, the ones that heed signals (a regular expression that backtracks for years is one) are ended by
  ``SIGIO``, with a single-threaded worker.
"""

import atexit
import errno
import faulthandler
import fcntl
import gc
import io
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time
from _thread import allocate_lock, get_ident, start_new_thread
from operator import itemgetter
from select import POLLERR, POLLHUP, POLLIN, poll
from socket import AF_UNIX, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SHUT_RD, SHUT_RDWR, SOL_SOCKET
from socket import socket as Socket
from socket import socketpair

# Linux has them; PyPy has not the names.
POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)
FASYNC = getattr(fcntl, "FASYNC", 0x2000)
MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)

CONTRACT = 1
MAX_LINE = 65536
MAX_HEAD = 128 * 1024
MAX_FRAME = 16 * 1024 * 1024

LAST_SECOND = 0.6
"""Seconds from the supervisor's end to ours. The contract allows 1."""
LEAVE_TIME = 0.3
"""How much of it the main thread has for running the exit hooks itself."""
NUDGE_TIME = 0.1
"""How long it has for its way there before it is interrupted again."""

NOWHERE = os.open(os.devnull, os.O_WRONLY)
"""Open from the beginning: when it is needed, there may be no descriptor left."""


class Leave(SystemExit):
    """Raised in the main thread, wherever it is, when the process is to end now."""


class Hangup(Exception):
    """The control connection ended, or what came over it makes no sense."""


# What belongs to us in this process and not to a process that the application (or our preloader) forks from it: a
# child that kept our streams would hold them open when we close them to say "this response is incomplete", and one
# that kept our signal handlers could not be ended with SIGTERM.
belongings = set()
handlers = {}
masks = {}


def before_fork():
    """Hold signals back until the child is rid of our handlers.

    In between, Python's C handler in the child would write the signal into *our* wake-up socket, which the child
    shares: the worker would stop, and the child, which then forgets what was pending, would not.
    """
    masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, handlers)


def after_fork():
    signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))


def disown():
    """Runs in every process forked from this one, before anything else."""
    for belonging in list(belongings):
        belonging.close()
    belongings.clear()
    signal.set_wakeup_fd(-1)
    for number, (ours, theirs) in handlers.items():
        if signal.getsignal(number) == ours:
            signal.signal(number, theirs)
    handlers.clear()
    after_fork()


def take_signal(number, ours):
    handlers[number] = (ours, signal.getsignal(number) or signal.SIG_DFL)  # None: set by C code, and lost
    signal.signal(number, ours)


# ------------------------------------------------------------------------------------------------------------
# The control connection


class Control:
    """Messages to and from the supervisor: one JSON object a line."""

    def __init__(self, path):
        """:raises OSError: nobody listens there."""
        self.socket = Socket(AF_UNIX)
        # An application may have set a default timeout by now (a forked worker connects after it was loaded).
        self.socket.settimeout(None)
        self.socket.connect(path)
        self.pending = []
        """Messages that came while nobody was there to act on them."""
        self.descriptors = []
        """Descriptors that came; each ``fork`` message brought one, in order."""
        self._partial = b""
        belongings.add(self)

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        belongings.discard(self)
        self.socket.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def send(self, **message):
        try:
            self.socket.sendall(one_line(message))
        except OSError:
            pass  # The supervisor is gone. Whoever reads from this connection learns it there, and acts.

    def read(self):
        """Wait for messages: one or more, or none when only a part of a line came.

        :raises Hangup:
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(MAX_LINE, 256, MSG_CMSG_CLOEXEC)
        except OSError:
            raise Hangup
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                self.descriptors += struct.unpack("%di" % (len(payload) // 4), payload[: len(payload) // 4 * 4])
        *lines, self._partial = (self._partial + data).split(b"\n")
        if not data or len(self._partial) >= MAX_LINE:
            raise Hangup
        try:
            messages = [json.loads(line.decode()) for line in lines]
            return [message for message in messages if message["type"]]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise Hangup

    def has_ended(self):
        try:
            return not self.socket.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def greet(self, token, role):
        """Say hello; return the options.

        :raises Hangup:
        """
        version = sys.version.split()[0]
        if sys.implementation.name != "cpython":
            version += " (%s)" % sys.implementation.name
        self.send(
            type="hello", token=token, contract=CONTRACT, role=role, language="python", version=version, pid=os.getpid()
        )
        while True:
            self.pending += self.read()
            for at, message in enumerate(self.pending):
                if message["type"] == "options":
                    return self.pending.pop(at)


def one_line(message):
    """A message as a line. A long text is cut at its front: the end says what happened."""
    line = json.dumps(message).encode() + b"\n"
    while len(line) > MAX_LINE:
        name = max(message, key=lambda name: len(message[name]) if isinstance(message[name], str) else 0)
        text = message[name]
        # One character takes up to 12 bytes in JSON, so this may need a few rounds.
        message[name] = "[...]" + text[5 + max(64, min(len(line) - MAX_LINE, len(text) // 2)) :]
        line = json.dumps(message).encode() + b"\n"
    return line


def nothing_to_read(stream):
    """Whether a read would wait. The end of a stream is something to read."""
    try:
        stream.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return True
    return False


class Step:
    """``with Step(control, "listen"):`` reports a step of the journey."""

    def __init__(self, control, name, begun=None):
        self.control = control
        self.name = name
        self.begun = begun

    def __enter__(self):
        if self.begun is None:
            self.begun = time.monotonic()
        self.control.send(type="step", name=self.name, state="in_progress")

    def __exit__(self, kind, error, traceback):
        if kind is not Leave:
            state = "performed" if error is None else "errored"
            duration = time.monotonic() - self.begun
            self.control.send(type="step", name=self.name, state=state, duration=duration)


# ------------------------------------------------------------------------------------------------------------
# The lifeline


class Lifeline:
    """Watches the control connection and the signals, in a thread of its own.

    Signals reach the thread as bytes that Python's C code writes into ``_alarm`` at the moment they arrive, so also
    while the main thread is inside a call that does not come back. When the process is to end now, the thread sends
    the main thread a ``SIGIO``, whose handler raises ``Leave`` wherever that is: this also ends a sleep, or the
    wait for a lock. The kernel sends ``SIGIO`` as well, when something happens on the control connection: so the
    main thread can see the end of it for itself even if it does not let this thread run.
    """

    def __init__(self, control):
        self.control = control
        self.worker = None
        """Told to stop, once there is one. Before that, to stop is to leave."""
        self.leaving = False
        """The process is to end now."""
        self._main = get_ident()
        self._interruptible = True
        self._raised = 0.0
        self._hooks_begun = False
        self._terms = 0
        self._released = False
        self._tasks = set()
        self._thread_ended = allocate_lock()
        self._bell, self._alarm = socketpair()
        belongings.update((self._bell, self._alarm))
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    # Called in the main thread

    def begin(self):
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        take_signal(signal.SIGTERM, self._on_signal)
        # Not SIG_IGN: that would be inherited by the programs that the application starts.
        take_signal(signal.SIGINT, self._on_signal)
        take_signal(signal.SIGIO, self._on_signal)
        fcntl.fcntl(self.control, fcntl.F_SETOWN, os.getpid())
        self._ask_for_sigio(True)
        self._thread_ended.acquire()
        before = tasks()
        start_new_thread(self._watch, ())
        self._tasks = tasks() - before

    def release(self):
        """End the thread: the preloader watches for itself, and has one thread when it forks."""
        self._ask_for_sigio(False)
        self._released = True
        self._ring(0)
        with self._thread_ended:
            pass
        # It has said its last word; the kernel may still count it.
        while self._tasks & tasks() and not self.leaving:
            time.sleep(0.0002)
        if self.leaving:
            raise Leave(0)  # The thread decided so before it heard of its release.

    def end(self):
        """The main thread has done what there was to do, and leaves."""
        self._interruptible = False
        atexit.register(self._note_hooks)  # The last to be registered is the first to run.

    def signals(self):
        """The numbers of the signals that came since the last call."""
        try:
            return self._bell.recv(4096)
        except BlockingIOError:
            return b""

    def fileno(self):
        """Readable when signals have come."""
        return self._bell.fileno()

    def _ask_for_sigio(self, wanted):
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags | FASYNC if wanted else flags & ~FASYNC)

    def _on_signal(self, number, frame):
        # The application may have taken the wake-up descriptor, as asyncio does. It is taken back.
        if signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False) != self._alarm.fileno():
            self._ring(number)
        if number == signal.SIGIO and self._interruptible:
            if not self.leaving and not self._released and self.control.has_ended():
                limit_life()
                self.leaving = True
            # What unwinds since the last time has a moment to do so undisturbed.
            if self.leaving and time.monotonic() - self._raised > NUDGE_TIME:
                self._raised = time.monotonic()
                raise Leave(0)

    def _ring(self, number):
        try:
            self._alarm.send(bytes((number,)))
        except OSError:
            pass  # Full: it rings already.

    def _note_hooks(self):
        self._hooks_begun = True

    # The thread

    def _watch(self):
        try:
            for message in self.control.pending:
                self._heed(message)
            arrivals = poll()
            arrivals.register(self.control, POLLIN)
            arrivals.register(self, POLLIN)
            while not self._released:
                found = arrivals.poll(NUDGE_TIME * 1000 if self.leaving else None)
                if self.leaving:
                    self._nudge()
                for descriptor, _ in found:
                    if descriptor == self._bell.fileno():
                        self._heed_signals()
                    else:
                        for message in self.control.read():
                            self._heed(message)
        except Hangup:
            self._farewell()
        except BaseException as error:
            # A bug of ours. A worker that nobody watches must not live on.
            say(traceback_of(error))
            self._farewell()
        finally:
            self._thread_ended.release()

    def _heed(self, message):
        if message["type"] == "shutdown":
            self._stop()

    def _heed_signals(self):
        for number in self.signals():
            if number == signal.SIGTERM:
                self._terms += 1
                if self._terms > 1:
                    os._exit(128 + signal.SIGTERM)
                self._stop()

    def _stop(self):
        if self.worker is not None:
            self.worker.stop()
        elif not self.leaving:
            self.leaving = True
            self._nudge()

    def _nudge(self):
        """Interrupt the main thread. Once may not be enough: what is raised within a destructor is lost."""
        if self._interruptible and signal.getsignal(signal.SIGIO) == self._on_signal:
            signal.pthread_kill(self._main, signal.SIGIO)

    def _farewell(self):
        """The supervisor is gone. From here it is a race between the exit hooks and the last second."""
        limit_life()
        self.leaving = True
        if self.worker is not None:
            self.worker.stop()
            self.worker.remove_socket()
        until = time.monotonic() + LEAVE_TIME
        while time.monotonic() < until and not self._hooks_begun:
            self._nudge()
            time.sleep(NUDGE_TIME)
        if not self._hooks_begun:
            # The main thread is stuck in a call, or waits for a thread of the application's.
            self._hooks_begun = True
            try:
                atexit._run_exitfuncs()
                flush_output()
            finally:
                os._exit(0)


def tasks():
    """What the kernel calls the threads of this process, also those that Python does not know of."""
    try:
        return set(os.listdir("/proc/self/task"))
    except OSError:
        return set()


def limit_life():
    """End the process when the last second is over.

    The watchdog of faulthandler is a thread in C: it does so also when the application keeps the interpreter lock,
    swallows ``Leave``, or hangs in an exit hook.
    """
    faulthandler.dump_traceback_later(LAST_SECOND, exit=True, file=NOWHERE)


# ------------------------------------------------------------------------------------------------------------
# Loading the application


class Unfit(Exception):
    """The application was not found, or is not one. Carries the ``error`` message."""

    def __init__(self, category, summary, problem, solution):
        super().__init__(summary)
        self.message = {
            "category": category,
            "summary": summary,
            "problem": problem,
            "solution": solution,
            "traceback": "",
            "details": "",
        }


def checked_options(options):
    for name, kind in REQUIRED_OPTIONS.items():
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
    # Python put the directory of this file in front (unless it runs isolated): the application's root goes there.
    if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.dirname(os.path.realpath(__file__)):
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
    "name": str,
}


def load_application(options):
    """The WSGI callable, and a name for people.

    :raises Unfit: there is none.
    :raises BaseException: whatever the application's code raises, ``SystemExit`` included.
    """
    with RareCollections():
        if options["entry_module"]:
            where = options["entry_module"]
            __import__(where)
            module = sys.modules[where]
        else:
            where = options["startup_file"]
            module = load_file(where, options["app_root"])
        name, found = find_entry(module, where, options)
    return found, "%s:%s" % (module.__name__, name)


class RareCollections:
    """While an application is imported nearly all that is allocated stays: looking for garbage takes a tenth of it."""

    SELDOM = (50000, 10, 10)

    def __enter__(self):
        self.before = gc.get_threshold() if hasattr(gc, "set_threshold") else None  # PyPy has none
        if self.before is not None and self.before[0] != 0:
            gc.set_threshold(*self.SELDOM)

    def __exit__(self, kind, error, traceback):
        # Unless the application has set it: then it knows better.
        if self.before is not None and gc.get_threshold()[0] == self.SELDOM[0]:
            gc.set_threshold(*self.before)


def load_file(path, root):
    """Load a file as the module that it is.

    The module has the name under which the application's other code would import it (``app.py`` in the root:
    ``app``), and is in ``sys.modules`` under that name. So what is pickled can be found again, multiprocessing
    works, and there are not two copies of it.
    """
    from importlib.machinery import ModuleSpec, SourceFileLoader

    if not os.path.isfile(path):
        raise Unfit(
            "configuration",
            "There is no file %s" % path,
            "The startup file of the application does not exist, or is not a file.",
            "The application's directory is %s. Check the name of the startup file. %s" % (root, what_is_in(root)),
        )
    name, directory = module_name(path, root)
    if directory not in sys.path:
        sys.path.insert(1, directory)

    class TheFile:
        """Says of this one name that it is this one file: a package of the same name beside it does not hide it."""

        @staticmethod
        def find_spec(wanted, path_of_package=None, target=None):
            if wanted != name:
                return None
            spec = ModuleSpec(name, SourceFileLoader(name, path), origin=path)
            spec.has_location = True
            if os.path.basename(path) == "__init__.py":
                spec.submodule_search_locations = [os.path.dirname(path)]
            return spec

    sys.meta_path.insert(0, TheFile)
    try:
        __import__(name)
        return sys.modules[name]
    finally:
        sys.meta_path.remove(TheFile)


def module_name(path, root):
    """The name of the module in a file, and the directory from which it is imported under that name."""
    directory, file = os.path.split(path)
    stem, extension = os.path.splitext(file)
    if extension != ".py":
        stem = file.replace(".", "_")  # app.wsgi: no import finds it, so any name will do that means no package
    parts = [stem]
    if stem == "__init__":
        directory, package = os.path.split(directory)
        parts = [package]
    while directory != root and os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        parts.insert(0, package)
    name = ".".join(part.replace(".", "_") for part in parts)
    while name in sys.modules:
        name = "app_" + name  # select.py: the module of that name is loaded, and others need it
    return name, directory


def what_is_in(directory):
    try:
        files = sorted(name for name in os.listdir(directory) if name.endswith(".py"))
    except OSError as error:
        return "It cannot be read: %s." % error
    return "Python files in it: %s." % (", ".join(files[:20]) or "none")


def find_entry(module, where, options):
    wanted = options["entry_object"]
    if wanted:
        found = module
        for part in wanted.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise no_entry("There is no object %r in %s" % (wanted, where), module)
        return wanted, checked(found() if options["entry_is_factory"] else found, wanted, where)
    there = [name for name in ("application", "app") if hasattr(module, name)]
    for name in there:
        if callable(getattr(module, name)):
            return name, checked(getattr(module, name), name, where)
    for name in ("create_app", "make_app"):
        factory = getattr(module, name, None)
        if callable(factory):
            return name + "()", checked(factory(), name + "()", where)
    if there:
        return there[0], checked(getattr(module, there[0]), there[0], where)
    raise no_entry("There is no WSGI application in %s" % where, module)


def no_entry(summary, module):
    names = [name for name in vars(module) if not name.startswith("_") and callable(getattr(module, name))]
    return Unfit(
        "configuration",
        summary,
        "The module was loaded from %s, but it has no such object. "
        "The usual names are application and app, or create_app and make_app for a function that makes one."
        % getattr(module, "__file__", "somewhere"),
        "Name the object, as in module:object. What can be called in it: %s." % (", ".join(names[:30]) or "nothing"),
    )


def checked(found, name, where):
    if is_coroutine_function(found):
        raise Unfit(
            "configuration",
            "%s in %s is an ASGI application, not a WSGI application" % (name, where),
            "It is an async callable: WSGI would call it as a function and get a coroutine instead of a response.",
            "Serve it as ASGI, or name a WSGI application instead, as in module:object.",
        )
    if not callable(found):
        raise Unfit(
            "configuration",
            "%s in %s is not a WSGI application: it cannot be called" % (name, where),
            "It is of the type %s. A WSGI application is called with an environ and a start_response function."
            % type(found).__name__,
            "Name the object that is the application, as in module:object"
            " (a function that makes one: module:factory()).",
        )
    return found


def is_coroutine_function(found):
    """As ``inspect`` tells it, without the 10 ms that its import takes."""
    candidates = (found, getattr(found, "func", None), getattr(type(found), "__call__", None))
    flags = [getattr(getattr(candidate, "__code__", None), "co_flags", 0) for candidate in candidates]
    return any(flag & 0x80 for flag in flags)  # inspect.CO_COROUTINE


def explain(error, options):
    """The ``error`` message for whatever came of loading."""
    if isinstance(error, Unfit):
        return dict(error.message, type="error")
    version = sys.version.split()[0]
    kind = class_name(error)
    category = "application"
    summary = "The application raised %s: %s" % (kind, text_of(error))
    problem = "The exception was raised while the application was loaded. The traceback says where."
    solution = "Mend the application. It is started again with the next request, or when it is restarted."
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name
        wanted = options.get("entry_module") or ""
        if wanted and (wanted + ".").startswith(missing + ".") and not frames_of_application(error):
            category = "configuration"
            summary = "There is no module %r" % missing
            problem = "The application was to be imported as %r. Python looked in: %s." % (wanted, ", ".join(sys.path))
            solution = "Check the name, and the directory of the application: %s. %s" % (
                options.get("app_root"),
                what_is_in(options.get("app_root") or "."),
            )
        else:
            problem = "The module %r is not installed for the interpreter that runs the application, %s (Python %s)."
            problem %= (missing, sys.executable, version)
            solution = (
                "If it is installed elsewhere (in a virtual environment), choose that interpreter with --python. "
                "Otherwise install it: %s -m pip install %s" % (sys.executable, missing.partition(".")[0])
            )
    elif isinstance(error, SyntaxError):
        summary = "The application has a syntax error: %s (%s, line %s)" % (error.msg, error.filename, error.lineno)
        problem = "Python %s cannot read the file." % version
        solution = (
            "Mend the line. If it is right for a later version of Python, choose that interpreter with --python: "
            "the application runs under %s." % sys.executable
        )
    elif isinstance(error, SystemExit):
        summary = "The application ended the process while it was loaded: sys.exit(%r)" % (error.code,)
        problem = "A WSGI application is loaded as a module and must not exit. This often is a command-line program."
        solution = 'Put what belongs to the command line under: if __name__ == "__main__":'
    elif isinstance(error, MemoryError):
        solution = "Give the application more memory, or let it load less."
    return {
        "type": "error",
        "category": category,
        "summary": summary,
        "problem": problem,
        "solution": solution,
        "traceback": traceback_of(error),
        "details": "Python %s, %s\nsys.path: %s" % (version, sys.executable, os.pathsep.join(sys.path)),
    }


def class_name(error):
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def text_of(error):
    try:
        # Half a surrogate pair (a file name in another encoding) can be said in JSON, but nobody can write it.
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "(its text cannot be shown: __str__ failed)"


def frames_of_application(error):
    """Its traceback without the frames of this file and of the import system in front."""
    frames = error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib"):
            break
        frames = frames.tb_next
    return frames


def traceback_of(error):
    import traceback  # 4 to 10 ms, which only errors have to pay

    try:
        lines = traceback.format_exception(type(error), error, frames_of_application(error))
    except Exception:  # an exception whose __str__ or __cause__ raises
        lines = traceback.format_tb(frames_of_application(error)) + [class_name(error), "\n"]
    return "".join(lines).encode("utf-8", "backslashreplace").decode()


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


# ------------------------------------------------------------------------------------------------------------
# What a session is made of

frame = struct.Struct(">BI")
start = frame.pack
HEAD, DATA, END, ABORT, ERROR = b"HDEAX"
RESPONSE = ord("R")
THE_END = start(END, 0)
THE_LAST = start(END, 1) + b"\1"
"""The end of a response, and of the stream."""
THE_ABORT = start(ABORT, 0)

BLOCK = 65536
"""Bytes asked from the kernel at a time. A body up to this size is copied next to its head, to be one write."""
FILE_FRAME = 1024 * 1024
"""Bytes of a file in one frame, so that an abort is noticed between frames."""
DRAIN_BYTES = 1024 * 1024
DRAIN_TIME = 0.2
"""How much of a body that the application has not read is dropped to save the stream, which costs 0.1 ms."""

take_required = itemgetter(
    "REQUEST_METHOD", "PATH_INFO", "REQUEST_SCHEME", "SCRIPT_NAME", "QUERY_STRING", "REQUEST_URI",
    "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT",
)  # fmt: skip

ESCAPES = {a + b: chr(int(a + b, 16)) for a in "0123456789ABCDEFabcdef" for b in "0123456789ABCDEFabcdef"}


def percent_decoded(text):
    """As PEP 3333 wants a path: escapes are bytes, and a byte is a character of latin-1. What is no escape stays."""
    first, *parts = text.split("%")
    for part in parts:
        character = ESCAPES.get(part[:2])
        first += "%" + part if character is None else character + part[2:]
    return first


class Input:
    """``wsgi.input``: the request body, read from its frames as the application asks for it.

    It ends where the body ends (``E``), whatever the request said of its length. When the client is gone before
    that, reading raises ``ConnectionAbortedError``.
    """

    __slots__ = ("_at", "_conn", "_have", "_left", "_partial", "aborted", "broken", "ended")

    def __init__(self, conn, arrived):
        """:param arrived: what came behind the head."""
        self._conn = conn
        self._have = b""
        self._at = 0
        self._left = 0
        """Bytes of the frame under way that have not come."""
        self._partial = b""
        """The first bytes of the next frame's five."""
        self.ended = False
        self.aborted = False
        """The supervisor sent ``A``, or hung up."""
        self.broken = False
        """What came is not in the contract: no answer."""
        self._take_in(arrived)

    def read(self, size=-1):
        have = self._have
        at = self._at
        if size is not None and 0 <= size <= len(have) - at:
            self._at = at + size
            return have[at : at + size]
        pieces = [have[at:]] if at else [have]
        self._have = b""
        self._at = 0
        if size is None or size < 0:
            while self._more():
                pieces.append(self._have)
                self._have = b""
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        size -= len(pieces[0])
        while size and self._more():
            piece = self._have[:size]
            self._at = len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readline(self, size=-1):
        limit = size if size is not None and size >= 0 else None
        pieces = []
        while limit != 0 and (self._at < len(self._have) or self._more()):
            have = self._have
            end = have.find(b"\n", self._at) + 1
            if limit is not None:
                end = min(end or len(have), self._at + limit)
            piece = have[self._at : end or len(have)]
            self._at += len(piece)
            pieces.append(piece)
            if limit is not None:
                limit -= len(piece)
            if piece.endswith(b"\n"):
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readlines(self, hint=-1):
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self):
        return iter(self.readline, b"")

    def _more(self):
        """Put the next piece of the body into ``_have``. False: there is none."""
        self._have = b""
        self._at = 0
        while not self._have:
            if self.aborted or self.broken:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the client went away in the middle of its request")
            if self.ended:
                return False
            self._receive()
        return True

    def _receive(self):
        try:
            data = self._conn.recv(BLOCK)
        except OSError:
            data = b""
        if data:
            self._take_in(data)
        else:
            self.aborted = True

    def _take_in(self, data):
        """Append the payloads in ``data`` to ``_have``."""
        left = self._left
        if len(data) <= left:
            # The middle of a large frame: nothing to cut.
            self._left = left - len(data)
            self._have += data
            return
        if self._partial:
            data = self._partial + data
            self._partial = b""
        pieces = [self._have, data[:left]]
        at = left
        while True:
            left = 0
            if len(data) - at < 5:
                self._partial = data[at:]
                # Garbage is not waited for.
                self.broken = at < len(data) and data[at] not in (DATA, END, ABORT)
                break
            kind, left = frame.unpack_from(data, at)
            at += 5
            if kind == DATA and 0 < left <= MAX_FRAME:
                pieces.append(data[at : at + left])
                at += left
                if at > len(data):
                    left = at - len(data)
                    break
                continue
            if kind == END and left == 0:
                self.ended = True
                # The client may be gone already. Nothing else can follow: there is no pipelining.
                behind = data[at:]
                self.aborted = bool(behind) and THE_ABORT.startswith(behind)
                self.broken = bool(behind) and not self.aborted
            elif kind == ABORT and left == 0:
                self.aborted = True
            else:
                self.broken = True
            left = 0
            break
        self._left = left
        self._have = b"".join(pieces)

    def abort_is_next(self):
        """Something has come, and the body has not ended: is it an abort? One behind more of the body is not seen."""
        if not self._left and not self._partial:
            try:
                if self._conn.recv(1, MSG_PEEK | MSG_DONTWAIT) == b"A":
                    self._receive()
            except OSError:
                self.aborted = True
        return self.aborted or self.broken

    def finish(self):
        """Drop what the application has not read. True if the stream is at a boundary then."""
        if self.ended:
            return not (self.aborted or self.broken)
        arrivals = poll()
        arrivals.register(self._conn, POLLIN)
        budget = DRAIN_BYTES
        until = time.monotonic() + DRAIN_TIME
        while not (self.ended or self.aborted or self.broken):
            wait = until - time.monotonic()
            if budget <= 0 or wait <= 0 or not arrivals.poll(wait * 1000):
                return False
            self._have = b""
            self._receive()
            budget -= len(self._have)
        return not (self.aborted or self.broken)


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable. A real file never enters Python: see ``Session._send_file``."""

    def __init__(self, file, block_size=8192):
        self.file = file
        self.block_size = max(block_size, BLOCK)
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.file.read(self.block_size)
        if data:
            return data
        raise StopIteration

    def plain_file(self):
        """(descriptor, position, bytes from there to the end) if the kernel can send it; else None.

        Only of objects that are known to show the bytes of their descriptor: a ``GzipFile`` has one, too.
        """
        file = self.file
        if type(file) is io.BufferedReader:
            file = file.raw
        if type(file) is not io.FileIO:
            return None
        try:
            status = os.fstat(file.fileno())
            at = self.file.tell()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return file.fileno(), at, max(0, status.st_size - at)


class Session:
    """One request and its response.

    ``head`` is the response head as the application gave it, encoded, None before; ``begun`` says that it was sent,
    and ``done`` that the response is complete on the wire. ``gone`` says that nobody reads it any more; what the
    application raises then is not its error.
    """

    __slots__ = (
        "_aborted",
        "_arrivals",
        "_body",
        "_conn",
        "_is_head",
        "_length",
        "_no_body",
        "_sent",
        "begun",
        "done",
        "gone",
        "head",
    )

    def __init__(self, conn, body, is_head):
        self._conn = conn
        self._body = body
        self._is_head = is_head
        self._no_body = is_head
        self._length = None
        """What the response head says of the body's length."""
        self._sent = 0
        self._aborted = False
        self._arrivals = None
        self.head = None
        self.begun = False
        self.done = False
        self.gone = False

    def run(self, application, environ):
        """Serve it. True if the stream may carry another session."""
        iterable = None
        try:
            iterable = application(environ, self.start_response)
            self._deliver(iterable)
        except Leave:
            raise
        except BaseException as error:
            self._failed(error)
        finally:
            # An iterable is closed once: here, whatever happened.
            close = getattr(iterable, "close", None)
            if close is not None:
                try:
                    close()
                except Leave:
                    raise
                except BaseException as error:
                    say(traceback_of(error))
        body = self._body
        if self._aborted or body.aborted:
            if not (self.done or self.gone or body.broken):
                self._push_last(THE_LAST)
            return False
        return self.done and (body.ended or body.finish())

    # What the application calls

    def start_response(self, status, headers, exc_info=None):
        if exc_info:
            try:
                if self.begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # a cycle through the frames, otherwise
        elif self.head is not None:
            raise AssertionError("start_response was called a second time, without exc_info")
        if not isinstance(status, str):
            raise TypeError("the status must be str, not %s" % type(status).__name__)
        code = status[:3]
        if len(code) != 3 or not code.isdecimal() or code < "200" or status[3:4] not in ("", " "):
            raise ValueError("not the status of a response: %r (it looks like '200 OK')" % status)
        if not isinstance(headers, list):
            raise TypeError("the headers must be a list of tuples, not %s" % type(headers).__name__)
        texts = [code, status[4:]]
        add = texts.append
        length = None
        try:
            for name, value in headers:
                add(name)
                add(value)
                # The check of the length spares most names the lower(). A length that is no number is the
                # supervisor's to judge.
                if len(name) == 14 and name.lower() == "content-length":
                    length = int(value) if value.isdecimal() and len(value) < 19 else None
            add("")
            text = "\0".join(texts)
            head = text.encode("latin-1")
        except Exception:
            raise bad_header(status, headers) from None
        if text.count("\0") != len(texts) - 1 or "" in texts[2:-1:2] or len(head) > MAX_HEAD:
            raise bad_header(status, headers)
        self.head = head
        self._length = length
        self._no_body = self._is_head or code == "204" or code == "304"
        return self.write

    def write(self, data):
        """PEP 3333's imperative way to send the body: the data is on its way when it returns."""
        if not isinstance(data, bytes):
            raise TypeError("write() takes bytes, not %s" % type(data).__name__)
        if data:
            self._send_chunk(data)

    # What goes out

    def _deliver(self, iterable):
        kind = type(iterable)
        if (kind is list or kind is tuple) and not self.begun:
            self._send_whole(iterable[0] if len(iterable) == 1 else whole(iterable))
        elif kind is FileWrapper and not self.begun:
            self._send_file(iterable)
        else:
            if iterable is None:
                raise TypeError("the application returned None instead of an iterable")
            if isinstance(iterable, (str, bytes)):
                # It would be sent character by character, or fail with a puzzling message.
                raise TypeError("the application returned %s instead of an iterable of bytes" % kind.__name__)
            for chunk in iterable:
                if not isinstance(chunk, bytes):
                    raise TypeError("the application yielded %s instead of bytes" % type(chunk).__name__)
                if chunk:
                    if self.begun or self._length is not None or not hasattr(kind, "__len__") or len(iterable) != 1:
                        self._send_chunk(chunk)
                    else:
                        self._send_whole(chunk)
                    if self.done and (self._no_body or self._sent > self._length):
                        break
            if not self.done:
                self._send_end()

    def _send_whole(self, body):
        """Send a body of which there is no more."""
        if not isinstance(body, bytes):
            raise TypeError("the application yielded %s instead of bytes" % type(body).__name__)
        head = self._checked_head()
        size = len(body)
        if self._length is None:
            # Nothing is known of the body of a HEAD request's GET from an empty one.
            if not self._no_body or (self._is_head and size):
                self.head = head = head + b"Content-Length\0%d\0" % size
                self._length = size
        if size == self._length and 0 < size <= BLOCK and not self._no_body:
            self.begun = True
            self._sent = size
            self._push(b"".join((start(RESPONSE, len(head)), head, start(DATA, size), body, self._end_frame())))
            self.done = True
        else:
            if body:
                self._send_chunk(body)
            if not self.done:
                self._send_end()

    def _send_chunk(self, chunk):
        """Send a part of the body: behind the head if it is the first, before the end if it makes the body complete."""
        parts = []
        if not self.begun:
            head = self._checked_head()
            parts += (start(RESPONSE, len(head)), head)
        elif self.done:
            if not self._no_body:
                self._tell_excess(len(chunk))
            return
        elif self._peer_gave_up():
            self._hang_up()
        self.begun = True
        if self._no_body:
            self._push(b"".join(parts) + self._end_frame())
            self.done = True
            return
        size = len(chunk)
        excess = 0
        if self._length is not None:
            excess = max(0, self._sent + size - self._length)
            if excess:
                chunk = chunk[:-excess]
                size -= excess
        self._sent += size
        complete = self._sent == self._length
        if size <= BLOCK:
            if size:
                parts += (start(DATA, size), chunk)
            if complete:
                parts.append(self._end_frame())
            self._push(b"".join(parts))
        else:
            view = memoryview(chunk)
            for at in range(0, size, MAX_FRAME):
                piece = view[at : at + MAX_FRAME]
                parts += (start(DATA, len(piece)), piece)
            if complete:
                parts.append(self._end_frame())
            self._push_parts(parts)
        self.done = complete
        if excess:
            self._tell_excess(excess)

    def _send_end(self):
        """There is no more."""
        parts = b""
        if not self.begun:
            head = self._checked_head()
            if self._length is None and not self._no_body:
                head += b"Content-Length\0%d\0" % 0
            parts = start(RESPONSE, len(head)) + head
            self.begun = True
        if not self._no_body and self._length is not None and self._sent < self._length:
            # No end: the client must not take this for the whole of it.
            self._push(parts)
            say(
                "passenger_trio: the response ended after %d of the %d bytes of its Content-Length\n"
                % (self._sent, self._length)
            )
        else:
            self._push(parts + self._end_frame())
            self.done = True

    def _send_file(self, wrapper):
        """Let the kernel send it, if it can: 1 MiB takes one call."""
        plain = wrapper.plain_file()
        if plain is None:
            for block in wrapper:
                if not isinstance(block, bytes):
                    raise TypeError("the file for wsgi.file_wrapper gave %s, not bytes" % type(block).__name__)
                self._send_chunk(block)
                if self.done:
                    break
            if not self.done:
                self._send_end()
            return
        descriptor, at, size = plain
        head = self._checked_head()
        if self._length is None and (not self._no_body or self._is_head):
            self.head = head = head + b"Content-Length\0%d\0" % size
            self._length = size
        if self._no_body or not size:
            self._send_end()
            return
        # A file that is longer than the Content-Length is no mistake: ranges are sent like this.
        size = min(size, self._length)
        if size <= BLOCK:
            self._send_whole(os.pread(descriptor, size, at))
            return
        end = at + size
        parts = start(RESPONSE, len(head)) + head
        while at < end:
            if self.begun and self._peer_gave_up():
                self._hang_up()
            until = min(end, at + FILE_FRAME)
            self.begun = True
            self._push(parts + start(DATA, until - at))
            while at < until:
                count = self._push_file(descriptor, at, until - at)
                if not count:
                    raise RuntimeError("the file became shorter while it was sent")
                at += count
                self._sent += count
            parts = b""
        self._send_end()

    def _checked_head(self):
        if self._body.broken:
            self._hang_up()
        if self.head is None:
            raise AssertionError("the application did not call start_response before the body of its response")
        return self.head

    def _end_frame(self):
        if self._body.broken:
            self._hang_up()
        return THE_LAST if self._aborted or self._body.aborted else THE_END

    def _hang_up(self):
        raise ConnectionAbortedError(errno.ECONNABORTED, "the client is gone")

    def _tell_excess(self, size):
        say("passenger_trio: %d bytes beyond the Content-Length of the response were dropped\n" % size)
        self._sent += size

    def _failed(self, error):
        if self.gone or self._aborted or self._body.aborted or self._body.broken:
            return  # It was told that nobody waits any more, and did as it should.
        report = traceback_of(error)
        say(report)
        if self.begun:
            return  # No end: the client must see that the response is incomplete (if it was not complete before).
        # The end of a traceback says what happened; so does the front of a message. 4 bytes a character at the most.
        texts = (class_name(error)[:200], text_of(error)[:2000], report[-30000:])
        payload = "".join(text.replace("\0", "\ufffd") + "\0" for text in texts).encode("utf-8", "replace")
        self.begun = True
        try:
            self._push(start(ERROR, len(payload)) + payload + self._end_frame())
            self.done = True
        except OSError:
            pass

    # The stream

    def _peer_gave_up(self):
        """Whether an abort or the end of the stream has come. Asked only between the chunks of a response."""
        arrivals = self._arrivals
        if arrivals is None:
            arrivals = self._arrivals = poll()
            arrivals.register(self._conn, POLLIN | POLLRDHUP)
        for _, event in arrivals.poll(0):
            if event & (POLLRDHUP | POLLHUP | POLLERR):
                self._aborted = True
            elif not self._body.ended:
                self._aborted = self._body.abort_is_next()
            else:
                # Behind a whole request only an abort may come. Anything else is not answered, not even with an end.
                self._aborted = True
                self.gone = self._conn.recv(5, MSG_DONTWAIT) != THE_ABORT
        return self._aborted or self._body.aborted or self._body.broken

    def _push(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            self.gone = True
            raise

    def _push_parts(self, parts):
        """``sendall`` of several buffers, without copying them together."""
        try:
            while parts:
                sent = self._conn.sendmsg(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts[0])
                    del parts[0]
                if sent:
                    parts[0] = memoryview(parts[0])[sent:]
        except OSError:
            self.gone = True
            raise

    def _push_file(self, descriptor, at, size):
        try:
            return os.sendfile(self._conn.fileno(), descriptor, at, size)
        except OSError:
            self.gone = True
            raise

    def _push_last(self, data):
        try:
            self._conn.sendall(data)
        except OSError:
            pass


def whole(chunks):
    for chunk in chunks:
        if not isinstance(chunk, bytes):
            raise TypeError("the application yielded %s instead of bytes" % type(chunk).__name__)
    return b"".join(chunks)


def bad_header(status, headers):
    """What is wrong with a response head that could not be encoded."""
    if "\0" in status or not is_latin_1(status):
        return ValueError("the status %r has a character that HTTP cannot carry" % status)
    for header in headers:
        if not isinstance(header, tuple) or len(header) != 2:
            return TypeError("a response header must be a tuple of a name and a value, not %r" % (header,))
        for text in header:
            if not isinstance(text, str):
                return TypeError(
                    "the response header %r: a name or value must be str, not %s" % (header[0], type(text).__name__)
                )
            if "\0" in text or not is_latin_1(text):
                return ValueError("the response header %r has a character that HTTP cannot carry" % header[0])
        if not header[0]:
            return ValueError("a response header has an empty name")
    return ValueError("the response head is longer than %d bytes" % MAX_HEAD)


def is_latin_1(text):
    return all(character <= "\xff" for character in text)


# ------------------------------------------------------------------------------------------------------------
# The worker


class Worker:
    """Serves sessions on a Unix socket, ``threads`` streams at a time."""

    def __init__(self, application, options):
        self.application = application
        self.threads = max(1, options["threads"])
        self.path = os.path.join(options["socket_dir"], options["socket_name"])
        self.stopping = False
        self._listener = None
        self._threads = []
        self._streams = {}
        self._nothing = Input(None, THE_END)
        """The body of all requests that have none. It has no state that reading would change."""
        self._environ = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SERVER_SOFTWARE": options["server_software"],
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": self.threads > 1,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    def listen(self):
        listener = Socket(AF_UNIX)
        belongings.add(listener)
        listener.settimeout(None)
        try:
            listener.bind(self.path)
            os.chmod(self.path, 0o600)
            listener.listen(128)
            self._listener = listener
            self._start_threads()
        except (OSError, RuntimeError) as error:
            raise Unfit(
                "loader",
                "The application is loaded, but the process cannot listen on %s" % self.path,
                "The operating system refused: %s." % error,
                "Check that the instance directory is there, that its path is no longer than about 80 bytes, "
                "and the limits on processes and memory of the account.",
            )

    def _start_threads(self):
        if self.threads == 1:
            return  # The main thread it is: some libraries work in no other.
        from threading import Thread

        for number in range(1, self.threads + 1):
            # Daemons, so that at the supervisor's end nobody waits for them. On a stop, ``run`` does.
            thread = Thread(target=self._serve, name="passenger_trio-%d" % number, daemon=True)
            thread.start()
            self._threads.append(thread)

    def socket_message(self):
        return {"address": "unix:" + self.path, "protocol": "session", "concurrency": self.threads}

    def remove_socket(self):
        try:
            os.unlink(self.path)
        except OSError:
            pass  # The supervisor removes it in any case.

    def run(self):
        """Until ``stop``, and until the sessions in hand are finished. In the main thread."""
        if self.threads == 1:
            self._serve()
        for thread in self._threads:
            thread.join()

    def stop(self):
        """Take no new sessions; finish those whose heads have arrived. From any thread, any number of times.

        Threads that wait in ``accept`` are woken by shutting the listener down: the kernel still gives out what is
        in the queue, then fails. Threads that wait for a head are woken by shutting down the reading side of their
        stream, but only if it is certain that they have no head. The byte ``buffer[0]`` says so: it is 0 from
        before the wait on, and the kernel writes the first byte of what arrived there *before* it takes that from
        the socket's queue. So a stream whose queue is empty (looked at first) and whose byte is 0 (looked at
        second) had nothing when we looked, and whatever the supervisor sent before it told us to stop was there by
        then.
        """
        self.stopping = True
        if self._listener is None:
            return
        try:
            self._listener.shutdown(SHUT_RDWR)
        except OSError:
            pass
        for conn, buffer in list(self._streams.items()):
            try:
                if nothing_to_read(conn) and buffer[0] == 0:
                    conn.shutdown(SHUT_RD)
            except OSError:
                pass  # Closed in this moment.

    def _serve(self):
        """One thread: accept a stream, serve it to its end, and again."""
        while True:
            try:
                conn, _ = self._listener.accept()
            except OSError as error:
                if self.stopping:
                    return
                if error.errno not in OUT_OF_SOMETHING:
                    raise
                say("passenger_trio: cannot accept a connection: %s\n" % error)
                time.sleep(0.1)
                continue
            # An application may have set a default timeout, which the new socket has inherited.
            conn.settimeout(None)
            belongings.add(conn)
            try:
                self._serve_stream(conn)
            except OSError:
                pass  # The stream broke between two sessions.
            finally:
                belongings.discard(conn)
                self._streams.pop(conn, None)
                try:
                    # A process that the application forked may hold a copy, so closing alone would not end it.
                    conn.shutdown(SHUT_RDWR)
                except OSError:
                    pass
                conn.close()

    def _serve_stream(self, conn):
        """The hot loop. A request without a body: one recv, one pass over its head, the application, one send."""
        buffer = bytearray(BLOCK)
        view = memoryview(buffer)
        self._streams[conn] = buffer
        receive = conn.recv_into
        application = self.application
        common = self._environ
        nothing = self._nothing
        read_start = frame.unpack_from
        while True:
            buffer[0] = 0
            if self.stopping:
                # A head that came before we were told to stop is served.
                try:
                    size = receive(buffer, BLOCK, MSG_DONTWAIT)
                except BlockingIOError:
                    return
            else:
                size = receive(buffer)
            kind, length = read_start(buffer)
            end = 5 + length
            if size < end or size < 5 or kind != HEAD:
                head, arrived = self._slow_head(conn, bytes(view[:size]))
                if head is None:
                    return
                text = head.decode("latin-1")
                body = Input(conn, arrived)
            else:
                text = str(view[5:end], "latin-1")
                if size == end + 5 and buffer[end:size] == THE_END:
                    body = nothing
                else:
                    body = Input(conn, bytes(view[end:size]))
            texts = text.split("\0")
            if texts.pop() or len(texts) % 2 or body.broken:
                return
            environ = common.copy()
            names = iter(texts)
            for name in names:
                environ[name] = next(names)
            # As many new names as pairs: none came twice, and none has taken the place of one of ours.
            if len(environ) - len(common) != len(texts) // 2 or "" in environ:
                return
            try:
                method, path, scheme, _, _, _, _, _, _, _, _ = take_required(environ)
            except KeyError:
                return
            if body.aborted:
                conn.sendall(THE_LAST)
                return
            if "%" in path:
                environ["PATH_INFO"] = percent_decoded(path)
            if scheme == "https":
                environ["HTTPS"] = "on"
            environ["wsgi.url_scheme"] = scheme
            environ["wsgi.input"] = body
            if not Session(conn, body, method == "HEAD").run(application, environ):
                return

    @staticmethod
    def _slow_head(conn, data):
        """(payload of the head, what came behind it) of a head that came in pieces; (None, b"") if it is none."""
        while True:
            # The type and the length are judged as soon as they are here: garbage is not waited for.
            if data[:1] not in (b"", b"H"):
                break
            if len(data) >= 5:
                end = 5 + frame.unpack_from(data)[1]
                if end > 5 + MAX_HEAD:
                    break
                if len(data) >= end:
                    return data[5:end], data[end:]
            more = conn.recv(BLOCK)
            if not more:
                break
            data += more
        return None, b""


OUT_OF_SOMETHING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EAGAIN)


# ------------------------------------------------------------------------------------------------------------
# The preloader


class Preloader:
    """Forks workers when it is asked to. It has one thread, and runs no event loop.

    ``run`` returns in the preloader when it is to end (None), and once in each forked process (the token with which
    it connects): a worker has climbed out of this loop before it does anything else.
    """

    def __init__(self, control, lifeline):
        self._control = control
        self._lifeline = lifeline
        self._children = set()
        self._threads_told = False

    def run(self):
        # Only to be woken: what a signal does is to write a byte.
        if signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN, None):
            take_signal(signal.SIGCHLD, lambda number, frame: None)
        arrivals = poll()
        arrivals.register(self._control, POLLIN)
        arrivals.register(self._lifeline, POLLIN)
        messages = self._control.pending
        while True:
            for message in messages:
                if message["type"] == "shutdown":
                    return None
                if message["type"] == "fork":
                    token = str(message.get("token"))
                    if self._fork(token):
                        return token
            messages = []
            for descriptor, _ in arrivals.poll():
                if descriptor == self._control.fileno():
                    try:
                        messages = self._control.read()
                    except Hangup:
                        limit_life()
                        return None
                elif signal.SIGTERM in self._lifeline.signals():
                    return None
            self._reap()

    @property
    def has_children(self):
        return bool(self._children)

    def _reap(self):
        # One by one: a child that the application started while it was loaded is the application's to wait for.
        for pid in list(self._children):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                self._children.discard(pid)  # The application waits for every child there is, and was faster.
                continue
            if found:
                self._children.discard(pid)
                self._control.send(type="child_exited", pid=pid, status=status)

    def _fork(self, token):
        """True in the child."""
        if not self._control.descriptors:
            self._control.send(type="fork_failed", token=token, problem="no descriptor came with the message")
            return False
        output = self._control.descriptors.pop(0)
        self._tell_threads()
        flush_output()  # What is in a buffer now would be written by both.
        try:
            pid = quiet_fork()
        except OSError as error:
            os.close(output)
            self._control.send(type="fork_failed", token=token, problem="fork: %s" % error)
            return False
        if pid == 0:
            os.setpgid(0, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            if output > 2:
                os.close(output)
            reseed()
            return True
        try:
            os.setpgid(pid, pid)  # As the child does: whoever of us is first.
        except OSError:
            pass
        os.close(output)
        self._children.add(pid)
        self._control.send(type="forked", token=token, pid=pid)
        return False

    def _tell_threads(self):
        if self._threads_told:
            return
        self._threads_told = True
        count = len(tasks()) - 1
        if count > 0:
            self._control.send(type="event", name="threads_at_fork", fields={"count": count})


def quiet_fork():
    """``os.fork`` without the warning of Python 3.12 about threads: the supervisor has been told, as an event."""
    warnings = sys.modules.get("warnings")
    if warnings is None:
        return os.fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def reseed():
    """Two workers must not draw the same numbers.

    ``random`` sees to its own generator when the process forks, and so does OpenSSL (1.1.1, below every Python
    since 3.8, knows of forks); ``secrets`` and ``uuid4`` ask the kernel. NumPy's global generator does not.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        try:
            numpy_random.seed()
        except Exception:
            pass


def share_memory():
    """Before the first fork: what is garbage goes, and what is not is never looked at again by the collector.

    To look at an object is to write to it, and to write to it is to copy its page.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose objects carry no counts
        gc.freeze()


# ------------------------------------------------------------------------------------------------------------
# The order of it all


def main():
    """The exit status."""
    try:
        path = os.environ.pop("PASSENGER_TRIO_SPAWN_SOCKET")
        token = os.environ.pop("PASSENGER_TRIO_SPAWN_TOKEN")
        control = Control(path)
    except (KeyError, OSError) as error:
        sys.stderr.write(
            "This program is started by passenger_trio, not by hand (%s: %s).\n" % (class_name(error), error)
        )
        return 2
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=disown)
    role = "preloader" if "--preload" in sys.argv[1:] else "worker"
    try:
        options = control.greet(token, role)
    except Hangup:
        return 1
    lifeline = Lifeline(control)
    lifeline.begin()
    worker = None
    try:
        try:
            with Step(control, "prepare_runtime"):
                prepare_runtime(checked_options(options))
                name_process(options, role)
            with Step(control, "load_application"):
                application, shown = load_application(options)
                if role == "preloader":
                    share_memory()
            if role == "preloader":
                lifeline.release()
                control.send(type="ready", application=shown)
                preloader = Preloader(control, lifeline)
                token = preloader.run()
                if token is None:
                    return leave_preloader(preloader, lifeline)
                # From here this is a forked worker. Its preloader's control connection went with the fork (disown).
                begun = time.monotonic()
                try:
                    control = Control(path)
                    options = control.greet(token, "worker")
                except (OSError, Hangup):
                    return 1
                lifeline = Lifeline(control)
                lifeline.begin()
                with Step(control, "after_fork", begun):
                    name_process(checked_options(options), "worker")
            worker = Worker(application, options)
            with Step(control, "listen"):
                worker.listen()
        except Leave:
            raise
        except BaseException as error:
            if lifeline.leaving:
                raise Leave(0)  # It was raised, and the application has made something else of it.
            lifeline.end()
            control.send(**explain(error, options))
            say(traceback_of(error))
            # A thread that the application started before it failed keeps an interpreter from ending. Not for ever:
            # after this time the process ends, with status 1, and says what its threads were doing.
            faulthandler.dump_traceback_later(5, exit=True, file=sys.__stderr__)
            return 1
        lifeline.worker = worker
        control.send(type="ready", sockets=[worker.socket_message()], application=shown)
        worker.run()
    except Leave:
        pass
    lifeline.end()
    if worker is not None:
        worker.remove_socket()
    return 0


def name_process(options, role):
    """What ``ps`` and ``top`` show, as far as the standard library can change it: 15 bytes."""
    name = options["name"] if role == "worker" else "pre:" + options["name"]
    try:
        with open("/proc/self/comm", "wb") as comm:
            comm.write(name.encode("utf-8", "replace")[:15])
    except OSError:
        pass


def leave_preloader(preloader, lifeline):
    """The exit hooks are the workers' while there are any: what they would remove is in use."""
    lifeline.end()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # The second one ends it at once.
    if preloader.has_children:
        flush_output()
        os._exit(0)
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except Leave:
        status = 0
    sys.exit(status)
