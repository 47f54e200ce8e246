"""The path of a request through ``server/``: read ``REQUEST_PATH`` from top to bottom. A test holds each name, and their order, to the code.

Each line names the files outside of ``server/`` to open at that step. A leaf need not be opened unless the call leaves you in doubt, nor what the named files call.
Three calls go upwards: ``system/poller`` calls ``on_readable`` and ``on_response``; ``Session.close`` calls ``Checkouts.session_closed``.

Rooms: ``listening`` accepts; ``http`` has a connection's state (``client``, ``exchange``), the stages, and their driver (``connection``); ``spill`` buffers past
memory; ``upgraded`` is what stays open; ``answers`` are responses of our own; ``logs`` is the access log. ``front`` is what all connections share; ``mounts``
finds the application. ``tests/test_layers.py`` says what may import what. Of the pool ``server/`` uses what ``pool/interface`` lists, never a group or the policy.
"""

__all__ = ["REQUEST_PATH"]

REQUEST_PATH = (
    # One connection, one task. The task sleeps while the fast path serves its requests.
    "listening.listener.Listener.run",  # accept a connection, and start its task
    "http.connection.Connection.run",  # its requests in turn (its state: ``http/client``); what comes after the deadline of a stage
    # The fast path: most requests, in callbacks of the poller and of the pool.
    "http.fast_path.FastPath.run",  # the task sleeps in here
    "http.fast_path.FastPath.on_readable",  # the client has sent bytes; leaf: system/poller
    "http.fast_path.FastPath._next_request",  # where every request begins, with its ``Head``: codecs/http1; leaf: codecs/plain_request
    "http.init_request.init_request",  # who asks, for which application: an ``Exchange`` (``http/exchange``)
    "http.buffer_body.take_body_nowait",  # only if the request has one: the body, if it is here already
    "http.fast_path.FastPath._check_out",  # borrow a process: pool/checkouts (several fronts: fronts/leased_pool), core/borrowing. Or wait for ``on_granted``. Leaf: core/recorder
    "http.send_request.send_request",  # both paths: head and body in one write: pool/session; leaves: codecs/worker_protocol, codecs/session_protocol
    "http.fast_path.FastPath.on_response",  # the process has answered: the whole response in one read
    "http.fast_path.FastPath._send_response",  # give the process back (pool/session, then again pool/checkouts and core/borrowing: ``session_closed``), then answer the client: codecs/plain_message. Leaves: codecs/response_head, codecs/response_framing
    "http.client.Client.log",  # both paths: count the request (leaf: core/metric_counts), and record it (below). ``_next_request`` goes on
    # The slow path: what the fast path does not do, or what takes long, goes on where the fast path has stopped.
    "http.fast_path.FastPath._leave_to_slow_path",  # wakes the task
    "http.connection.Connection._finish_on_slow_path",  # the steps below, in this order
    "http.buffer_body.buffer_body",  # read the body before a process is borrowed: in memory, then in a file
    "http.checkout_session.checkout_session",  # borrow a process, or wait in the pool's queue
    "http.send_request.try_process",  # give it the request (``send_request``), or try another process
    "http.forward_response.forward_response",  # judge what is wrong with a response, once; send safe requests again
    "http.response_forwarder.forward_in_pieces",  # process to client, event by event (``response_events``), in callbacks of the poller while the client keeps up (``pass_through``), through a buffer if it is slower
    "http.send_body.send_body",  # beside the response: the rest of the body
    "upgraded.websocket.WebSocket.run",  # instead of the rest of the response, if it upgrades the connection
    "upgraded.relay.Relay.run",  # the same, for an application that has taken the connection over
    "http.connection.Connection._finish",  # ``Client.log``; then the fast path goes on with the next request
    # Instead of a response: --health-path; 4xx; a response that cannot be finished, and must not look whole; 5xx.
    "answers.answer_health.answer_health",
    "http.end_connection.refuse",
    "http.end_connection.cut_short",
    "http.end_connection.cut_off",  # the server ends first
    "answers.answer_errors.answer",
    # After every response: the first two. At the end of a connection: ``linger``, so that the client can read the last response.
    "logs.access_record.exchange_record",
    "logs.access_log.AccessLog.record",
    "http.end_connection.linger",
)
