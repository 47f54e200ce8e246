"""Making application processes: find the application, start a loader, shake hands, keep a preloader to fork from.

It knows of programs, pipes and control connections. It decides nothing about how many processes there should be, or when: the pool
orders one process at a time and gets a ``SpawnedProcess`` or a ``SpawnError`` with all the evidence. Whatever it started and does not hand
over it has killed and reaped before it returns, also when it is cancelled.
"""
