"""Listening sockets and accepting: from the error_kernel's queue to a connection."""
