"""Several fronts on one pool: the messages and the two ledgers, without I/O. ARCHITECTURE.md (Fronts) has the protocol."""
