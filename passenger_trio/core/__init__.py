"""The decisions of passenger_trio: facts in, commands out.

Nothing here knows of a clock, of randomness, of I/O or of a logger: ``now`` and every random number are arguments. A fact is
a method call on ``policy.PoolPolicy``; the answer is a list of frozen command objects (``commands``), which the shells in
``passenger_trio.pool`` perform. A synchronous method is atomic under Trio, so the state needs no lock. Because the policy is a
function of (state, fact, now), any history can be replayed in a unit test.

The laws that always hold are code, in ``invariants``.
"""
