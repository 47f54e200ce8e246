"""What the Python loaders share: everything that does not depend on the interface between server and application.

Each loader is ``INTERFACE_loader.py``, which is started; this file is imported by it, from beside it, and by nobody
else. It keeps spawn_servers/CONTRACT.md, which is the text to read first: it knows the control connection (lines of
JSON), how a process is loaded, forked and ended, and nothing of sessions, but for the few names of the frames.

It runs on Python 3.8 and everything after it, on the standard library alone, and imports nothing of the supervisor.
What it imports it imports before the application is loaded, under its own names: what the application does to
``socket.socket`` afterwards does not reach it.

The file is read from top to bottom:

    on_event                    what applications may call
    Control                     the control connection
    Lifeline                    the thread that watches it, and the process's signals
    load_application, explain   from a file or a name to an application; from an exception to advice
    open_listener               a worker's socket
    Preloader                   the loop that forks (what it looks at before: passenger_trio_forking.py)
    main                        the order of it all

Laws:

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
import json
import os
import signal
import socket
import struct
import sys
import warnings
from _thread import allocate_lock, get_ident, start_new_thread
from os import WNOHANG, _exit, close, dup2, fork, getpid, listdir, setpgid, waitpid
from select import POLLIN, epoll, poll  # noqa: F401  epoll: asgi_loader.py's, which may be imported after the application
from select import select as wait_for_sockets
from signal import getsignal, pthread_kill, pthread_sigmask, set_wakeup_fd
from signal import signal as set_signal
from socket import AF_UNIX, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET
from socket import socket as Socket
from socket import socketpair
from time import monotonic, sleep

# Linux has them; PyPy has not the names.
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
MOST_RESERVED = 15.0
"""Seconds, at the most, that a stop keeps for what comes behind the sessions in hand."""

NOWHERE = os.open(os.devnull, os.O_WRONLY)
"""Open from the beginning: when it is needed, there may be no descriptor left."""


class Leave(SystemExit):
    """Raised in the main thread, wherever it is, when the process is to end now."""


class Hangup(Exception):
    """The control connection ended, or what came over it makes no sense."""


def shares_of(timeout):
    """How a worker that is told to stop divides its time: when sessions in hand are cancelled, when the application's
    own shutdown begins at the latest, and when the exit hooks do. Seconds from the moment in which it was told.

    :param timeout: seconds that it has for everything.
    """
    reserved = min(timeout / 2, MOST_RESERVED)
    begun = timeout - reserved
    return begun, begun + reserved / 3, begun + reserved * 2 / 3


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
    masks[get_ident()] = pthread_sigmask(signal.SIG_BLOCK, handlers)


def after_fork():
    pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))


def disown():
    """Runs in every process forked from this one, before anything else."""
    for belonging in list(belongings):
        belonging.close()
    belongings.clear()
    give_back_signals()
    after_fork()


def give_back_signals():
    set_wakeup_fd(-1)
    for number, (ours, theirs) in handlers.items():
        if getsignal(number) == ours:
            set_signal(number, theirs)
    handlers.clear()


def take_signal(number, ours):
    handlers[number] = (ours, getsignal(number) or signal.SIG_DFL)  # None: set by C code, and lost
    set_signal(number, ours)


# ------------------------------------------------------------------------------------------------------------
# What applications may call

events = {"starting_worker_process": [], "stopping_worker_process": []}


def on_event(name, function=None):
    """For applications: ``from passenger_trio_events import on_event``, and then ``@on_event("starting_worker_process")``.

    ``starting_worker_process`` is called in each process that will serve, before it serves, with whether it was
    forked: the place for threads and connections of its own. What it raises is a start that failed.
    ``stopping_worker_process`` is called, with nothing, when the process has served its last request, before the exit hooks.

    :raises ValueError: there is no such event.
    """
    if name not in events:
        raise ValueError("there is no event %r; there are: %s" % (name, ", ".join(sorted(events))))
    if function is None:
        return lambda function: on_event(name, function)
    events[name].append(function)
    return function


def call_event(name, *arguments):
    for function in events[name]:
        function(*arguments)


def offer_events():
    """The module passenger_trio_events, which is no file: under another server an application does not find it."""
    module = type(sys)("passenger_trio_events", on_event.__doc__)
    module.on_event = on_event
    sys.modules[module.__name__] = module


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
            close(descriptor)
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
            type="hello", token=token, contract=CONTRACT, role=role, language="python", version=version, pid=getpid()
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


class Bare:
    """``with Bare(stream) as bare:`` a plain socket on the same descriptor.

    A stream may be an object of gevent's or eventlet's, which waits where a plain one says that it would have to, and
    which is not to be used in another thread than its own.

    :raises OSError:
    """

    def __init__(self, stream):
        number = stream.fileno()
        if number < 0:
            raise OSError(errno.EBADF, "it is closed")
        self._bare = Socket(fileno=number)

    def __enter__(self):
        return self._bare

    def __exit__(self, kind, error, traceback):
        self._bare.detach()


def nothing_to_read(stream):
    """Whether a read would wait. The end of a stream is something to read, and so is what has broken it."""
    try:
        with Bare(stream) as bare:
            bare.recv(1, MSG_PEEK | MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def is_green():
    """Whether the application has replaced what waits for sockets by what lets others run meanwhile: gevent and eventlet do."""
    return sys.modules["socket"].socket is not Socket and sys.modules["select"].select is not wait_for_sockets


def has_green_threads():
    return sys.modules["_thread"].start_new_thread is not start_new_thread


class NativeThread:
    """A thread of the operating system, whatever the application has made of ``threading``."""

    def __init__(self, target):
        self._ended = allocate_lock()
        self._ended.acquire()
        self.ident = start_new_thread(self._run, (target,))

    def is_alive(self):
        return self._ended.locked()

    def _run(self, target):
        try:
            target()
        finally:
            self._ended.release()

    def join(self):
        with self._ended:
            pass


class Step:
    """``with Step(control, "listen"):`` reports a step of the journey."""

    def __init__(self, control, name, begun=None):
        self.control = control
        self.name = name
        self.begun = begun

    def __enter__(self):
        if self.begun is None:
            self.begun = monotonic()
        self.control.send(type="step", name=self.name, state="in_progress")

    def __exit__(self, kind, error, traceback):
        if kind is not Leave:
            state = "performed" if error is None else "errored"
            duration = monotonic() - self.begun
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
        self.deserted = False
        """The supervisor is gone."""
        self.timeout = 0.0
        """Seconds that the process has to end when it is told to."""
        self._pace = NUDGE_TIME
        """Seconds from one interruption of the main thread to the next, while the supervisor waits for us."""
        self._due = []
        """What is to be done when, once it is told to: (time, function), the earliest last."""
        self.process = getpid()
        self._main = get_ident()
        self._interruptible = True
        self._raised = 0.0
        self._hooks_begun = False
        self._hooks_claim = allocate_lock()
        self._hooks_runner = 0
        """The thread that runs the exit hooks, which has the claim."""
        self._terms = 0
        self._released = False
        self._tasks = set()
        self.stopping = False
        """The worker has been told to stop."""
        self._thread_ended = allocate_lock()
        self._bell, self._alarm = socketpair()
        belongings.update((self._bell, self._alarm))
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    # Called in the main thread

    def begin(self):
        self.take_wakeup()
        take_signal(signal.SIGTERM, self._on_signal)
        # Not SIG_IGN: that would be inherited by the programs that the application starts.
        take_signal(signal.SIGINT, self._on_signal)
        take_signal(signal.SIGIO, self._on_signal)
        fcntl.fcntl(self.control, fcntl.F_SETOWN, getpid())
        self._ask_for_sigio(True)
        self._thread_ended.acquire()
        before = tasks()
        start_new_thread(self._watch, ())
        self._tasks = tasks() - before

    def take_wakeup(self, on=True):
        """Signals wake this thread, or (for a moment) nobody: an event loop may want the descriptor for itself."""
        set_wakeup_fd(self._alarm.fileno() if on else -1, warn_on_full_buffer=False)

    def release(self):
        """End the thread: the preloader watches for itself, and has one thread when it forks."""
        self._ask_for_sigio(False)
        self._released = True
        self._ring(0)
        with self._thread_ended:
            pass
        # It has said its last word; the kernel may still count it.
        while self._tasks & tasks() and not self.leaving:
            sleep(0.0002)
        if self.leaving:
            raise Leave(0)  # The thread decided so before it heard of its release.

    def give_way(self):
        """Another one takes its place, in this process: a preloader goes on as a worker."""
        give_back_signals()
        for end in (self._bell, self._alarm):
            belongings.discard(end)
            end.close()

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
        if set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False) != self._alarm.fileno():
            self._ring(number)
        if number == signal.SIGIO and self._interruptible:
            if not self.leaving and not self._released and self.control.has_ended():
                limit_life()
                warnings.simplefilter("ignore")  # as in _farewell
                self.leaving = self.deserted = True
            # What unwinds since the last time has a moment to do so undisturbed.
            if self.leaving and monotonic() - self._raised > (NUDGE_TIME if self.deserted else self._pace):
                self._raised = monotonic()
                raise Leave(0)

    def _ring(self, number):
        try:
            self._alarm.send(bytes((number,)))
        except OSError:
            pass  # Full: it rings already.

    def _note_hooks(self):
        self._claim_hooks()
        # Another thread runs them, because we were stuck, and ends the process behind them: they run once.
        while self._hooks_runner != get_ident() and getpid() == self.process:
            sleep(1)

    def _claim_hooks(self):
        """True for the first who comes."""
        if not self._hooks_claim.acquire(False):
            return False
        self._hooks_begun = True
        self._hooks_runner = get_ident()
        return True

    # The thread

    def _watch(self):
        try:
            for message in self.control.pending:
                self._heed(message)
            arrivals = poll()
            arrivals.register(self.control, POLLIN)
            arrivals.register(self, POLLIN)
            while not self._released:
                found = arrivals.poll(self._patience())
                self._heed_time()
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
                    _exit(128 + signal.SIGTERM)
                self._stop()

    def _stop(self):
        worker = self.worker
        if worker is None:
            if not self.leaving:
                self.leave()
            return
        if not self.stopping:
            self.stopping = True
            now = monotonic()
            cancel, give_up, leave = shares_of(self.timeout)
            self._pace = max(NUDGE_TIME, (leave - cancel) / 2)  # What it interrupts has this long to tidy up.
            self._due = [
                (now + (leave + self.timeout) / 2, self._run_hooks),
                (now + leave, self.leave),
                (now + give_up, worker.give_up),
                (now + cancel, worker.cancel),
            ]
        worker.stop()

    def leave(self):
        """The main thread is to leave what it is doing, and run the exit hooks. From any thread."""
        self.leaving = True
        self._nudge()

    def _patience(self):
        """Milliseconds until there is something to do; None: nothing is known of."""
        times = [max(0.0, self._due[-1][0] - monotonic()) + 0.001] if self._due else []
        if self.leaving and not self._hooks_begun:
            times.append(self._pace)
        return min(times) * 1000 if times else None

    def _heed_time(self):
        while self._due and self._due[-1][0] <= monotonic():
            self._due.pop()[1]()

    def _nudge(self):
        """Interrupt the main thread. Once may not be enough: what is raised within a destructor is lost."""
        if self._interruptible and getsignal(signal.SIGIO) == self._on_signal:
            pthread_kill(self._main, signal.SIGIO)

    def _farewell(self):
        """The supervisor is gone. From here it is a race between the exit hooks and the last second."""
        limit_life()
        warnings.simplefilter("ignore")  # That coroutines are left in the middle of something is no news.
        self.leaving = self.deserted = True
        if self.worker is not None:
            self.worker.stop()
            self.worker.remove_socket()
        until = monotonic() + LEAVE_TIME
        while monotonic() < until and not self._hooks_begun:
            self._nudge()
            sleep(NUDGE_TIME)
        self._run_hooks()

    def _run_hooks(self):
        """Unless the main thread has come to it: it is stuck in a call, or waits for a thread of the application's."""
        if self._claim_hooks():
            try:
                atexit._run_exitfuncs()
                flush_output()
            finally:
                _exit(0)


