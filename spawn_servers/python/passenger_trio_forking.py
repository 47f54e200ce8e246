"""What an application holds when it has been loaded, and whether its processes can be forked.

Imported by passenger_trio_loader.py, from beside it, in preloaders only, and before the application is loaded. It
knows processes and Python's libraries, and nothing of the supervisor: what it finds is told by its caller.

A fork copies memory and one thread, and shares every open descriptor. So what an application may hold is of three kinds:

* what can be put right before the fork (a database connection of Django's that is closed opens again where it is
  used) or after it (random numbers, the loop of asyncio that nobody runs yet);
* what forked processes may share: files, the sockets of ``logging`` that only send datagrams, the resource tracker of
  multiprocessing, the threads of OpenBLAS, which sees to forks itself;
* the rest, which is a *hazard*: its like is told to the supervisor, which decides.

Laws:

* To look is cheap: a listing of two directories of /proc, and only of what was found more than that.
* What cannot be understood is a hazard. What cannot be put right is left as it is, and so found.
* An exit hook that removes files or ends processes belongs to the process that registered it. In no other is it run.
  Every other hook is run in each process (a log is flushed by each).
"""

import atexit
import os
import stat
import sys
from os import fstat, getpid, listdir, readlink
from select import select
from socket import AF_INET, AF_INET6, AF_UNIX, SO_ACCEPTCONN, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from socket import socket as Socket

MOST_FOUND = 20
"""Hazards that are told of. Who holds so many holds more."""
SETTLE_TIME = 0.05
"""Seconds for threads and processes that are about to end."""

KINDS_OF_DESCRIPTORS = {"eventpoll": "epoll", "inotify": "inotify"}
"""What the kernel calls anonymous inodes -> kind of the hazard; any other: ``descriptor``."""
HARMLESS_INODES = ("pidfd",)
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
"""Their drivers do not survive a fork."""
THREADS_THAT_KNOW_FORKS = ("jemalloc_bg_thd",)


class Holdings:
    """What the process holds more than at the moment in which this was made."""

    def __init__(self):
        self._descriptors = descriptors()
        self._tasks = tasks()
        self.hooks = ExitHooks()

    def put_right(self):
        """Close what opens again by itself, in the process that uses it. Whatever goes wrong here is found by ``hazards``."""
        for put_right in (close_of_django, dispose_of_sqlalchemy, close_of_logging):
            try:
                put_right(self)
            except Exception as error:
                sys.stderr.write("passenger_trio: %s: %s: %s\n" % (put_right.__name__, type(error).__name__, error))

    def has_sockets(self):
        return any(stat.S_ISSOCK(mode) for mode, _ in self._new_descriptors().values())

    def hazards(self):
        """What must not be shared by processes: a list of ``{"kind": K, "what": TEXT}``.

        What is about to end (the thread of a pool that was left a moment ago) is given a moment.
        """
        found = self._look()
        if any(hazard["kind"] in ("thread", "process") for hazard in found):
            select([], [], [], SETTLE_TIME)
            found = self._look()
        return found[:MOST_FOUND]

    def _look(self):
        found = [{"kind": "thread", "what": what} for what in self._threads()]
        found += [{"kind": "process", "what": what} for what in child_processes()]
        known = harmless_descriptors()
        of_gevent = 1 if gevent_hub() is not None else 0
        for number, (mode, target) in sorted(self._new_descriptors().items()):
            if target == "anon_inode:[eventfd]" and of_gevent:
                of_gevent -= 1  # with which its loop wakes itself
            elif number not in known:
                hazard = judge_descriptor(number, mode, target)
                if hazard:
                    found.append({"kind": hazard[0], "what": hazard[1]})
        found += [{"kind": "exit_hook", "what": what} for what in self.hooks.removing()]
        return found

    def _new_descriptors(self):
        return {number: what for number, what in descriptors().items() if self._descriptors.get(number) != what}

    def _threads(self):
        new = tasks() - self._tasks
        if not new:
            return []
        threading = sys.modules.get("threading")
        named = {}
        for thread in list(getattr(threading, "_active", {}).values()):
            named[str(getattr(thread, "native_id", ""))] = thread
        found, nameless = [], []
        own = name_of_task(getpid())
        for task in sorted(new, key=int):
            name = name_of_task(task)
            if task in named:
                found.append(describe_thread(named[task]))
            elif name == own:
                nameless.append(task)
            elif name is not None and name not in THREADS_THAT_KNOW_FORKS:
                found.append("a thread that is not Python's (%s)" % name)
        # OpenBLAS ends its threads before a fork, and starts new ones after it. They bear no name.
        if len(nameless) > threads_of_openblas():
            found.append("%d threads that are not Python's" % len(nameless))
        return found


