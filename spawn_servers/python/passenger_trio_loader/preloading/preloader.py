"""The loop of a preloader: it forks when the supervisor says so, reaps what it has forked, and ends."""

import signal
import sys
from os import WNOHANG, _exit, close, dup2, fork, setpgid, waitpid
from select import POLLIN, poll
from signal import getsignal
from signal import signal as set_signal
from time import monotonic, sleep

from passenger_trio_loader.at_fork import take_signal
from passenger_trio_loader.control_connection import Hangup
from passenger_trio_loader.output import flush_output
from passenger_trio_loader.preloading.after_fork import renew
from passenger_trio_loader.stopping import LEAVE_TIME, limit_life


class Preloader:
    """Forks workers when it is asked to. It has one thread, and runs no event loop.

    ``run`` returns in the preloader when it is to end (``"end"``) or to be a worker itself (``"serve"``), and once in
    each forked process (``"forked"``; ``token`` is that with which it connects): a worker has climbed out of this loop
    before it does anything else.
    """

    def __init__(self, control, lifeline, hazards):
        """:param hazards: what ``Holdings`` found."""
        self.token = ""
        self._control = control
        self._lifeline = lifeline
        self._children = set()
        self._has_hooks = any(hazard["kind"] in ("exit_hook", "process") for hazard in hazards)
        """What it has is in use by its workers, and it must see to it when the last of them has ended."""
        self._told_to_end = False

    def run(self):
        # Only to be woken: what a signal does is to write a byte.
        if getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN, None):
            take_signal(signal.SIGCHLD, lambda number, frame: None)
        arrivals = poll()
        arrivals.register(self._control, POLLIN)
        arrivals.register(self._lifeline, POLLIN)
        messages = self._control.pending
        while True:
            for message in messages:
                if message["type"] == "shutdown":
                    self._told_to_end = True
                elif message["type"] == "serve":
                    return "serve"
                elif message["type"] == "fork" and not self._told_to_end:
                    self.token = str(message.get("token"))
                    if self._fork(self.token):
                        return "forked"
            messages = []
            if self._told_to_end and not (self._has_hooks and self._children):
                return "end"
            for descriptor, _ in arrivals.poll():
                if descriptor == self._control.fileno():
                    try:
                        messages = self._control.read()
                    except Hangup:
                        limit_life()
                        self._wait_for_children()
                        return "end"
                elif signal.SIGTERM in self._lifeline.signals():
                    if self._told_to_end:
                        return "end"
                    self._told_to_end = True
            self._reap()

    def _wait_for_children(self):
        """The supervisor is gone, and so are they, soon."""
        until = monotonic() + LEAVE_TIME
        while self._has_hooks and self._children and monotonic() < until:
            sleep(0.01)
            self._reap()

    @property
    def has_children(self):
        return bool(self._children)

    def _reap(self):
        # One by one: a child that the application started while it was loaded is the application's to wait for.
        for pid in list(self._children):
            try:
                found, status = waitpid(pid, WNOHANG)
            except ChildProcessError:
                self._children.discard(pid)  # The application waits for every child there is, and was faster.
                continue
            if found:
                self._children.discard(pid)
                self._control.send(type="child_exited", pid=pid, status=status)

    def _fork(self, token):
        """True in the child."""
        if not self._control.descriptors:
            self._control.send(type="fork_failed", token=token, problem="no descriptor came with the message")
            return False
        output = self._control.descriptors.pop(0)
        flush_output()  # What is in a buffer now would be written by both.
        try:
            pid = quiet_fork()
        except OSError as error:
            close(output)
            self._control.send(type="fork_failed", token=token, problem="fork: %s" % error)
            return False
        if pid == 0:
            setpgid(0, 0)
            dup2(output, 1)
            dup2(output, 2)
            if output > 2:
                close(output)
            renew()
            return True
        try:
            setpgid(pid, pid)  # As the child does: whoever of us is first.
        except OSError:
            pass
        close(output)
        self._children.add(pid)
        self._control.send(type="forked", token=token, pid=pid)
        return False


def quiet_fork():
    """``os.fork`` without the warning of Python 3.12 about threads: the supervisor has been told, and has decided."""
    warnings = sys.modules.get("warnings")
    if warnings is None:
        return fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fork()


def leave_preloader(preloader, lifeline):
    """The exit hooks are the workers' while there are any: what they would remove is in use."""
    lifeline.end()
    set_signal(signal.SIGTERM, signal.SIG_DFL)  # The second one ends it at once.
    if preloader.has_children:
        flush_output()
        _exit(0)
    return 0
