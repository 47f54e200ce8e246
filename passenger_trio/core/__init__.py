"""The decisions of passenger_trio: facts in, commands out.

Nothing here knows a clock, randomness, I/O or a logger: ``now`` and every random number are arguments.
A fact is a method call on ``policy.PoolPolicy``. The answer is a list of frozen command objects
(``commands``), which the shells in ``passenger_trio.pool`` perform. A synchronous method is atomic
under Trio, so the state needs no lock. The policy is a function of (state, fact, now), so a unit test
can replay any history.

``invariants`` contains the laws that always hold, as code.
"""