# ------------------------------------------------------------------------------------------------------------
# Looking


def tasks():
    try:
        return set(listdir("/proc/self/task"))
    except OSError:
        return set()


def name_of_task(task):
    """None: it has ended."""
    try:
        with open("/proc/self/task/%s/comm" % task, "rb") as comm:
            return comm.read().strip().decode("utf-8", "replace")
    except OSError:
        return None


def describe_thread(thread):
    target = getattr(thread, "_target", None)
    kind = type(thread)
    place = getattr(target, "__module__", None) if kind.__module__ == "threading" else kind.__module__
    return "the thread %s%s" % (thread.name, " (of %s)" % place if place else "")


def threads_of_openblas():
    """How many threads it may have: each of its copies (NumPy's, SciPy's) one for each processor but one."""
    copies = set()
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                if b"openblas" in line:
                    copies.add(line.split(None, 5)[-1])
    except OSError:
        pass
    return len(copies) * ((os.cpu_count() or 1) - 1)


def descriptors():
    """Number -> (mode, what it is) of all that are open, but for plain files."""
    found = {}
    try:
        numbers = listdir("/proc/self/fd")
    except OSError:
        return found
    for number in numbers:
        try:
            mode = fstat(int(number)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found[int(number)] = (mode, readlink("/proc/self/fd/" + number))
        except OSError:
            pass  # It was the listing's own.
    return found


def judge_descriptor(number, mode, target):
    """(kind, what) of a hazard, or None."""
    if stat.S_ISSOCK(mode):
        return "socket", describe_socket(number)
    if stat.S_ISFIFO(mode):
        return "pipe", "a pipe (descriptor %d)" % number if target.startswith("pipe:") else "the pipe %s" % target
    if target.startswith("anon_inode:"):
        name = target[len("anon_inode:") :].strip("[]")
        if name in HARMLESS_INODES:
            return None
        kind = KINDS_OF_DESCRIPTORS.get(name, "descriptor")
        return kind, "%s %s descriptor (%d)" % ("an" if kind in ("epoll", "inotify") else "the", name, number)
    if target.startswith(DEVICES):
        return "descriptor", "the device %s" % target
    return None


def describe_socket(number):
    bare = Socket(fileno=number)
    try:
        if bare.type & 15 == SOCK_STREAM and bare.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
            return "a socket that listens on %s" % shown_address(bare.getsockname())
        kind = "Unix" if bare.family == AF_UNIX else "UDP" if bare.type & 15 == SOCK_DGRAM else "TCP"
        if bare.family not in (AF_UNIX, AF_INET, AF_INET6):
            kind = "special"
        try:
            peer = shown_address(bare.getpeername())
        except OSError:
            return "a %s socket (descriptor %d)" % (kind, number)
        return "a %s connection to %s" % (kind, peer) if peer else "one of two connected %s sockets" % kind
    except OSError:
        return "a socket (descriptor %d)" % number
    finally:
        bare.detach()


def shown_address(address):
    if isinstance(address, tuple) and len(address) >= 2:
        return ("[%s]:%s" if ":" in str(address[0]) else "%s:%s") % address[:2]
    if isinstance(address, bytes):
        address = "@" + address.strip(b"\0").decode("utf-8", "replace")
    return str(address)


def child_processes():
    """Descriptions of the processes that the application has started and that live, but for the resource tracker."""
    pids = []
    for task in tasks():
        try:
            with open("/proc/self/task/%s/children" % task, "rb") as children:
                pids += children.read().split()
        except OSError:
            pass
    tracker = getattr(resource_tracker(), "_pid", None)
    found = []
    for pid in sorted(map(int, pids)):
        try:
            with open("/proc/%d/stat" % pid, "rb") as state:
                if state.read().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    continue
            with open("/proc/%d/cmdline" % pid, "rb") as command:
                words = command.read().replace(b"\0", b" ").strip().decode("utf-8", "replace")
        except OSError:
            continue
        if pid != tracker:
            found.append("the process %d (%s)" % (pid, words[:80]))
    return found


def resource_tracker():
    return getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)