def tasks():
    """What the kernel calls the threads of this process, also those that Python does not know of."""
    try:
        return set(listdir("/proc/self/task"))
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


OWN_FILES = {__file__}


class Interface:
    """What a loader tells ``main`` of the interface that it serves. A loader has one class that says this."""

    name = ""
    """As people write it: ``"WSGI"``."""
    own_file = __file__
    """The loader's file: its frames are not the application's."""
    options = {}
    """Members that its options must have besides those of every loader: name -> type."""

    def prepare(self, options):
        """Make the runtime ready for this interface, before the application is loaded.

        :raises Unfit: it lacks something.
        """

    def checked(self, found, name, where):
        """``found`` if it is an application.

        :raises Unfit: it is not.
        """
        raise NotImplementedError

    def turned_out(self, application, options):
        """The interface that the application has, which was loaded: this one, or another, where this one was guessed.

        :raises Unfit: it can be served by neither.
        """
        return self

    def worker(self, application, options, lifeline):
        """What serves it: an object with ``listen``, ``socket_message``, ``run(announce)``, ``stop``, ``cancel``,
        ``give_up`` and ``remove_socket``. ``run`` calls ``announce`` once, in the main thread, when the application may
        be served. Behind ``stop``, ``cancel`` says that sessions in hand have had their time, and ``give_up`` that
        nobody waits for them any more; both come from the lifeline's thread."""
        raise NotImplementedError


