"""The order of everything in a process: connect, say hello, prepare, load, (fork,) serve, end."""

import faulthandler
import os
import sys
from os import getpid
from time import monotonic

from passenger_trio_loader.advice import explain
from passenger_trio_loader.at_fork import after_fork, before_fork, disown
from passenger_trio_loader.control_connection import Control, Hangup, Step
from passenger_trio_loader.death_pipe import Lifeline
from passenger_trio_loader.events import call_event, offer_events
from passenger_trio_loader.loading import load_application
from passenger_trio_loader.output import say
from passenger_trio_loader.runtime import checked_options, name_process, prepare_runtime
from passenger_trio_loader.stopping import Leave
from passenger_trio_loader.tracebacks import class_name, load_what_errors_need, traceback_of


def main(interface):
    """The exit status."""
    offer_events()
    try:
        path = os.environ.pop("PASSENGER_TRIO_SPAWN_SOCKET")
        token = os.environ.pop("PASSENGER_TRIO_SPAWN_TOKEN")
        control = Control(path)
    except (KeyError, OSError) as error:
        sys.stderr.write(
            "This program is started by passenger_trio, not by hand (%s: %s).\n" % (class_name(error), error)
        )
        return 2
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=disown)
    role = "preloader" if "--preload" in sys.argv[1:] else "worker"
    try:
        options = control.greet(token, role)
    except Hangup:
        return 1
    lifeline = Lifeline(control)
    lifeline.begin()
    worker = None
    try:
        try:
            with Step(control, "prepare_runtime"):
                prepare_runtime(checked_options(options, interface))
                lifeline.timeout = options["shutdown_timeout"]
                interface.prepare(options)
                name_process(options, role)
            if role == "preloader":
                from passenger_trio_loader.preloading.before_fork import share_memory
                from passenger_trio_loader.preloading.hazards import Holdings
                from passenger_trio_loader.preloading.preloader import Preloader, leave_preloader

                holdings = Holdings()
            with Step(control, "load_application"):
                application, shown = load_application(options, interface)
                interface = interface.turned_out(application, options)
                load_what_errors_need()
                if role == "preloader":
                    holdings.hooks.loaded()
                    holdings.put_right()
                    share_memory()
            if role == "preloader":
                lifeline.release()
                hazards = holdings.hazards()
                control.send(type="ready", application=shown, hazards=hazards)
                preloader = Preloader(control, lifeline, hazards)
                outcome = preloader.run()
                if outcome == "end":
                    return leave_preloader(preloader, lifeline)
                if outcome == "serve":
                    # From here this is a worker like any that was started: what it holds is its own.
                    lifeline.give_way()
                else:
                    # From here this is a forked worker. Its preloader's control connection went with the fork (disown).
                    begun = monotonic()
                    try:
                        control = Control(path)
                        options = control.greet(preloader.token, "worker")
                    except (OSError, Hangup):
                        return 1
                lifeline = Lifeline(control)
                lifeline.begin()
                lifeline.timeout = checked_options(options, interface)["shutdown_timeout"]
                if outcome == "forked":
                    with Step(control, "after_fork", begun):
                        call_event("starting_worker_process", True)
                name_process(options, "worker")
            if role == "worker" or outcome == "serve":
                call_event("starting_worker_process", False)
            worker = interface.worker(application, options, lifeline)

            def announce():
                with Step(control, "listen"):
                    worker.listen()
                lifeline.worker = worker
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
            if lifeline.leaving:
                raise Leave(0)  # It was raised, and the application has made something else of it.
            if lifeline.worker is not None:
                raise  # A bug of ours: it serves already.
            lifeline.end()
            control.send(**explain(error, options, interface))
            say(traceback_of(error))
            # A thread that the application started before it failed keeps an interpreter from ending. Not for ever:
            # after this time the process ends, with status 1, and says what its threads were doing.
            faulthandler.dump_traceback_later(5, exit=True, file=sys.__stderr__)
            return 1
    except Leave:
        pass
    if lifeline.worker is not None and not is_copy(lifeline):
        tell_stopping()
    lifeline.end()
    if worker is not None:
        worker.remove_socket()
    return 0


def is_copy(lifeline):
    """Whether this is a process that the application forked from ours, and that came back to us."""
    return lifeline.process != getpid()


def tell_stopping():
    try:
        call_event("stopping_worker_process")
    except Leave:
        pass
    except BaseException as error:
        say(traceback_of(error))


def run(interface):
    """``main``, and the end of the process."""
    try:
        status = main(interface)
    except Leave:
        status = 0
    sys.exit(status)
