"""Bytes to values and values to bytes, without I/O.

A codec has no clock, no randomness, no socket and no logger. The same bytes give the same values, however
they are split into reads, so a test needs no event loop. The server moves the bytes.

Two independent readers check every request of a client. ``strict_request`` and ``chunked`` check each byte against
rules R1 to R20 as it arrives, then pass it on to h11, which does the framing. ``plain_request`` is tried
first: it parses the plain requests that most clients send. It returns the same ``Head`` as the other two
readers would, or nothing. ``http1.ClientSide`` combines the three, with one object per connection.
"""