class Unfit(Exception):
    """The application was not found, or is not one. Carries the ``error`` message."""

    def __init__(self, category, summary, problem, solution, traceback=""):
        super().__init__(summary)
        self.message = {
            "category": category,
            "summary": summary,
            "problem": problem,
            "solution": solution,
            "traceback": traceback,
            "details": "",
        }


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
    "shutdown_timeout": (int, float),
    "name": str,
}


def load_application(options, interface):
    """The application, and a name for people.

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
        name, found = find_entry(module, where, options, interface)
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
        files = sorted(name for name in listdir(directory) if name.endswith(".py"))
    except OSError as error:
        return "It cannot be read: %s." % error
    return "Python files in it: %s." % (", ".join(files[:20]) or "none")


def find_entry(module, where, options, interface):
    checked = interface.checked
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
    raise no_entry("There is no %s application in %s" % (interface.name, where), module)


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


def is_coroutine_function(found):
    """Whether calling it gives a coroutine: as ``inspect`` tells it, without the 10 ms that its import takes."""
    candidates = (found, getattr(found, "func", None), getattr(type(found), "__call__", None))
    flags = [getattr(getattr(candidate, "__code__", None), "co_flags", 0) for candidate in candidates]
    return any(flag & 0x80 for flag in flags)  # inspect.CO_COROUTINE


def explain(error, options, interface):
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
        problem = "An application is loaded as a module and must not exit. This often is a command-line program."
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
    """Its traceback without the frames of the loader and of the import system in front."""
    frames = error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file not in OWN_FILES and not file.startswith("<frozen importlib"):
            break
        frames = frames.tb_next
    return frames


def load_what_errors_need():
    """Before it serves: when an error is to be told of, there may be no descriptor left to read a module with.

    Nearly every application has loaded it already, with ``logging``.
    """
    import traceback  # noqa: F401


def traceback_of(error):
    import traceback  # It is loaded already, unless the application has not come so far.

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
# What workers and sessions of every interface have

frame = struct.Struct(">BI")
start = frame.pack
HEAD, DATA, END, ABORT, ERROR = b"HDEAX"
RESPONSE = ord("R")
THE_END = start(END, 0)
THE_LAST = start(END, 1) + b"\1"
"""The end of a response, and of the stream."""
THE_ABORT = start(ABORT, 0)

OUT_OF_SOMETHING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EAGAIN)


def open_listener(path, backlog=128):
    """A worker's socket.

    :param backlog: connections that may come at once, before the worker has accepted the first of them.
    :raises Unfit: the operating system says no.
    """
    listener = Socket(AF_UNIX)
    belongings.add(listener)
    listener.settimeout(None)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(backlog)
    except OSError as error:
        raise cannot_listen(path, error)
    return listener


def cannot_listen(path, error):
    return Unfit(
        "loader",
        "The application is loaded, but the process cannot listen on %s" % path,
        "The operating system refused: %s." % error,
        "Check that the instance directory is there, that its path is no longer than about 80 bytes, "
        "and the limits on processes and memory of the account.",
    )


def remove_file(path):
    try:
        os.unlink(path)
    except OSError:
        pass  # The supervisor removes it in any case.


def error_payload(error, report):
    """The payload of ``X``. The end of a traceback says what happened; so does the front of a message."""
    # 4 bytes a character at the most.
    texts = (class_name(error)[:200], text_of(error)[:2000], report[-30000:])
    return "".join(text.replace("\0", "\ufffd") + "\0" for text in texts).encode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------------------
# The preloader


class Preloader:
    """Forks workers when it is asked to. It has one thread, and runs no event loop.

    ``run`` returns in the preloader when it is to end (``"end"``) or to be a worker itself (``"serve"``), and once in
    each forked process (``"forked"``; ``token`` is that with which it connects): a worker has climbed out of this loop
    before it does anything else.
    """

    def __init__(self, control, lifeline, forking, hazards):
        """:param forking: the module passenger_trio_forking. :param hazards: what it found."""
        self.token = ""
        self._control = control
        self._lifeline = lifeline
        self._forking = forking
        self._children = set()
        self._has_hooks = any(hazard["kind"] in ("exit_hook", "process") for hazard in hazards)
        """What it has is in use by its workers, and it must see to it when the last of them has ended."""
        self._told_to_end = False

    def run(self):
        # Only to be woken: what a signal does is to write a byte.
        if getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN, None):
            take_signal(signal.SIGCHLD, lambda number, frame: None)
        arrivals = poll()
        arrivals.register(self._control, POLLIN)
        arrivals.register(self._lifeline, POLLIN)
        messages = self._control.pending
        while True:
            for message in messages:
                if message["type"] == "shutdown":
                    self._told_to_end = True
                elif message["type"] == "serve":
                    return "serve"
                elif message["type"] == "fork" and not self._told_to_end:
                    self.token = str(message.get("token"))
                    if self._fork(self.token):
                        return "forked"
            messages = []
            if self._told_to_end and not (self._has_hooks and self._children):
                return "end"
            for descriptor, _ in arrivals.poll():
                if descriptor == self._control.fileno():
                    try:
                        messages = self._control.read()
                    except Hangup:
                        limit_life()
                        self._wait_for_children()
                        return "end"
                elif signal.SIGTERM in self._lifeline.signals():
                    if self._told_to_end:
                        return "end"
                    self._told_to_end = True
            self._reap()

    def _wait_for_children(self):
        """The supervisor is gone, and so are they, soon."""
        until = monotonic() + LEAVE_TIME
        while self._has_hooks and self._children and monotonic() < until:
            sleep(0.01)
            self._reap()

    @property
    def has_children(self):
        return bool(self._children)

    def _reap(self):
        # One by one: a child that the application started while it was loaded is the application's to wait for.
        for pid in list(self._children):
            try:
                found, status = waitpid(pid, WNOHANG)
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
        flush_output()  # What is in a buffer now would be written by both.
        try:
            pid = quiet_fork()
        except OSError as error:
            close(output)
            self._control.send(type="fork_failed", token=token, problem="fork: %s" % error)
            return False
        if pid == 0:
            setpgid(0, 0)
            dup2(output, 1)
            dup2(output, 2)
            if output > 2:
                close(output)
            self._forking.renew()
            return True
        try:
            setpgid(pid, pid)  # As the child does: whoever of us is first.
        except OSError:
            pass
        close(output)
        self._children.add(pid)
        self._control.send(type="forked", token=token, pid=pid)
        return False


def load_forking():
    """The module passenger_trio_forking, which is beside this one, and which only preloaders need."""
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    try:
        import passenger_trio_forking
    finally:
        del sys.path[0]
    OWN_FILES.add(passenger_trio_forking.__file__)
    return passenger_trio_forking


def quiet_fork():
    """``os.fork`` without the warning of Python 3.12 about threads: the supervisor has been told, and has decided."""
    warnings = sys.modules.get("warnings")
    if warnings is None:
        return fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fork()


def share_memory():
    """Before the first fork: what is garbage goes, and what is not is never looked at again by the collector.

    To look at an object is to write to it, and to write to it is to copy its page.
    """
    gc.collect()
    if hasattr(gc, "freeze"):  # not in PyPy, whose objects carry no counts
        gc.freeze()


# ------------------------------------------------------------------------------------------------------------
# The order of it all


def main(interface):
    """The exit status."""
    OWN_FILES.add(interface.own_file)
    offer_events()
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
                prepare_runtime(checked_options(options, interface))
                lifeline.timeout = options["shutdown_timeout"]
                interface.prepare(options)
                name_process(options, role)
            if role == "preloader":
                forking = load_forking()
                holdings = forking.Holdings()
            with Step(control, "load_application"):
                application, shown = load_application(options, interface)
                interface = interface.turned_out(application, options)
                load_what_errors_need()
                if role == "preloader":
                    holdings.hooks.loaded()
                    holdings.put_right()
                    share_memory()
            if role == "preloader":
                lifeline.release()
                hazards = holdings.hazards()
                control.send(type="ready", application=shown, hazards=hazards)
                preloader = Preloader(control, lifeline, forking, hazards)
                outcome = preloader.run()
                if outcome == "end":
                    return leave_preloader(preloader, lifeline)
                if outcome == "serve":
                    # From here this is a worker like any that was started: what it holds is its own.
                    lifeline.give_way()
                else:
                    # From here this is a forked worker. Its preloader's control connection went with the fork (disown).
                    begun = monotonic()
                    try:
                        control = Control(path)
                        options = control.greet(preloader.token, "worker")
                    except (OSError, Hangup):
                        return 1
                lifeline = Lifeline(control)
                lifeline.begin()
                lifeline.timeout = checked_options(options, interface)["shutdown_timeout"]
                if outcome == "forked":
                    with Step(control, "after_fork", begun):
                        call_event("starting_worker_process", True)
                name_process(options, "worker")
            if role == "worker" or outcome == "serve":
                call_event("starting_worker_process", False)
            worker = interface.worker(application, options, lifeline)

            def announce():
                with Step(control, "listen"):
                    worker.listen()
                lifeline.worker = worker
                control.send(
                    type="ready",
                    sockets=[worker.socket_message()],
                    application=shown,
                    app_type=interface.name.lower(),
                )

            worker.run(announce)
        except Leave:
            raise
        except BaseException as error:
            if lifeline.leaving:
                raise Leave(0)  # It was raised, and the application has made something else of it.
            if lifeline.worker is not None:
                raise  # A bug of ours: it serves already.
            lifeline.end()
            control.send(**explain(error, options, interface))
            say(traceback_of(error))
            # A thread that the application started before it failed keeps an interpreter from ending. Not for ever:
            # after this time the process ends, with status 1, and says what its threads were doing.
            faulthandler.dump_traceback_later(5, exit=True, file=sys.__stderr__)
            return 1
    except Leave:
        pass
    if lifeline.worker is not None and not is_copy(lifeline):
        tell_stopping()
    lifeline.end()
    if worker is not None:
        worker.remove_socket()
    return 0


def is_copy(lifeline):
    """Whether this is a process that the application forked from ours, and that came back to us."""
    return lifeline.process != getpid()


def tell_stopping():
    try:
        call_event("stopping_worker_process")
    except Leave:
        pass
    except BaseException as error:
        say(traceback_of(error))


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
    set_signal(signal.SIGTERM, signal.SIG_DFL)  # The second one ends it at once.
    if preloader.has_children:
        flush_output()
        _exit(0)
    return 0


def run(interface):
    """``main``, and the end of the process."""
    try:
        status = main(interface)
    except Leave:
        status = 0
    sys.exit(status)
