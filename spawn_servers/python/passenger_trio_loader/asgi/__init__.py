"""The ASGI specification (HTTP, WebSocket and lifespan), on asyncio or on Trio, on the session protocol.

Reading order:

    on_asyncio.py, on_trio.py   asyncio and Trio behind one interface: the rest knows no other
    scope.py                    from the head of a request to a connection scope
    header_fields.py            header fields of a response as bytes
    session.py                  what an HTTP request and a WebSocket have in common: the application, and a response
    http_session.py, websocket_session.py    the two kinds
    stream.py                   a connection from the supervisor: frames in, one session after another
    lifespan.py                 the application's start-up and shutdown
    worker.py                   the socket, the streams, the sessions, the event loop around them
    interface.py                ASGI, as ``process.main`` sees it

Laws:

* The event loop runs in the main thread of a worker, never in a preloader. Each session is a task. A callback reads
  the stream, never the task that runs the application, so the end of the stream is always noticed.
* A frame is written whole even if the task that sends it is cancelled: the stream keeps what the kernel does not take
  at once. ``send`` waits until the kernel has it.
* A small response is one write. A chunk of a longer one is written before ``send`` returns, and then other tasks run.
* What breaks the contract closes its stream. It gets no answer, and the worker lives on.
* Nothing that the application raises ends the worker, not even ``sys.exit()`` in a request or in a task of its own.
* A session is complete on the wire when its last frame is written. What the application does after that (background
  tasks) delays no other request, only the end of the worker.
* When the client is gone, ``receive`` says so, and what is sent is dropped (HTTP specification, version 2.3). On Trio
  the application is cancelled.
* This package is imported after the application where WSGI was guessed. So it takes what applications replace from
  ``originals`` (gevent removes ``epoll``).
"""
