"""The hooks that the loader offers to applications: ``from passenger_trio_events import on_event``.

``passenger_trio_events`` is a module without a file, so an application finds it under this server only.
"""

import sys

from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import traceback_of

events = {"starting_worker_process": [], "stopping_worker_process": [], "oob_work": []}


def on_event(name, function=None):
    """For applications: ``from passenger_trio_events import on_event``, and then ``@on_event("starting_worker_process")``.

    ``starting_worker_process`` is called with one argument, whether the process was forked, before the process
    serves. It is the place to start threads and open connections. If it raises, the start has failed.
    ``stopping_worker_process`` is called without arguments after the last request, before the exit hooks.
    ``oob_work`` is called without arguments while the process gets no requests, some time after a response with the
    header ``X-Passenger-Request-OOB-Work``.

    :raises ValueError: unknown event.
    """
    if name not in events:
        raise ValueError("unknown event %r; known events: %s" % (name, ", ".join(sorted(events))))
    if function is None:
        return lambda function: on_event(name, function)
    events[name].append(function)
    return function


def call_event(name, *arguments):
    for function in events[name]:
        function(*arguments)


def do_oob_work():
    """Call the hooks for out-of-band work. What one raises is reported, and ends nothing."""
    for function in events["oob_work"]:
        try:
            function()
        except Leave:
            raise
        except Exception as error:
            write_stderr(traceback_of(error))


def offer_events():
    """Make ``passenger_trio_events`` importable."""
    module = type(sys)("passenger_trio_events", on_event.__doc__)
    module.on_event = on_event
    sys.modules[module.__name__] = module
