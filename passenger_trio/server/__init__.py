"""The path of a request through ``server/``: read ``REQUEST_PATH`` from top to bottom. A test holds each name, and their order, to the code.

Rooms: ``listening`` accepts; ``http`` has a connection's state (``client``, ``exchange``), the stages, and their driver (``connection``); ``spill`` buffers past
memory; ``upgraded`` is what stays open; ``answers`` are responses of our own; ``logs`` is the access log. ``front`` is what all connections share; ``mounts``
finds the application. What may import what is in ``tests/test_layers.py``.

``server/`` uses of the pool only what ``pool/seam`` lists; never a group or the policy (ARCHITECTURE.md, the pool seam).
"""

__all__ = ["REQUEST_PATH"]

REQUEST_PATH = (
    # One connection, one task. The task sleeps while the fast path serves its requests.
    "listening.listener.Listener.run",  # accept a connection; up to the ceiling of ``core/descriptors.py``
    "http.connection.Connection.run",  # its requests in turn; what comes after the deadline of a stage
    "http.fast_path.FastPath.run",  # the way of most requests: the stages below, without waking a task
    "http.fast_path.FastPath.on_readable",  # bytes of the client: ``codecs/http1.py`` makes a ``Head`` of them
    # The stages. A request that is not plain, or takes long, goes on with the next of them on the slow path.
    "http.init_request.init_request",  # who asks, for which application: an ``Exchange``
    "http.buffer_body.take_body_nowait",  # fast path: the body is here already
    "http.connection.Connection._finish_on_slow_path",
    "http.buffer_body.buffer_body",  # read the body before a process is borrowed: in memory, then in a file
    "http.checkout_session.checkout_session",  # borrow a process, or wait in the pool's queue
    "http.send_request.try_process",  # give it the request, or try another process
    "http.send_request.send_request",  # both paths: head and body in one write
    "http.forward_response.forward_response",  # judge what is wrong with a response, once; send safe requests again
    "http.response_forwarder.forward_in_pieces",  # process to client, through a buffer if the client is slower
    "http.send_body.send_body",  # beside the response: the rest of the body
    # Behind a response that upgrades the connection.
    "upgraded.websocket.WebSocket.run",
    "upgraded.relay.Relay.run",
    # Instead of a response.
    "answers.answer_health.answer_health",  # --health-path: of no application
    "http.endings.refuse",  # 4xx: the connection ends
    "http.endings.cut_short",  # the response cannot be finished, and must not look whole
    "answers.answer_errors.answer",  # 5xx: no process, or the application failed
    # After it.
    "logs.records.exchange_record",
    "logs.access_log.AccessLog.record",
    "http.endings.linger",  # the connection ends: let the client read the last response
)
