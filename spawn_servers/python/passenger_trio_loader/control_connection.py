"""The control connection: messages to and from the supervisor, one JSON object a line (CONTRACT.md, section 2).

Its laws: a write never raises, because the reader of the connection learns that the supervisor is gone. What does not
follow the contract counts as the end of the connection.
"""

import json
import socket
import struct
import sys
from os import close, getpid
from socket import AF_UNIX, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET
from socket import socket as Socket
from time import monotonic

from passenger_trio_loader.at_fork import belongings
from passenger_trio_loader.stopping import Leave

# Linux has it; PyPy has not the name.
MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)
CONTRACT = 1
MAX_LINE = 65536


class Hangup(Exception):
    """The control connection ended, or what came over it makes no sense."""


class Control:
    """Messages to and from the supervisor: one JSON object a line."""

    def __init__(self, path):
        """:raises OSError: nobody listens there."""
        self.socket = Socket(AF_UNIX)
        # An application may have set a default timeout by now (a forked worker connects after it was loaded).
        self.socket.settimeout(None)
        self.socket.connect(path)
        self.pending = []
        """Messages that came while nobody was there to act on them."""
        self.descriptors = []
        """Descriptors that came; each ``fork`` message brought one, in order."""
        self._partial = b""
        belongings.add(self)

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        belongings.discard(self)
        self.socket.close()
        for descriptor in self.descriptors:
            close(descriptor)
        self.descriptors.clear()

    def send(self, **message):
        try:
            self.socket.sendall(one_line(message))
        except OSError:
            pass  # The supervisor is gone. Whoever reads from this connection learns it there, and acts.

    def read(self):
        """Wait for messages: one or more, or none when only a part of a line came.

        :raises Hangup:
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(MAX_LINE, 256, MSG_CMSG_CLOEXEC)
        except OSError:
            raise Hangup
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                self.descriptors += struct.unpack("%di" % (len(payload) // 4), payload[: len(payload) // 4 * 4])
        *lines, self._partial = (self._partial + data).split(b"\n")
        if not data or len(self._partial) >= MAX_LINE:
            raise Hangup
        try:
            messages = [json.loads(line.decode()) for line in lines]
            return [message for message in messages if message["type"]]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise Hangup

    def has_ended(self):
        try:
            return not self.socket.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def greet(self, token, role):
        """Say hello; return the options.

        :raises Hangup:
        """
        version = sys.version.split()[0]
        if sys.implementation.name != "cpython":
            version += " (%s)" % sys.implementation.name
        self.send(
            type="hello", token=token, contract=CONTRACT, role=role, language="python", version=version, pid=getpid()
        )
        while True:
            self.pending += self.read()
            for at, message in enumerate(self.pending):
                if message["type"] == "options":
                    return self.pending.pop(at)


def one_line(message):
    """A message as a line. A long text is cut at its front: the end says what happened."""
    line = json.dumps(message).encode() + b"\n"
    while len(line) > MAX_LINE:
        name = max(message, key=lambda name: len(message[name]) if isinstance(message[name], str) else 0)
        text = message[name]
        # One character takes up to 12 bytes in JSON, so this may need a few rounds.
        message[name] = "[...]" + text[5 + max(64, min(len(line) - MAX_LINE, len(text) // 2)) :]
        line = json.dumps(message).encode() + b"\n"
    return line


class Step:
    """``with Step(control, "listen"):`` reports a step of the journey."""

    def __init__(self, control, name, begun=None):
        self.control = control
        self.name = name
        self.begun = begun

    def __enter__(self):
        if self.begun is None:
            self.begun = monotonic()
        self.control.send(type="step", name=self.name, state="in_progress")

    def __exit__(self, kind, error, traceback):
        if kind is not Leave:
            state = "performed" if error is None else "errored"
            duration = monotonic() - self.begun
            self.control.send(type="step", name=self.name, state=state, duration=duration)
