"""Listening sockets and accepting: from the kernel's queue to a connection."""
