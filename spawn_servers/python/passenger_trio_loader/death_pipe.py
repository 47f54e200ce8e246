"""The thread that watches the control connection, and the signals of the process.

The supervisor's end is seen on the control connection, and the process is gone within a second of it, whatever the
application does in that moment: its thread is interrupted, its exit hooks are run, and a C thread that needs no
interpreter lock ends what is left (``Lifeline._farewell``).

There is no ``PR_SET_PDEATHSIG`` here, on purpose. A signal that cannot be caught would take the exit hooks away
from every application; one that can be caught sees no more than the control connection does; it would be no use
to forked workers, whose parent is the preloader and may go; and it fires when the *thread* that started us ends.
What it would add is the death of an application that is in a call into C which keeps the interpreter lock for
ever. Of these, the ones that heed signals (a regular expression that backtracks for years is one) are ended by
``SIGIO``, with a single-threaded worker.
"""

import atexit
import fcntl
import signal
import warnings
from _thread import allocate_lock, get_ident, start_new_thread
from os import _exit, getpid
from select import POLLIN, poll
from signal import getsignal, pthread_kill, set_wakeup_fd
from socket import socketpair
from time import monotonic, sleep

from passenger_trio_loader.at_fork import belongings, give_back_signals, take_signal
from passenger_trio_loader.control_connection import Hangup
from passenger_trio_loader.originals import tasks
from passenger_trio_loader.output import flush_output, say
from passenger_trio_loader.stopping import LEAVE_TIME, NUDGE_TIME, Leave, limit_life, shares_of
from passenger_trio_loader.tracebacks import traceback_of

# Linux has it; PyPy has not the name.
FASYNC = getattr(fcntl, "FASYNC", 0x2000)


