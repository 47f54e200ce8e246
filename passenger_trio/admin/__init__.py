"""Inspecting and controlling a running instance: a Unix socket, and the directory in which clients
find it.

The socket has mode 0600 in a directory of mode 0700. The server also checks the credentials that
the kernel reports for each caller (R49). There is no password that could be left empty.

``server`` runs in the supervisor, ``client`` and ``render`` run in the command, and ``registry``
runs in both.
"""
