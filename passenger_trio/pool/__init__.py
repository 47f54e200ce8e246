"""Holding application processes: the shell around ``core.policy``.

Facts go down to the policy as method calls, its commands come back and are performed at once and in order (``perform``). Nothing here decides
about capacity, routing or retries. The nursery tree: the pool's nursery holds the clock and one *group task* for each application group; a group task holds the
preloader keeper, the spawn attempts and the process keepers.

What ``server/`` knows of the pool is in ARCHITECTURE.md (the pool seam). The policy, and the performing of its commands, are the one thing of which an unexpected exception ends the server (KE1).
"""
