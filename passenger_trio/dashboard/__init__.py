"""The dashboard: a local page of one instance (``passenger-trio dashboard``), in a process of its own (OB8).

``view`` interprets the answers of the admin API, ``page`` writes them as HTML, and ``server`` serves the page on the loopback
address. The dashboard uses the admin API like any program of the same user, so the server itself knows nothing of it.
"""
