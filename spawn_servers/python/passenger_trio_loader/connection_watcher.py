"""The connection watcher: the end of the control connection is the end of the supervisor, and then this process ends, too.

A thread waits for three things: messages on the control connection, its end, and the signals of the process. It tells
the worker to stop, keeps the schedule of a stop, and interrupts the main thread when the process is to end.

Laws:

* The process is gone within a second of the supervisor's end, whatever the application does. First the main thread is
  interrupted. If that does not help, this thread runs the exit hooks. If that hangs, a C thread of faulthandler ends
  the process: it needs no interpreter lock.
* The exit hooks run once, in the main thread or in this one.

Why there is no ``PR_SET_PDEATHSIG``: SIGKILL would skip the exit hooks. A signal that can be caught tells no more than
the control connection does. A forked worker's parent is the preloader, which may end before it. And the signal
comes when the *thread* that started us ends. It would help in one case: a call into C that never returns and keeps
the interpreter lock. Where such a call reacts to signals (a regular expression that backtracks), SIGIO ends it
in a worker with one thread.
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

from passenger_trio_loader.at_fork import install_signal_handler, own_descriptors, restore_signal_handlers
from passenger_trio_loader.backtraces import backtraces, catch_backtrace_signal
from passenger_trio_loader.control_connection import ControlEnded
from passenger_trio_loader.originals import tasks
from passenger_trio_loader.output import flush_output, write_stderr
from passenger_trio_loader.stopping import EXIT_HOOKS_TIME, INTERRUPT_INTERVAL, Leave, start_last_second, stop_schedule
from passenger_trio_loader.tracebacks import traceback_of

# Linux has it; PyPy has not the name.
FASYNC = getattr(fcntl, "FASYNC", 0x2000)


class ConnectionWatcher:
    """Watches the control connection and the signals, in a thread of its own.

    Python's C code writes the number of each signal into ``_wakeup_writer`` when it arrives, also while the main thread
    is in a call that does not return. To end the process, this thread sends SIGIO to the main thread. Its handler
    raises ``Leave`` there, which also ends a sleep or the wait for a lock. The kernel sends SIGIO, too, when
    something happens on the control connection: so the main thread sees the end itself if it starves this thread.
    """

    def __init__(self, control):
        self.control = control
        self.worker = None
        """What serves, once the process is ready. Before that, a stop ends the process at once."""
        self.leaving = False
        """The process is to end now."""
        self.supervisor_gone = False
        """The reason why: the control connection has ended."""
        self.timeout = 0.0
        """Seconds from ``shutdown`` to the end of the process."""
        self._interrupt_interval = INTERRUPT_INTERVAL
        """Seconds between two interruptions of the main thread, as long as the supervisor is there."""
        self._due = []
        """The schedule of a stop: (time, function), the earliest last."""
        self.process = getpid()
        self._main = get_ident()
        self._interruptible = True
        self._raised = 0.0
        self._hooks_begun = False
        self._hooks_claim = allocate_lock()
        self._hooks_runner = 0
        """The thread that has claimed the exit hooks, and runs them."""
        self._sigterm_count = 0
        self._thread_is_to_end = False
        self._tasks = set()
        self.stopping = False
        """The worker was told to stop."""
        self._thread_ended = allocate_lock()
        self._wakeup_reader, self._wakeup_writer = socketpair()
        own_descriptors.update((self._wakeup_reader, self._wakeup_writer))
        self._wakeup_writer.setblocking(False)
        self._wakeup_reader.setblocking(False)

    # Called in the main thread

    def begin(self):
        self.take_wakeup()
        catch_backtrace_signal()
        install_signal_handler(signal.SIGTERM, self._on_signal)
        # Not SIG_IGN: the programs that the application starts would inherit it.
        install_signal_handler(signal.SIGINT, self._on_signal)
        install_signal_handler(signal.SIGIO, self._on_signal)
        fcntl.fcntl(self.control, fcntl.F_SETOWN, getpid())
        self._ask_for_sigio(True)
        self._thread_ended.acquire()
        before = tasks()
        start_new_thread(self._run, ())
        self._tasks = tasks() - before

    def take_wakeup(self, on=True):
        """Let signals wake this thread, or (``on`` False) nobody: an event loop may want the descriptor while it starts."""
        set_wakeup_fd(self._wakeup_writer.fileno() if on else -1, warn_on_full_buffer=False)

    def stop_thread(self):
        """End the thread. A preloader watches the connection itself, because it must have one thread when it forks."""
        self._ask_for_sigio(False)
        self._thread_is_to_end = True
        self._wake(0)
        with self._thread_ended:
            pass
        # Python has forgotten the thread. The kernel may still count it.
        while self._tasks & tasks() and not self.leaving:
            sleep(0.0002)
        if self.leaving:
            raise Leave(0)  # The thread decided to end the process before it saw that it was to stop.

    def close(self):
        """Make room for another watcher in this process: a preloader goes on as a worker."""
        restore_signal_handlers()
        for end in (self._wakeup_reader, self._wakeup_writer):
            own_descriptors.discard(end)
            end.close()

    def begin_exit(self):
        """The main thread returns from here to the interpreter, which runs the exit hooks. No more interruptions."""
        self._interruptible = False
        atexit.register(self._before_exit_hooks)  # Registered last, so called first.

    def arrived_signals(self):
        """The numbers of the signals since the last call."""
        try:
            return self._wakeup_reader.recv(4096)
        except BlockingIOError:
            return b""

    def fileno(self):
        """Readable when a signal has arrived."""
        return self._wakeup_reader.fileno()

    def _ask_for_sigio(self, wanted):
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags | FASYNC if wanted else flags & ~FASYNC)

    def _on_signal(self, number, frame):
        # The application may have replaced the wake-up descriptor, as asyncio does. Put ours back.
        if set_wakeup_fd(self._wakeup_writer.fileno(), warn_on_full_buffer=False) != self._wakeup_writer.fileno():
            self._wake(number)
        if number == signal.SIGIO and self._interruptible:
            if not self.leaving and not self._thread_is_to_end and self.control.has_ended():
                start_last_second()
                warnings.simplefilter("ignore")  # as in _on_supervisor_gone
                self.leaving = self.supervisor_gone = True
            # Code that unwinds since the last interruption has a moment to do so.
            if self.leaving and monotonic() - self._raised > (
                INTERRUPT_INTERVAL if self.supervisor_gone else self._interrupt_interval
            ):
                self._raised = monotonic()
                raise Leave(0)

    def _wake(self, number):
        try:
            self._wakeup_writer.send(bytes((number,)))
        except OSError:
            pass  # The socket is full, so the reader wakes anyway.

    def _before_exit_hooks(self):
        self._claim_hooks()
        # The watcher's thread may run them already, because the main thread was stuck. It then ends the process.
        while self._hooks_runner != get_ident() and getpid() == self.process:
            sleep(1)

    def _claim_hooks(self):
        """True for the first thread that asks, and for no other."""
        if not self._hooks_claim.acquire(False):
            return False
        self._hooks_begun = True
        self._hooks_runner = get_ident()
        return True

    # The thread

    def _run(self):
        try:
            for message in self.control.pending:
                self._on_message(message)
            arrivals = poll()
            arrivals.register(self.control, POLLIN)
            arrivals.register(self, POLLIN)
            while not self._thread_is_to_end:
                found = arrivals.poll(self._poll_timeout())
                self._run_due()
                if self.leaving:
                    self._interrupt_main()
                for descriptor, _ in found:
                    if descriptor == self._wakeup_reader.fileno():
                        self._on_signals()
                    else:
                        for message in self.control.read():
                            self._on_message(message)
        except ControlEnded:
            self._on_supervisor_gone()
        except BaseException as error:
            # A bug of ours. Without this thread the process must not live on.
            write_stderr(traceback_of(error))
            self._on_supervisor_gone()
        finally:
            self._thread_ended.release()

    def _on_message(self, message):
        if message["type"] == "shutdown":
            self.timeout = min(self.timeout, message.get("within", self.timeout))
            self._stop()
        elif message["type"] == "backtrace":
            self.control.answer_backtrace(message, backtraces())

    def _on_signals(self):
        for number in self.arrived_signals():
            if number == signal.SIGTERM:
                self._sigterm_count += 1
                if self._sigterm_count > 1:
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
            cancel, give_up, leave = stop_schedule(self.timeout)
            self._interrupt_interval = max(
                INTERRUPT_INTERVAL, (leave - cancel) / 2
            )  # Time for a cancelled handler to clean up.
            self._due = [
                (now + (leave + self.timeout) / 2, self._run_hooks),
                (now + leave, self.leave),
                (now + give_up, worker.give_up),
                (now + cancel, worker.cancel),
            ]
        worker.stop()

    def leave(self):
        """Interrupt the main thread, so that it runs the exit hooks. From any thread."""
        self.leaving = True
        self._interrupt_main()

    def _poll_timeout(self):
        """Milliseconds until the next scheduled step. None: there is none."""
        times = [max(0.0, self._due[-1][0] - monotonic()) + 0.001] if self._due else []
        if self.leaving and not self._hooks_begun:
            times.append(self._interrupt_interval)
        return min(times) * 1000 if times else None

    def _run_due(self):
        while self._due and self._due[-1][0] <= monotonic():
            self._due.pop()[1]()

    def _interrupt_main(self):
        """Raise ``Leave`` in the main thread. Repeated, because an exception in a destructor is lost."""
        if self._interruptible and getsignal(signal.SIGIO) == self._on_signal:
            pthread_kill(self._main, signal.SIGIO)

    def _on_supervisor_gone(self):
        """Run the exit hooks within the last second: in the main thread, or here if it does not come to them."""
        start_last_second()
        warnings.simplefilter("ignore")  # Nobody reads that coroutines were never awaited.
        self.leaving = self.supervisor_gone = True
        if self.worker is not None:
            self.worker.stop()
            self.worker.remove_socket()
        until = monotonic() + EXIT_HOOKS_TIME
        while monotonic() < until and not self._hooks_begun:
            self._interrupt_main()
            sleep(INTERRUPT_INTERVAL)
        self._run_hooks()

    def _run_hooks(self):
        """Run them here, unless the main thread has begun: it is stuck in a call, or waits for another thread."""
        if self._claim_hooks():
            try:
                atexit._run_exitfuncs()
                flush_output()
            finally:
                _exit(0)
