"""The control connection: messages to and from the supervisor, one JSON object a line (CONTRACT.md, section 2).

Laws:

* ``send`` never raises. The thread that reads from the connection sees the supervisor's end, and acts.
* A message that breaks the contract counts as the end of the connection.
"""

import json
import socket
import struct
import sys
from os import close, getpid
from socket import AF_UNIX, MSG_DONTWAIT, MSG_PEEK, SCM_RIGHTS, SOL_SOCKET
from socket import socket as Socket
from time import monotonic

from passenger_trio_loader.at_fork import own_descriptors
from passenger_trio_loader.backtraces import BACKTRACE_SIGNAL
from passenger_trio_loader.stopping import Leave

# Linux has it; PyPy has not the name.
MSG_CMSG_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)
CONTRACT = 1
MAX_LINE = 65536


class ControlEnded(Exception):
    """The control connection has ended, or a message broke the contract."""


class ControlConnection:
    """Messages to and from the supervisor: one JSON object a line."""

    def __init__(self, path):
        """:raises OSError: nobody listens on this path."""
        self.socket = Socket(AF_UNIX)
        # A forked worker connects after the application was loaded, which may have set a default timeout.
        self.socket.settimeout(None)
        self.socket.connect(path)
        self.pending = []
        """Messages that arrived with the options. The next reader of the connection takes them first."""
        self.descriptors = []
        """Descriptors that arrived. Each ``fork`` message brings one, in the same order."""
        self._partial = b""
        own_descriptors.add(self)

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        own_descriptors.discard(self)
        self.socket.close()
        for descriptor in self.descriptors:
            close(descriptor)
        self.descriptors.clear()

    def send(self, **message):
        """:returns: whether the supervisor can read it."""
        try:
            self.socket.sendall(encode_line(message))
        except OSError:
            return False  # The supervisor is gone: ``read`` says so.
        return True

    def answer_backtrace(self, message, text):
        """Answer a ``backtrace`` message."""
        self.send(type="backtrace", id=message.get("id"), text=text)

    def read(self):
        """Wait for data. Return the messages that are complete now, possibly none.

        :raises ControlEnded: the supervisor is gone, or broke the contract.
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(MAX_LINE, 256, MSG_CMSG_CLOEXEC)
        except OSError:
            raise ControlEnded
        for level, kind, payload in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS:
                self.descriptors += struct.unpack("%di" % (len(payload) // 4), payload[: len(payload) // 4 * 4])
        *lines, self._partial = (self._partial + data).split(b"\n")
        if not data or len(self._partial) >= MAX_LINE:
            raise ControlEnded
        try:
            messages = [json.loads(line.decode()) for line in lines]
            return [message for message in messages if message["type"]]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ControlEnded

    def has_ended(self):
        """Whether the supervisor has closed the connection. Never waits."""
        try:
            return not self.socket.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def handshake(self, token, role):
        """Send ``hello``, wait for ``options``, and return them.

        :raises ControlEnded: the supervisor is gone, or broke the contract.
        """
        version = sys.version.split()[0]
        if sys.implementation.name != "cpython":
            version += " (%s)" % sys.implementation.name
        self.send(
            type="hello",
            token=token,
            contract=CONTRACT,
            role=role,
            language="python",
            version=version,
            pid=getpid(),
            backtrace_signal=BACKTRACE_SIGNAL,
        )
        while True:
            self.pending += self.read()
            for at, message in enumerate(self.pending):
                if message["type"] == "options":
                    return self.pending.pop(at)


def encode_line(message):
    """A message as a line of at most ``MAX_LINE`` bytes. The longest text is cut at its front: its end matters more."""
    line = json.dumps(message).encode() + b"\n"
    while len(line) > MAX_LINE:
        name = max(message, key=lambda name: len(message[name]) if isinstance(message[name], str) else 0)
        text = message[name]
        # A character takes up to 12 bytes in JSON, so one round may not be enough.
        message[name] = "[...]" + text[5 + max(64, min(len(line) - MAX_LINE, len(text) // 2)) :]
        line = json.dumps(message).encode() + b"\n"
    return line


class Step:
    """``with Step(control, "listen"):`` reports a step of the start, and how long it took.

    :param begun: when the step began, if not now.
    """

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
