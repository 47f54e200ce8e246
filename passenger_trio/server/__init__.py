"""Serving clients: one file for each stage of a request, in the order in which a request meets them.

``listen`` -> ``connection`` -> ``init_request`` -> ``buffer_body`` -> ``checkout_session`` -> ``send_request`` -> ``forward_response`` -> ``access_log``.

It knows the pool by ``checkout_nowait``, ``checkout``, a session's ``close`` and ``statistics``, and HTTP by ``codecs.http1``. It may never look
into a group, a process or the policy. One task serves one client connection; more tasks are started only for a request that outlasts ``PATIENCE``, that
waits in the queue, whose body is too large to hold, or whose client is slower than its application.
"""
