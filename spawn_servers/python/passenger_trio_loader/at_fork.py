"""What a forked process must not keep of the loader's: its descriptors and its signal handlers.

The application may fork, and our preloader does. A child that kept a stream would hold it open when we close it to say
"this response is incomplete". A child that kept our signal handlers could not be ended with SIGTERM. So every child
closes our descriptors and gets the handlers that it would have had without us, before any other code runs in it.
"""

import signal
from _thread import get_ident
from signal import getsignal, pthread_sigmask, set_wakeup_fd
from signal import signal as set_signal

from passenger_trio_loader.backtraces import forget_backtrace_signal

own_descriptors = set()
"""Objects with a ``close`` method. Every process that is forked from this one closes them."""
signal_handlers = {}
"""Signal number -> (our handler, the handler that was there before)."""
signal_masks = {}
"""Thread -> the signals that it blocked before its fork, while the fork lasts."""


def before_fork():
    """Block our signals until the child has restored its handlers.

    A signal that arrives in between runs Python's C handler in the child, which writes into *our* wake-up socket: the
    child shares it. The worker would stop, and the child would not, because it then drops its pending signals.
    """
    signal_masks[get_ident()] = pthread_sigmask(signal.SIG_BLOCK, signal_handlers)


def after_fork():
    pthread_sigmask(signal.SIG_SETMASK, signal_masks.pop(get_ident()))


def in_forked_child():
    """Runs first in every process that is forked from this one."""
    for own in list(own_descriptors):
        own.close()
    own_descriptors.clear()
    forget_backtrace_signal()
    restore_signal_handlers()
    after_fork()


def restore_signal_handlers():
    set_wakeup_fd(-1)
    for number, (ours, theirs) in signal_handlers.items():
        if getsignal(number) == ours:
            set_signal(number, theirs)
    signal_handlers.clear()


def install_signal_handler(number, ours):
    signal_handlers[number] = (ours, getsignal(number) or signal.SIG_DFL)  # None: set by C code, and lost
    set_signal(number, ours)
