"""The life of a process, step by step: connect, say hello, prepare, load, (fork,) serve, end.

``main`` is the only function that knows the order. Every step is a call into the module of its name. Two exceptions
leave it early: ``Leave`` (the process is to end now) and any error of the application (the start has failed).
"""

import faulthandler
import os
import sys
from os import getpid
from time import monotonic

from passenger_trio_loader.advice import explain
from passenger_trio_loader.at_fork import after_fork, before_fork, in_forked_child
from passenger_trio_loader.control_connection import ControlConnection, ControlEnded, Step
from passenger_trio_loader.connection_watcher import ConnectionWatcher
from passenger_trio_loader.events import call_event, offer_events
from passenger_trio_loader.loading import load_application, wrap_application
from passenger_trio_loader.output import write_stderr
from passenger_trio_loader.runtime import check_options, name_process, prepare_runtime
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import class_name, preload_traceback, traceback_of


def main(interface):
    """Run the process.

    :param interface: an ``Interface``: WSGI or ASGI.
    :returns: the exit status.
    """
    offer_events()
    try:
        path = os.environ.pop("PASSENGER_TRIO_SPAWN_SOCKET")
        token = os.environ.pop("PASSENGER_TRIO_SPAWN_TOKEN")
        control = ControlConnection(path)
    except (KeyError, OSError) as error:
        sys.stderr.write(
            "This program is started by passenger_trio, not by hand (%s: %s).\n" % (class_name(error), error)
        )
        return 2
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=in_forked_child)
    role = "preloader" if "--preload" in sys.argv[1:] else "worker"
    try:
        options = control.handshake(token, role)
    except ControlEnded:
        return 1
    watcher = ConnectionWatcher(control)
    watcher.begin()
    worker = None
    try:
        try:
            with Step(control, "prepare_runtime"):
                prepare_runtime(check_options(options, interface))
                watcher.timeout = options["shutdown_timeout"]
                interface.prepare(options)
                name_process(options, role)
            if role == "preloader":
                from passenger_trio_loader.preloading.before_fork import import_first_uses, share_memory
                from passenger_trio_loader.preloading.hazards import HeldResources
                from passenger_trio_loader.preloading.preloader import Preloader, leave_preloader

                held = HeldResources()
            with Step(control, "load_application"):
                application, shown = load_application(options, interface)
                interface = interface.actual_interface(application, options)
                application = wrap_application(application, interface)
                preload_traceback()
                if role == "preloader":
                    import_first_uses()
                    held.hooks.stop_recording()
                    held.close_reopenable()
                    share_memory()
            if role == "preloader":
                watcher.stop_thread()
                hazards = held.hazards()
                control.send(type="ready", application=shown, hazards=hazards)
                preloader = Preloader(control, watcher, hazards)
                outcome = preloader.run()
                if outcome == "end":
                    return leave_preloader(preloader, watcher)
                if outcome == "serve":
                    # From here on this process is a worker, and keeps what the application holds.
                    watcher.close()
                else:
                    # From here on this is a forked worker. ``in_forked_child`` has closed the preloader's control connection.
                    begun = monotonic()
                    try:
                        control = ControlConnection(path)
                        options = control.handshake(preloader.token, "worker")
                    except (OSError, ControlEnded):
                        return 1
                watcher = ConnectionWatcher(control)
                watcher.begin()
                watcher.timeout = check_options(options, interface)["shutdown_timeout"]
                if outcome == "forked":
                    with Step(control, "after_fork", begun):
                        call_event("starting_worker_process", True)
                name_process(options, "worker")
            if role == "worker" or outcome == "serve":
                call_event("starting_worker_process", False)
            worker = interface.make_worker(application, options, watcher)

            def announce():
                with Step(control, "listen"):
                    worker.listen()
                watcher.worker = worker
                control.send(
                    type="ready",
                    sockets=[worker.socket_message()],
                    application=shown,
                    app_type=interface.name.lower(),
                )

            worker.run(announce)
        except Leave:
            raise
        except BaseException as error:
            if watcher.leaving:
                raise Leave(0)  # The application has caught ``Leave`` and raised something else.
            if watcher.worker is not None:
                raise  # A bug of ours: the worker serves already, so this is no failed start.
            watcher.begin_exit()
            if not control.send(**explain(error, options, interface)):
                write_stderr(traceback_of(error))  # Otherwise the supervisor prints it: once.
            # A thread that the application started before it failed keeps the interpreter from ending. After this
            # time the process ends all the same, with status 1, and prints what its threads were doing.
            faulthandler.dump_traceback_later(5, exit=True, file=sys.__stderr__)
            return 1
    except Leave:
        pass
    if watcher.worker is not None and not is_forked_copy(watcher):
        call_stopping_hooks()
    watcher.begin_exit()
    if worker is not None:
        worker.remove_socket()
    return 0


def is_forked_copy(watcher):
    """Whether the application forked this process from ours, and its code has returned to us."""
    return watcher.process != getpid()


def call_stopping_hooks():
    """The application's ``stopping_worker_process``. What it raises is logged."""
    try:
        call_event("stopping_worker_process")
    except Leave:
        pass
    except BaseException as error:
        write_stderr(traceback_of(error))


def run(interface):
    """Run ``main``, then end the process."""
    try:
        status = main(interface)
    except Leave:
        status = 0
    sys.exit(status)
