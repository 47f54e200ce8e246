"""What applications may call: ``from passenger_trio_events import on_event``.

That module is no file. Under another server an application does not find it.
"""

import sys

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
