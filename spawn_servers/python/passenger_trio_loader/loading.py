"""From a file or a module's name to the application in it.

Laws:

* A file is loaded as the module that it is: under the name by which the application's other code imports it.
* Whatever the application's code raises passes through. ``advice`` explains it.
"""

import gc
import os
import sys
from os import listdir

from passenger_trio_loader.fresh_code import trust_no_new_bytecode
from passenger_trio_loader.interface import StartFailed


def load_application(options, interface):
    """Load the application.

    :returns: the application, and a name of it for people.
    :raises StartFailed: there is no application.
    :raises BaseException: whatever the application's code raises, ``SystemExit`` included.
    """
    trust_no_new_bytecode()
    with RareGarbageCollection():
        if options["entry_module"]:
            where = options["entry_module"]
            __import__(where)
            module = sys.modules[where]
        else:
            where = options["startup_file"]
            module = load_file(where, options["app_root"])
        name, found = find_entry(module, where, options, interface)
    return found, "%s:%s" % (module.__name__, name)


def wrap_application(application, interface):
    """The application, wrapped if a test harness asks for that: by ``wrap.py`` in the directory ``HARNESS_WRAPPER``.

    The harness can see what passes between an application and its loader only here.
    """
    directory = os.environ.get("HARNESS_WRAPPER")
    if not directory:
        return application
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("passenger_harness_wrap", os.path.join(directory, "wrap.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.wrap(application, interface.name.lower())


class RareGarbageCollection:
    """Collect garbage rarely during an import: nearly everything stays, and collecting takes a tenth of the time."""

    SELDOM = (50000, 10, 10)

    def __enter__(self):
        self.before = gc.get_threshold() if hasattr(gc, "set_threshold") else None  # PyPy has none
        if self.before is not None and self.before[0] != 0:
            gc.set_threshold(*self.SELDOM)

    def __exit__(self, kind, error, traceback):
        # Keep a threshold that the application has set.
        if self.before is not None and gc.get_threshold()[0] == self.SELDOM[0]:
            gc.set_threshold(*self.before)


def load_file(path, root):
    """Load a file as a module under its own name (``app.py`` in the root: ``app``), in ``sys.modules``.

    So pickle finds its classes again, multiprocessing works, and no second copy of it is imported.
    """
    from importlib.machinery import ModuleSpec, SourceFileLoader

    if not os.path.isfile(path):
        raise StartFailed(
            "configuration",
            "There is no file %s" % path,
            "The startup file of the application does not exist, or is not a file.",
            "The application's directory is %s. Check the name of the startup file. %s" % (root, what_is_in(root)),
        )
    name, directory = module_name(path, root)
    if directory not in sys.path:
        sys.path.insert(1, directory)

    class TheFile:
        """Finds this file for this name, so that a package of the same name beside it does not hide it."""

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
    """(the name of the module in a file, the directory from which it is imported under that name)."""
    directory, file = os.path.split(path)
    stem, extension = os.path.splitext(file)
    if extension != ".py":
        stem = file.replace(".", "_")  # app.wsgi: no import finds it. Any name without a dot will do.
    parts = [stem]
    if stem == "__init__":
        directory, package = os.path.split(directory)
        parts = [package]
    while directory != root and os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        parts.insert(0, package)
    name = ".".join(part.replace(".", "_") for part in parts)
    while name in sys.modules:
        name = "app_" + name  # select.py: others need the loaded module of that name
    return name, directory


def what_is_in(directory):
    try:
        files = sorted(name for name in listdir(directory) if name.endswith(".py"))
    except OSError as error:
        return "It cannot be read: %s." % error
    return "Python files in it: %s." % (", ".join(files[:20]) or "none")


def find_entry(module, where, options, interface):
    check = interface.check_application
    wanted = options["entry_object"]
    if wanted:
        found = module
        for part in wanted.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise no_entry("There is no object %r in %s" % (wanted, where), module)
        return wanted, check(found() if options["entry_is_factory"] else found, wanted, where)
    there = [name for name in ("application", "app") if hasattr(module, name)]
    for name in there:
        if callable(getattr(module, name)):
            return name, check(getattr(module, name), name, where)
    for name in ("create_app", "make_app"):
        factory = getattr(module, name, None)
        if callable(factory):
            return name + "()", check(factory(), name + "()", where)
    if there:
        return there[0], check(getattr(module, there[0]), there[0], where)
    raise no_entry("There is no %s application in %s" % (interface.name, where), module)


def no_entry(summary, module):
    names = [name for name in vars(module) if not name.startswith("_") and callable(getattr(module, name))]
    return StartFailed(
        "configuration",
        summary,
        "The module was loaded from %s, but it has no such object. "
        "The usual names are application and app, or create_app and make_app for a function that makes one."
        % getattr(module, "__file__", "somewhere"),
        "Name the object, as in module:object. What can be called in it: %s." % (", ".join(names[:30]) or "nothing"),
    )


def is_coroutine_function(found):
    """Whether calling it returns a coroutine. As ``inspect`` decides it, without its import, which takes 10 ms."""
    candidates = (found, getattr(found, "func", None), getattr(type(found), "__call__", None))
    flags = [getattr(getattr(candidate, "__code__", None), "co_flags", 0) for candidate in candidates]
    return any(flag & 0x80 for flag in flags)  # inspect.CO_COROUTINE
