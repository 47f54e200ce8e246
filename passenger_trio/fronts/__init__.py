"""Fronts in processes of their own: more than one core for serving clients, on one pool (ARCHITECTURE.md, Fronts).

The *owner* is the process with the pool. A *front* is a process that runs ``server/`` with an event loop of its own, on slots that it
leases from the owner. With one front there is neither: the process of the pool serves the connections.

* In a front: ``process`` is its program, ``leased_pool`` the pool's interface on its ledger.
* In the owner: ``front_keeper`` starts a front and replaces it when it dies; ``fronts`` presents all of them as one.
* Between them: a channel of packets for leases (``codecs/front_messages.py``), a stream of orders and reports (``reports``), and a shared
  page with a line for each front (``heartbeats``).
"""
