"""Bytes to values and back, without I/O.

A codec sees no clock, no randomness, no socket and no logger: the same bytes give the same values in whatever
pieces they come, and a test needs no event loop. The shells move the bytes.

What a client sends is read twice over, by readers that know nothing of each other. ``edge`` and ``chunked``
check each byte against the rules R1 to R20 as it comes in, and hand what they have passed to h11, which
frames it. In front of both stands ``lane``, which recognises the plain requests that most clients send and
whose meaning cannot be in doubt; it answers with the same ``Head`` or not at all. ``http1.ClientSide`` puts
the three together, one object a connection.
"""
