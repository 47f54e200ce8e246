"""The Python loader of passenger_trio: it runs inside the application's interpreter and serves the application to the supervisor.

``wsgi_loader.py`` and ``asgi_loader.py``, beside this folder, are the programs that the supervisor starts. They import
this package and call ``process.run``. The package keeps spawn_servers/CONTRACT.md: read that text first.

It runs on Python 3.8 and later, on the standard library alone, and imports nothing of the supervisor. (The Trio of the
application's environment is imported where the application is to run on it.)

Reading order:

    process.py               the life of a process, step by step: connect, load, (fork,) serve, end
    control_connection.py    lines of JSON between the supervisor and this process
    connection_watcher.py    the thread that watches this connection and the signals of the process
    stopping.py              the schedule of a stop; the last second
    at_fork.py               what a forked process must not keep of ours
    backtraces.py            the stacks of all threads and tasks, for a person who asks
    originals.py             the standard library as it was before the application was loaded
    events.py                hooks for applications
    interface.py             what WSGI and ASGI implement, and the files above call
    runtime.py, loading.py   from the supervisor's options to an application
    fresh_code.py            what was saved a moment ago is compiled, not taken from the interpreter's cache
    advice.py                from an exception during the start to advice for a person
    tracebacks.py            exceptions as text
    output.py                the application's standard output and standard error
    listener.py              a worker's listening socket
    session_frames.py        the frames of the session protocol
    wsgi/                    PEP 3333: head, input, response, worker
    asgi/                    the ASGI specification: event loops, scope, sessions, stream, lifespan, worker
    preloading/              a preloader: hazards, the loop that forks, what is reset after a fork

Laws:

* Everything is imported before the application is loaded, so its patches of ``socket`` or ``os`` do not reach us. The
  one exception is ``asgi`` after a wrong guess that the application is WSGI. ``preloading`` is imported in preloaders only.
* When the application is loaded, ``sys.path`` is its own. Python finds our modules by this package's path, and none of
  them has a name that could hide one of the application's.
* Only ``wsgi`` and ``asgi`` know of sessions. ``tests/test_layers.py`` keeps the order of imports.
"""
