"""What is made when the application is loaded is shared by forked workers until they write; what a request changes is its worker's own."""

import gc
import os
import random
import sys

LOADED_BY = os.getpid()
generator = random.Random(5)
counter = 0
after_fork = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: after_fork.append(os.getpid()))
sys.stdout.write("an unfinished line, in the buffer when it forks")


def application(environ, start_response):
    global counter
    counter += 1
    facts = {
        "pid": os.getpid(),
        "loaded_by": LOADED_BY,
        "counter": counter,
        "random": random.random(),
        "own_generator": generator.random(),
        "after_fork": after_fork == [os.getpid()],
        "frozen": not hasattr(gc, "freeze") or gc.get_freeze_count() > 0,
        "collects": gc.isenabled() and (not hasattr(gc, "get_threshold") or 0 < gc.get_threshold()[0] < 10000),
    }
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["".join("%s=%s\n" % item for item in facts.items()).encode()]
