"""The ASGI specification (HTTP, WebSocket and lifespan), on asyncio or on Trio, on the session protocol.

Reading order:

    on_asyncio.py, on_trio.py   what an event loop must do for us: the rest knows only these two
    scope.py                    the payload of a request head -> a connection scope
    header_fields.py            header fields of a response -> bytes
    session.py                  what an HTTP request and a WebSocket have in common: the application, and an HTTP response
    http_session.py, websocket_session.py    the two kinds
    stream.py                   a connection from the supervisor: frames in, one session after another
    lifespan.py                 the application's start-up and shutdown
    worker.py                   the socket, the streams, the sessions, the event loop around them
    interface.py                what the rest of the loader must know of ASGI

Laws:

* The event loop runs in the main thread of a worker, never in a preloader. Each session is a task of its own; what
  reads a stream, and so sees the end of it, is never the task that runs the application.
* A frame is written whole, even if the task that sends it is cancelled: what the kernel does not take at once belongs
  to the stream. ``send`` waits until the kernel has it.
* A small response costs one write. A chunk of a longer one is written before ``send`` returns, and other tasks have
  their turn then.
* Whatever arrives that is not in the contract ends its stream. It is never answered, and the worker lives.
* Nothing that the application raises ends the worker, ``sys.exit()`` in a request or in a task of its own included.
* A session is over on the wire when its last frame is written: what the application does behind that (background
  tasks) holds up no other request, only the end of the worker.
* When the client is gone, ``receive`` says so, and what is sent is dropped, as version 2.3 of the HTTP specification
  has it. On Trio the application is cancelled.
* Where WSGI was guessed this package is imported after the application: what applications replace (gevent has no
  ``epoll``) comes from ``originals``.
"""
