"""A preloader: it loads the application once, and forks workers when it is asked to. Imported in preloaders only.

A fork copies memory and one thread, and shares every open descriptor. So what an application may hold is of three kinds:

* what can be put right before the fork (a database connection of Django's that is closed opens again where it is
  used) or after it (random numbers, the loop of asyncio that nobody runs yet);
* what forked processes may share: files, the sockets of ``logging`` that only send datagrams, the resource tracker of
  multiprocessing, the threads of OpenBLAS, which sees to forks itself;
* the rest, which is a *hazard*: its like is told to the supervisor, which decides.

Reading order:

    preloader.py                    the loop that forks
    hazards.py                      what the application holds, and which of it is a hazard
    descriptors.py, exit_hooks.py   two kinds of what it may hold, at length
    event_loops.py                  loops and hubs that may be forked, because each process gets its own
    before_fork.py, after_fork.py   what is put right

Laws:

* To look is cheap: a listing of two directories of /proc, and only of what was found more than that.
* What cannot be understood is a hazard. What cannot be put right is left as it is, and so found.
* An exit hook that removes files or ends processes belongs to the process that registered it. In no other is it run.
  Every other hook is run in each process (a log is flushed by each).
"""