def harmless_descriptors():
    """Numbers of those that forked processes may share, or that are made anew in each of them."""
    found = set()
    tracker = getattr(resource_tracker(), "_fd", None)
    if tracker is not None:
        found.add(tracker)  # Each message is one write.
    logging = sys.modules.get("logging")
    for reference in list(getattr(logging, "_handlerList", ())):
        handler = reference() if callable(reference) else reference
        for name in ("sock", "socket"):
            bare = getattr(handler, name, None)
            if isinstance(bare, Socket) and bare.type & 15 == SOCK_DGRAM:
                found.add(bare.fileno())  # Syslog: each message is a datagram, and nothing is read.
    loop = idle_loop()
    if loop is not None:
        found.update((loop._selector.fileno(), loop._ssock.fileno(), loop._csock.fileno()))
    for hub in green_hubs():
        found.add(hub)
    return found


def green_hubs():
    """Epoll descriptors of gevent's and eventlet's hubs, which ``renew`` makes anew."""
    try:
        hubs = sys.modules.get("eventlet.hubs")
        hub = getattr(getattr(hubs, "_threadlocal", None), "hub", None)
        # A new one knows nothing of what waits in the old.
        if hub is not None and not (hub.timers or hub.next_timers or any(hub.listeners.values())):
            yield hub.poll.fileno()
    except Exception:
        pass
    try:
        hub = gevent_hub()
        if hub is not None:
            yield hub.loop.fileno()
    except Exception:
        pass


def gevent_hub():
    local = sys.modules.get("gevent._hub_local")
    return local.get_hub_if_exists() if local is not None else None


def idle_loop():
    """The event loop of asyncio that the application has made, if it is one of asyncio's own and watches nothing yet."""
    events = sys.modules.get("asyncio.events")
    if events is None:
        return None
    try:
        policy = events._event_loop_policy
        loop = policy._local._loop
        if loop is None or loop.is_closed() or loop.is_running() or loop._internal_fds != 1:
            return None
        if len(loop._selector.get_map()) != 1 or not type(loop).__module__.startswith("asyncio."):
            return None
        return loop
    except (AttributeError, RuntimeError, ValueError, TypeError):
        return None


# ------------------------------------------------------------------------------------------------------------
# Putting right, before the fork


def close_of_django(holdings):
    """Connections of databases and caches: each is opened where it is used."""
    db = sys.modules.get("django.db")
    conf = sys.modules.get("django.conf")
    if db is None or conf is None or not conf.settings.configured:
        return
    for alias in db.connections:
        connection = getattr(db.connections._connections, alias, None)
        if connection is not None:
            connection.close()
            close_pool = getattr(connection, "close_pool", None)  # Django 5.1: psycopg's, which has threads
            if close_pool is not None:
                close_pool()
    cache = sys.modules.get("django.core.cache")
    if cache is not None and hasattr(cache, "close_caches"):
        cache.close_caches()


def dispose_of_sqlalchemy(holdings):
    """Connections that wait in the pools of engines. One that is in use by a session is not touched, and so found."""
    base = sys.modules.get("sqlalchemy.engine.base")
    if base is None or not holdings.has_sockets():
        return
    import gc

    for found in gc.get_objects():
        if type(found) is base.Engine and found.dialect.name != "sqlite":  # in memory, a connection is the database
            found.dispose()


def close_of_logging(holdings):
    """Handlers that log to a stream: they connect again with the next record."""
    handlers = sys.modules.get("logging.handlers")
    if handlers is None:
        return
    for reference in list(sys.modules["logging"]._handlerList):
        handler = reference() if callable(reference) else reference
        if isinstance(handler, handlers.SocketHandler) and handler.sock is not None:
            handler.acquire()
            try:
                handler.sock.close()
                handler.sock = None
            finally:
                handler.release()


# ------------------------------------------------------------------------------------------------------------
# Exit hooks

REMOVERS = {
    "_cleanup", "cleanup", "kill", "killpg", "removedirs", "rmdir", "rmtree", "send_signal", "terminate", "unlink",
}  # fmt: skip
"""What functions and methods are called that remove files and directories, or end processes."""
OWN_OF_EACH = ("concurrent.futures.", "logging", "multiprocessing.", "threading", "weakref")
"""Modules whose hooks are for each process; what they inherit is seen to in ``renew``."""


class ExitHooks:
    """Which of the hooks that the application registers while it is loaded remove what others use.

    Such a hook is run in the process that registered it, and in none that was forked from it.
    """

    def __init__(self):
        self._removing = []
        self._register = atexit.register
        atexit.register = self._note

    def loaded(self):
        """The application has been loaded: what is registered from here on belongs to the process it is registered in."""
        if atexit.register == self._note:
            atexit.register = self._register

    def removing(self):
        found = [describe_hook(hook.function) for hook in self._removing if not hook.gone]
        return found + [describe_hook(info.func, info.args) for _, info in removing_finalizers()]

    def _note(self, function, *arguments, **keywords):
        if removes(function):
            hook = OwnHook(function)
            self._removing.append(hook)
            self._register(hook, *arguments, **keywords)
        else:
            self._register(function, *arguments, **keywords)
        return function


