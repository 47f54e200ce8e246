"""The dashboard: a local page of one instance (``passenger-trio dashboard``), in a process of its own (OB8).

``view`` says what the answers of the admin API mean, ``page`` writes them as HTML, ``server`` serves that on the loopback
address. It uses the admin API as any program of the same user may, so the server itself knows nothing of it.
"""
