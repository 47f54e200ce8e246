"""Holds the application processes: the Trio code around ``core.policy``.

Facts go down to the policy as method calls. Its commands come back, and ``perform`` performs them
at once and in order. Nothing here decides about capacity, routing or retries.

The nursery tree: the pool's nursery holds the clock and one *group task* for each application
group. A group task holds the preloader keeper, the spawn attempts and the process keepers.

ARCHITECTURE.md (the pool's interface) lists the parts of the pool that ``server/`` uses. An unexpected
exception ends the server only if it comes from the policy, or from performing its commands (KE1).
"""
