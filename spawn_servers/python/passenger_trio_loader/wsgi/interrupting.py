"""Raises an exception in another thread, to cancel the request that it serves.

``ctypes`` is loaded with this module: before the application is loaded, in a worker that has threads, and in no other.
When a request is cancelled there may be no descriptor left to load it with (fault 34).
"""

from passenger_trio_loader.output import write_stderr

try:
    from ctypes import c_ulong, py_object, pythonapi

    set_exception = pythonapi.PyThreadState_SetAsyncExc
except (ImportError, AttributeError):  # An interpreter without ctypes, or without this function: PyPy.
    set_exception = None


def raise_in(threads, kind):
    """Raise an exception in threads. Each thread sees it when it next runs Python code."""
    if set_exception is None:
        write_stderr("passenger_trio: threads cannot be interrupted by this interpreter\n")
        return
    for thread in threads:
        if thread.is_alive():
            set_exception(c_ulong(thread.ident), py_object(kind))
