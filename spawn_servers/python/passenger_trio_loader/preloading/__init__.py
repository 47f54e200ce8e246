"""A preloader: it loads the application once, and forks workers on the supervisor's order. Imported in preloaders only.

A fork copies the memory and one thread, and shares every open descriptor. What an application holds is of three kinds:

* what the loader repairs before the fork (a closed connection of Django's opens again where it is used) or after it
  (random numbers, an event loop that does not run yet);
* what forked processes may share: files, the sockets of ``logging`` that only send datagrams, the resource tracker of
  multiprocessing, the threads of OpenBLAS, which handles forks itself;
* everything else is a *hazard*. The preloader reports it, and the supervisor decides.

Reading order:

    preloader.py                    the loop that forks
    hazards.py                      what the application holds, and which of it is a hazard
    descriptors.py, exit_hooks.py   two kinds of resources, in detail
    event_loops.py                  loops and hubs that are no hazards, because each process gets its own
    before_fork.py, after_fork.py   what is repaired

Laws:

* Looking is cheap: it lists two directories of /proc, and examines only what is new there.
* What cannot be understood is a hazard. What cannot be repaired stays as it is, and is found as a hazard.
* An exit hook that removes files or ends processes runs only in the process that registered it.
"""
