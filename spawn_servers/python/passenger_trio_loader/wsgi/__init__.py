"""PEP 3333, on the session protocol.

Reading order:

    head.py           from the head of a request to the environ
    input.py          wsgi.input
    file_wrapper.py   wsgi.file_wrapper
    response.py       one request and its response: start_response, and everything that is sent
    worker.py         the listener, the streams, the threads
    interrupting.py   raises an exception in a thread, to cancel its request
    interface.py      WSGI, as ``process.main`` sees it

Laws:

* A small session is one ``recv`` and one write. A thread that waits, waits in the kernel.
* What breaks the contract closes its stream. It gets no answer, and the worker lives on.
* ``close()`` of the application's iterable is called exactly once, on every path.
* Nothing that the application raises ends the worker, not even ``sys.exit()`` in a request.
"""
