"""Exit hooks of the application, and which of them remove what other processes use.

A hook that removes files or ends processes runs only in the process that registered it. Every other hook runs in each
process: a log is flushed by each. A hook is judged by its name and by the names in its code.
"""

import atexit
import sys
from os import getpid

REMOVERS = {
    "_cleanup", "cleanup", "kill", "killpg", "removedirs", "rmdir", "rmtree", "send_signal", "terminate", "unlink",
}  # fmt: skip
"""Names of functions and methods that remove files or end processes."""
OWN_OF_EACH = ("concurrent.futures.", "logging", "multiprocessing.", "threading", "weakref")
"""Modules whose hooks run in each process. ``after_fork`` resets what these modules inherit."""


class ExitHooks:
    """Records the removing hooks that the application registers while it is loaded.

    Such a hook runs in the process that registered it, and in no process that was forked from it.
    """

    def __init__(self):
        self._removing = []
        self._register = atexit.register
        atexit.register = self._register_hook

    def stop_recording(self):
        """Put ``atexit.register`` back. Hooks that are registered from now on run in the process that registers them."""
        if atexit.register == self._register_hook:
            atexit.register = self._register

    def removing_hooks(self):
        found = [describe_hook(hook.function) for hook in self._removing if not hook.gone]
        return found + [describe_hook(info.func, info.args) for _, info in removing_finalizers()]

    def _register_hook(self, function, *arguments, **keywords):
        if removes(function):
            hook = HookOfOneProcess(function)
            self._removing.append(hook)
            self._register(hook, *arguments, **keywords)
        else:
            self._register(function, *arguments, **keywords)
        return function


class HookOfOneProcess:
    """A hook that runs in the process that registered it, and nowhere else. Equals its function, for ``atexit.unregister``."""

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
    """Whether a hook removes files or ends processes, judged by its name and by the names in its code."""
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
    """(finalizer, its record) of each ``weakref.finalize`` that removes something. ``TemporaryDirectory`` has one."""
    finalize = getattr(sys.modules.get("weakref"), "finalize", None)
    found = []
    for finalizer, info in list(getattr(finalize, "_registry", {}).items()):
        if getattr(info, "atexit", False) and removes(info.func):
            found.append((finalizer, info))
    return found