class OwnHook:
    """Runs in its own process only. ``atexit.unregister`` takes it for the function itself."""

    def __init__(self, function):
        self.function = function
        self.process = getpid()
        self.gone = False

    def __call__(self, *arguments, **keywords):
        if getpid() == self.process:
            self.function(*arguments, **keywords)

    def __eq__(self, other):
        same = other is self or other == self.function
        self.gone = self.gone or same  # Only ``atexit.unregister`` compares.
        return same

    __hash__ = None


def removes(function):
    """Whether a hook removes files or ends processes, as far as its name, or its code, says so."""
    for _ in range(5):
        function = getattr(function, "func", getattr(function, "__func__", function))  # partial, bound method
    module = getattr(function, "__module__", None) or ""
    if (module + ".").startswith(OWN_OF_EACH):
        return False
    name = getattr(function, "__name__", "")
    if name in REMOVERS or (name == "remove" and module in ("posix", "os")):
        return True
    code = getattr(function, "__code__", None)
    return code is not None and code_removes(code)


def code_removes(code):
    names = set(code.co_names)
    if names & REMOVERS or ("remove" in names and names & {"os", "_os"}):
        return True
    return any(code_removes(inner) for inner in code.co_consts if isinstance(inner, type(code)))


def describe_hook(function, arguments=()):
    for _ in range(5):
        function = getattr(function, "func", function)
    name = getattr(function, "__qualname__", type(function).__name__)
    module = getattr(function, "__module__", None)
    what = "the exit hook %s%s" % (module + "." if module and module != "builtins" else "", name)
    if arguments and isinstance(arguments[0], str):
        what += " for %s" % arguments[0]
    return what


def removing_finalizers():
    """(finalizer, its facts) of those that remove something: ``TemporaryDirectory`` has one."""
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    found = []
    for finalizer, info in list(getattr(finalize, "_registry", {}).items()):
        if getattr(info, "atexit", False) and removes(info.func):
            found.append((finalizer, info))
    return found


# ------------------------------------------------------------------------------------------------------------
# In a forked worker


def renew():
    """What each process has of its own: called in a worker, right after the fork."""
    for one in (disown_finalizers, disown_temporary_files, disown_processes, renew_loop, renew_hubs, reseed):
        try:
            one()
        except Exception as error:
            sys.stderr.write("passenger_trio: %s: %s: %s\n" % (one.__name__, type(error).__name__, error))


def disown_finalizers():
    for finalizer, _ in removing_finalizers():
        finalizer.detach()


def disown_temporary_files():
    """A ``NamedTemporaryFile`` is removed by the process that made it: in another, its end is not the file's."""
    closer = getattr(sys.modules.get("tempfile"), "_TemporaryFileCloser", None)
    if closer is None:
        return
    made = closer.__init__

    def init(self, *arguments, **keywords):
        made(self, *arguments, **keywords)
        self.made_in = getpid()

    def guarded(method):
        def guard(self, *arguments, **keywords):
            if getattr(self, "made_in", None) != getpid():
                self.delete = False
            return method(self, *arguments, **keywords)

        return guard

    closer.__init__ = init
    for name in ("cleanup", "close"):
        if name in vars(closer):
            setattr(closer, name, guarded(vars(closer)[name]))


def disown_processes():
    """As multiprocessing does it in its own children: those of the parent are not ours to end, or to wait for."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None:
        util._finalizer_registry.clear()
        process._children = set()
        util._run_after_forkers()


def renew_loop():
    """What it waits with was shared with the siblings, who would hear what was meant for us."""
    loop = idle_loop()
    if loop is None:
        return
    selector = type(loop._selector)
    loop._selector.close()
    loop._ssock.close()
    loop._csock.close()
    loop._internal_fds = 0
    loop._selector = selector()
    loop._make_self_pipe()


def renew_hubs():
    """As gevent's and eventlet's own ``fork`` does it."""
    gevent = sys.modules.get("gevent.hub")
    if gevent is not None:
        gevent.reinit()
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is not None and getattr(hubs._threadlocal, "hub", None) is not None:
        hubs.use_hub()


def reseed():
    """Two workers must not draw the same numbers.

    ``random`` sees to its own generator when the process forks, and so does OpenSSL (1.1.1, below every Python
    since 3.8, knows of forks); ``secrets`` and ``uuid4`` ask the kernel. NumPy's global generator does not.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
