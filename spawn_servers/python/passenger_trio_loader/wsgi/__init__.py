"""PEP 3333, on the session protocol.

Reading order:

    head.py           the payload of a request head -> environ
    input.py          wsgi.input
    file_wrapper.py   wsgi.file_wrapper
    response.py       start_response, and everything that goes out: one request and its response
    worker.py         the socket, the streams, the threads
    interrupting.py   raises an exception in a thread, to cancel its request
    interface.py      what the rest of the loader must know of WSGI

Laws:

* A small session costs one ``recv`` and one write. Nothing is polled: whoever waits, waits in the kernel.
* Whatever arrives that is not in the contract closes its stream. It is never answered, and the worker lives.
* ``close()`` of an application's iterable is called exactly once, on every path.
* Nothing that the application raises ends the worker, ``sys.exit()`` in a request included.
"""