class Lifeline:
    """Watches the control connection and the signals, in a thread of its own.

    Signals reach the thread as bytes that Python's C code writes into ``_alarm`` at the moment they arrive, so also
    while the main thread is inside a call that does not come back. When the process is to end now, the thread sends
    the main thread a ``SIGIO``, whose handler raises ``Leave`` wherever that is: this also ends a sleep, or the
    wait for a lock. The kernel sends ``SIGIO`` as well, when something happens on the control connection: so the
    main thread can see the end of it for itself even if it does not let this thread run.
    """

    def __init__(self, control):
        self.control = control
        self.worker = None
        """Told to stop, once there is one. Before that, to stop is to leave."""
        self.leaving = False
        """The process is to end now."""
        self.deserted = False
        """The supervisor is gone."""
        self.timeout = 0.0
        """Seconds that the process has to end when it is told to."""
        self._pace = NUDGE_TIME
        """Seconds from one interruption of the main thread to the next, while the supervisor waits for us."""
        self._due = []
        """What is to be done when, once it is told to: (time, function), the earliest last."""
        self.process = getpid()
        self._main = get_ident()
        self._interruptible = True
        self._raised = 0.0
        self._hooks_begun = False
        self._hooks_claim = allocate_lock()
        self._hooks_runner = 0
        """The thread that runs the exit hooks, which has the claim."""
        self._terms = 0
        self._released = False
        self._tasks = set()
        self.stopping = False
        """The worker has been told to stop."""
        self._thread_ended = allocate_lock()
        self._bell, self._alarm = socketpair()
        belongings.update((self._bell, self._alarm))
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    # Called in the main thread

    def begin(self):
        self.take_wakeup()
        take_signal(signal.SIGTERM, self._on_signal)
        # Not SIG_IGN: that would be inherited by the programs that the application starts.
        take_signal(signal.SIGINT, self._on_signal)
        take_signal(signal.SIGIO, self._on_signal)
        fcntl.fcntl(self.control, fcntl.F_SETOWN, getpid())
        self._ask_for_sigio(True)
        self._thread_ended.acquire()
        before = tasks()
        start_new_thread(self._watch, ())
        self._tasks = tasks() - before

    def take_wakeup(self, on=True):
        """Signals wake this thread, or (for a moment) nobody: an event loop may want the descriptor for itself."""
        set_wakeup_fd(self._alarm.fileno() if on else -1, warn_on_full_buffer=False)

    def release(self):
        """End the thread: the preloader watches for itself, and has one thread when it forks."""
        self._ask_for_sigio(False)
        self._released = True
        self._ring(0)
        with self._thread_ended:
            pass
        # It has said its last word; the kernel may still count it.
        while self._tasks & tasks() and not self.leaving:
            sleep(0.0002)
        if self.leaving:
            raise Leave(0)  # The thread decided so before it heard of its release.

    def give_way(self):
        """Another one takes its place, in this process: a preloader goes on as a worker."""
        give_back_signals()
        for end in (self._bell, self._alarm):
            belongings.discard(end)
            end.close()

    def end(self):
        """The main thread has done what there was to do, and leaves."""
        self._interruptible = False
        atexit.register(self._note_hooks)  # The last to be registered is the first to run.

    def signals(self):
        """The numbers of the signals that came since the last call."""
        try:
            return self._bell.recv(4096)
        except BlockingIOError:
            return b""

    def fileno(self):
        """Readable when signals have come."""
        return self._bell.fileno()

    def _ask_for_sigio(self, wanted):
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags | FASYNC if wanted else flags & ~FASYNC)

    def _on_signal(self, number, frame):
        # The application may have taken the wake-up descriptor, as asyncio does. It is taken back.
        if set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False) != self._alarm.fileno():
            self._ring(number)
        if number == signal.SIGIO and self._interruptible:
            if not self.leaving and not self._released and self.control.has_ended():
                limit_life()
                warnings.simplefilter("ignore")  # as in _farewell
                self.leaving = self.deserted = True
            # What unwinds since the last time has a moment to do so undisturbed.
            if self.leaving and monotonic() - self._raised > (NUDGE_TIME if self.deserted else self._pace):
                self._raised = monotonic()
                raise Leave(0)

    def _ring(self, number):
        try:
            self._alarm.send(bytes((number,)))
        except OSError:
            pass  # Full: it rings already.

    def _note_hooks(self):
        self._claim_hooks()
        # Another thread runs them, because we were stuck, and ends the process behind them: they run once.
        while self._hooks_runner != get_ident() and getpid() == self.process:
            sleep(1)

    def _claim_hooks(self):
        """True for the first who comes."""
        if not self._hooks_claim.acquire(False):
            return False
        self._hooks_begun = True
        self._hooks_runner = get_ident()
        return True

    # The thread

    def _watch(self):
        try:
            for message in self.control.pending:
                self._heed(message)
            arrivals = poll()
            arrivals.register(self.control, POLLIN)
            arrivals.register(self, POLLIN)
            while not self._released:
                found = arrivals.poll(self._patience())
                self._heed_time()
                if self.leaving:
                    self._nudge()
                for descriptor, _ in found:
                    if descriptor == self._bell.fileno():
                        self._heed_signals()
                    else:
                        for message in self.control.read():
                            self._heed(message)
        except Hangup:
            self._farewell()
        except BaseException as error:
            # A bug of ours. A worker that nobody watches must not live on.
            say(traceback_of(error))
            self._farewell()
        finally:
            self._thread_ended.release()

    def _heed(self, message):
        if message["type"] == "shutdown":
            self._stop()

    def _heed_signals(self):
        for number in self.signals():
            if number == signal.SIGTERM:
                self._terms += 1
                if self._terms > 1:
                    _exit(128 + signal.SIGTERM)
                self._stop()

    def _stop(self):
        worker = self.worker
        if worker is None:
            if not self.leaving:
                self.leave()
            return
        if not self.stopping:
            self.stopping = True
            now = monotonic()
            cancel, give_up, leave = shares_of(self.timeout)
            self._pace = max(NUDGE_TIME, (leave - cancel) / 2)  # What it interrupts has this long to tidy up.
            self._due = [
                (now + (leave + self.timeout) / 2, self._run_hooks),
                (now + leave, self.leave),
                (now + give_up, worker.give_up),
                (now + cancel, worker.cancel),
            ]
        worker.stop()

    def leave(self):
        """The main thread is to leave what it is doing, and run the exit hooks. From any thread."""
        self.leaving = True
        self._nudge()

    def _patience(self):
        """Milliseconds until there is something to do; None: nothing is known of."""
        times = [max(0.0, self._due[-1][0] - monotonic()) + 0.001] if self._due else []
        if self.leaving and not self._hooks_begun:
            times.append(self._pace)
        return min(times) * 1000 if times else None

    def _heed_time(self):
        while self._due and self._due[-1][0] <= monotonic():
            self._due.pop()[1]()

    def _nudge(self):
        """Interrupt the main thread. Once may not be enough: what is raised within a destructor is lost."""
        if self._interruptible and getsignal(signal.SIGIO) == self._on_signal:
            pthread_kill(self._main, signal.SIGIO)

    def _farewell(self):
        """The supervisor is gone. From here it is a race between the exit hooks and the last second."""
        limit_life()
        warnings.simplefilter("ignore")  # That coroutines are left in the middle of something is no news.
        self.leaving = self.deserted = True
        if self.worker is not None:
            self.worker.stop()
            self.worker.remove_socket()
        until = monotonic() + LEAVE_TIME
        while monotonic() < until and not self._hooks_begun:
            self._nudge()
            sleep(NUDGE_TIME)
        self._run_hooks()

    def _run_hooks(self):
        """Unless the main thread has come to it: it is stuck in a call, or waits for a thread of the application's."""
        if self._claim_hooks():
            try:
                atexit._run_exitfuncs()
                flush_output()
            finally:
                _exit(0)
