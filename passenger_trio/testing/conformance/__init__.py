"""The checks of ``spawn_servers/CONTRACT.md``: a program that passes them can be a loader.

``check_spawn_server(subject)`` runs all. ``CHECKS`` has them one by one, so that a test names the clause that broke::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_contract(check, subject):
        check(subject)

``FakeSupervisor`` plays the supervisor. It is synchronous, uses the standard library only, and does not depend on ``spawning``. It
starts loaders, shakes hands, forks from preloaders, opens session streams, and ends everything that it started.

The checks need an application in the loader's language (``tests/apps/python/conformance`` is one). It answers at these paths,
and reads these environment variables.

=====================================  ==========================================================================
``/hello``                             200, one chunk ``hello``
``/meta``                              the lines ``NAME=VALUE`` of what the interface calls the request, as far as there (over HTTP: by the CGI names)
``/echo``                              the request body, read whole, then sent whole
``/deaf``                              ``deaf``; the request body is not read
``/chunks``                            three chunks ``one``, ``two``, ``three``, with no declared length
``/gate?PATH``                         a chunk ``one``; when the file PATH exists, a chunk ``two``
``/deaf-gate?PATH``                    ``deaf`` with its Content-Length, and no look at the body; it is done when the file PATH exists
``/endless?PATH``                      chunks of 1 000 bytes for ever; when it is closed, a line goes to the file PATH
``/large``                             one chunk of 20 000 000 bytes
``/raise``, ``/raise-late``            raises before the head; raises after a head and a chunk ``begun``
``/exit``                              calls the language's way to end a process in good order
``/nul``                               a header value with a NUL byte
``/short``, ``/long``                  declares a length of 10 and sends 5 bytes; of 5 and sends ``0123456789``
``/status?CODE``                       answers with CODE and a body ``body``
``/print?TEXT``                        prints TEXT as a line on standard output; ``printed``
``/sleep?SECONDS``, ``/spin?SECONDS``  sleeps, or computes, and answers ``done``
``/process``                           the lines ``pid``, ``loaded_by`` (pid when loaded), ``random`` (a number from the language's
                                       general generator), ``signals`` (those ignored), ``variables`` (names of the environment)
``CONFORMANCE_HOOK_FILE``              an exit hook appends the pid as a line to this file
``CONFORMANCE_START=raise``            raises while it is loaded; ``raise-long``: with a text of 200 000 characters;
                                       ``exit``: ends the process; ``sleep``: sleeps for a minute; ``thread``: starts a thread
``/ws-echo?PROTOCOL``                  accepts a WebSocket with that subprotocol (or none) and a field ``x-offered``: those that the client
                                       offers, joined with ``,``; sends back what it gets, but for the texts ``close CODE REASON``,
                                       ``raise``, ``return``, and ``too long`` (tries to send 16 MiB and a byte; ``refused``)
``/ws-note?PATH``                      accepts; at the end a line ``CODE REASON`` goes to the file PATH, and a message is sent
``/ws-refuse``, ``/ws-deny``           refuses the handshake; with 401, ``x-test: 1`` and a body ``who `` ``are you``
``/ws-raise``                          raises before it has answered the handshake
``/raw?PATH``, ``/full?PATH``          takes the connection over: behind a head of 101; without one, and then the response is ``HTTP/1.1 200 OK``
                                       and an empty line. Answers bytes in upper case till they end; then a line goes to the file PATH
=====================================  ==========================================================================
"""

from __future__ import annotations

from passenger_trio.testing.conformance.all_checks import CHECKS, check_spawn_server
from passenger_trio.testing.conformance.basis import ConformanceFailure, LoaderFailed, Message, eventually
from passenger_trio.testing.conformance.loader import Loader
from passenger_trio.testing.conformance.streams import Response, Stream, frame, pairs, request_head
from passenger_trio.testing.conformance.subject import Check, Stage, Subject
from passenger_trio.testing.conformance.supervisor import FakeSupervisor

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceFailure",
    "FakeSupervisor",
    "Loader",
    "LoaderFailed",
    "Message",
    "Response",
    "Stage",
    "Stream",
    "Subject",
    "check_spawn_server",
    "eventually",
    "frame",
    "pairs",
    "request_head",
]
