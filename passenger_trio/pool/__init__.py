"""Holds the application processes: the Trio code around ``core.policy``.

Facts go down to the policy as method calls. Its commands come back, and ``perform`` performs them
at once and in order. Nothing here decides about capacity, routing or retries.

The nursery tree: the pool's nursery holds the clock and one *group task* for each application
group. A group task holds the preloader keeper, the spawn attempts and the process keepers.

ARCHITECTURE.md (the pool seam) lists what ``server/`` uses of the pool. Only an unexpected
exception in the policy, or in performing its commands, ends the server (KE1).
"""
