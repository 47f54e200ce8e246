"""The Python loader of passenger_trio: it runs inside the application's interpreter and serves the application to the supervisor.

``wsgi_loader.py`` and ``asgi_loader.py``, beside this folder, are the programs that the supervisor starts. They import
this package and call ``process.run``. The package keeps spawn_servers/CONTRACT.md: read that text first.

It runs on Python 3.8 and later, on the standard library alone, and imports nothing of the supervisor. (The Trio of the
application's environment is imported where the application is to run on it.)

Reading order:

    process.py               the order of everything: connect, load, serve, end
    control_connection.py    lines of JSON between the supervisor and this process
    death_pipe.py            the thread that watches that connection, and the signals of the process
    stopping.py              how the time for a stop is divided; the last second
    at_fork.py               what a process that is forked from this one must not keep
    originals.py             what is bound before the application can replace it
    events.py                what applications may call
    runtime.py, loading.py   from the supervisor's options to an application
    advice.py                from an exception to what a person is told
    tracebacks.py, output.py
    interface.py             what an interface (WSGI, ASGI) tells the rest
    listener.py              a worker's socket
    session_frames.py        the frames of the session protocol
    wsgi/                    PEP 3333: head, input, response, worker
    asgi/                    the ASGI specification: event loops, scope, sessions, stream, lifespan, worker
    preloading/              a preloader: what it looks at before a fork, the loop that forks, what it renews behind it

Laws:

* Everything is imported before the application is loaded. (Two exceptions: ``preloading`` only in a preloader, and
  ``asgi`` behind a WSGI guess that was wrong.) What applications replace in ``socket`` or ``os`` does not reach us.
* ``sys.path`` is the application's own when it is loaded. Our modules are submodules of this package: Python finds
  them by the package's path, and no name of theirs hides one of the application's.
* No file but those of ``wsgi`` and ``asgi`` knows of sessions.
"""
