"""Makes application processes: finds the application, starts a loader, shakes hands, keeps a
preloader to fork from.

This package knows programs, pipes and control connections. It does not decide how many processes
there are, or when they start: the pool orders one process at a time, and gets a ``SpawnedProcess``
or a ``SpawnError`` with all the evidence. Before a spawn returns, everything that it started and
does not hand over is killed and reaped, also on cancellation.
"""
