"""The loop of a preloader: it forks on the supervisor's order, reaps the workers that it forked, and ends.

It waits for the control connection and for signals in one ``poll``, in the only thread of the process. A forked worker
leaves the loop before it does anything else.
"""

import signal
import sys
from os import WNOHANG, _exit, close, dup2, fork, setpgid, waitpid
from select import POLLIN, poll
from signal import getsignal
from signal import signal as set_signal
from time import monotonic, sleep

from passenger_trio_loader.at_fork import install_signal_handler
from passenger_trio_loader.backtraces import backtraces
from passenger_trio_loader.control_connection import ControlEnded
from passenger_trio_loader.output import flush_output
from passenger_trio_loader.preloading.after_fork import renew_in_worker
from passenger_trio_loader.stopping import EXIT_HOOKS_TIME, start_last_second


class Preloader:
    """Forks workers on order.

    ``run`` returns ``"end"`` or ``"serve"`` in the preloader, which is then to end or to be a worker itself. It returns
    ``"forked"`` in each forked process, whose ``token`` is the one to connect with.
    """

    def __init__(self, control, watcher, hazards):
        """:param hazards: what ``HeldResources.hazards`` returned."""
        self.token = ""
        self._control = control
        self._watcher = watcher
        self._children = set()
        self._has_hooks = any(hazard["kind"] in ("exit_hook", "process") for hazard in hazards)
        """Its exit hooks or child processes belong to resources that the workers use. It outlives them, to run the hooks."""
        self._told_to_end = False

    def run(self):
        # A handler that does nothing: the signal's byte in the wake-up socket ends the ``poll``.
        if getsignal(signal.SIGCHLD) in (signal.SIG_DFL, signal.SIG_IGN, None):
            install_signal_handler(signal.SIGCHLD, lambda number, frame: None)
        arrivals = poll()
        arrivals.register(self._control, POLLIN)
        arrivals.register(self._watcher, POLLIN)
        messages = self._control.pending
        while True:
            for message in messages:
                if message["type"] == "shutdown":
                    self._told_to_end = True
                elif message["type"] == "serve":
                    return "serve"
                elif message["type"] == "backtrace":
                    self._control.answer_backtrace(message, backtraces())
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
                    except ControlEnded:
                        start_last_second()
                        self._wait_for_children()
                        return "end"
                elif signal.SIGTERM in self._watcher.arrived_signals():
                    if self._told_to_end:
                        return "end"
                    self._told_to_end = True
            self._reap()

    def _wait_for_children(self):
        """Wait a moment: the supervisor is gone, so the workers end, too."""
        until = monotonic() + EXIT_HOOKS_TIME
        while self._has_hooks and self._children and monotonic() < until:
            sleep(0.01)
            self._reap()

    @property
    def has_children(self):
        return bool(self._children)

    def _reap(self):
        # Each by its pid: a child that the application has started is the application's to wait for.
        for pid in list(self._children):
            try:
                found, status = waitpid(pid, WNOHANG)
            except ChildProcessError:
                self._children.discard(pid)  # The application waits for any child, and was faster.
                continue
            if found:
                self._children.discard(pid)
                self._control.send(type="child_exited", pid=pid, status=status)

    def _fork(self, token):
        """Fork a worker. True in the child."""
        if not self._control.descriptors:
            self._control.send(type="fork_failed", token=token, problem="no descriptor came with the message")
            return False
        output = self._control.descriptors.pop(0)
        flush_output()  # Otherwise both processes write what is in the buffers.
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
            renew_in_worker()
            return True
        try:
            setpgid(pid, pid)  # The child does the same. Whichever is first counts.
        except OSError:
            pass
        close(output)
        self._children.add(pid)
        self._control.send(type="forked", token=token, pid=pid)
        return False


def quiet_fork():
    """``os.fork`` without Python 3.12's warning about threads: they are hazards, which the supervisor has accepted."""
    warnings = sys.modules.get("warnings")
    if warnings is None:
        return fork()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fork()


def leave_preloader(preloader, watcher):
    """End a preloader: without its exit hooks while a worker lives, which uses what they would remove.

    :returns: the exit status.
    """
    watcher.begin_exit()
    set_signal(signal.SIGTERM, signal.SIG_DFL)  # A second SIGTERM ends the process at once.
    if preloader.has_children:
        flush_output()
        _exit(0)
    return 0
