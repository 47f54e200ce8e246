"""Serving clients: one file for each stage of a request, in the order in which a request meets them.

``listening.listener`` -> ``http.connection`` -> ``http.init_request`` -> ``http.buffer_body`` -> ``http.checkout_session`` -> ``http.send_request`` -> ``http.forward_response``
-> ``logs.access_log``. What is plain goes all the way in ``http.fast_path``.

It knows the pool by ``checkout_or_queue``, a place's ``wait``, a session's ``close`` and ``statistics``, and HTTP by ``codecs.http1``. It may never look
into a group, a process or the policy. One task serves one client connection, and sleeps while the fast lane does; more tasks are started only for a request that outlasts ``PATIENCE``, that
waits in the queue, whose body is too large to hold, or whose client is slower than its application.
"""
