"""What belongs to this process, and not to a process that is forked from it.

The application may fork, and so does our preloader. A child closes the loader's descriptors and gets back the signal
handlers that it would have had without us.
"""

import signal
from _thread import get_ident
from signal import getsignal, pthread_sigmask, set_wakeup_fd
from signal import signal as set_signal

# What belongs to us in this process and not to a process that the application (or our preloader) forks from it: a
# child that kept our streams would hold them open when we close them to say "this response is incomplete", and one
# that kept our signal handlers could not be ended with SIGTERM.
belongings = set()
handlers = {}
masks = {}


def before_fork():
    """Hold signals back until the child is rid of our handlers.

    In between, Python's C handler in the child would write the signal into *our* wake-up socket, which the child
    shares: the worker would stop, and the child, which then forgets what was pending, would not.
    """
    masks[get_ident()] = pthread_sigmask(signal.SIG_BLOCK, handlers)


def after_fork():
    pthread_sigmask(signal.SIG_SETMASK, masks.pop(get_ident()))


def disown():
    """Runs in every process forked from this one, before anything else."""
    for belonging in list(belongings):
        belonging.close()
    belongings.clear()
    give_back_signals()
    after_fork()


def give_back_signals():
    set_wakeup_fd(-1)
    for number, (ours, theirs) in handlers.items():
        if getsignal(number) == ours:
            set_signal(number, theirs)
    handlers.clear()


def take_signal(number, ours):
    handlers[number] = (ours, getsignal(number) or signal.SIG_DFL)  # None: set by C code, and lost
    set_signal(number, ours)
