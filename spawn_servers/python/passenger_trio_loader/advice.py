"""From an exception during the start to advice for a person: what failed, why, and what to do about it."""

import os
import sys

from passenger_trio_loader.interface import StartFailed
from passenger_trio_loader.loading import what_is_in
from passenger_trio_loader.tracebacks import class_name, frames_of_application, message_of, traceback_of


def explain(error, options, interface):
    """The ``error`` message for an exception that was raised during the start."""
    if isinstance(error, StartFailed):
        return dict(error.message, type="error")
    version = sys.version.split()[0]
    kind = class_name(error)
    category = "application"
    summary = "The application raised %s: %s" % (kind, message_of(error))
    problem = "The exception was raised while the application was loaded. The traceback says where."
    solution = "Fix the application. It is started again with the next request, or when it is restarted."
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
            "Fix the line. If it is right for a later version of Python, choose that interpreter with --python: "
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
