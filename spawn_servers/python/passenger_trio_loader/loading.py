"""From a file or a module's name to the application in it."""

import gc
import os
import sys
from os import listdir

from passenger_trio_loader.interface import Unfit


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
