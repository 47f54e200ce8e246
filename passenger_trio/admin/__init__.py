"""Seeing and steering a running instance: a Unix socket, and the directory in which it is found.

The socket has mode 0600 in a directory of mode 0700, and the kernel's credentials of each caller are checked as well (R49); there is no
password that could be empty. ``server`` runs in the supervisor, ``client`` and ``render`` in the command that looks, ``registry`` in both.
"""
