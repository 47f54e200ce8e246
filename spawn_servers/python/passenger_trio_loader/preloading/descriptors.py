"""Which descriptors are open, and whether forked processes may share them.

Files and directories are shared without harm. Everything else is described for a person.
"""

import stat
from os import fstat, listdir, readlink
from socket import AF_INET, AF_INET6, AF_UNIX, SO_ACCEPTCONN, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from socket import socket as Socket

KINDS_OF_DESCRIPTORS = {"eventpoll": "epoll", "inotify": "inotify"}
"""The kernel's name of an anonymous inode -> kind of the hazard. All others are of the kind ``descriptor``."""
HARMLESS_INODES = ("pidfd",)
DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/")
"""Devices whose drivers do not survive a fork."""


def descriptors():
    """Number -> (mode, target of its link in /proc) of all open descriptors, without files and directories."""
    found = {}
    try:
        numbers = listdir("/proc/self/fd")
    except OSError:
        return found
    for number in numbers:
        try:
            mode = fstat(int(number)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                found[int(number)] = (mode, readlink("/proc/self/fd/" + number))
        except OSError:
            pass  # The descriptor of the listing itself.
    return found


def judge_descriptor(number, mode, target):
    """(kind, text) of the hazard that a descriptor is. None: it is harmless."""
    if stat.S_ISSOCK(mode):
        return "socket", describe_socket(number)
    if stat.S_ISFIFO(mode):
        return "pipe", "a pipe (descriptor %d)" % number if target.startswith("pipe:") else "the pipe %s" % target
    if target.startswith("anon_inode:"):
        name = target[len("anon_inode:") :].strip("[]")
        if name in HARMLESS_INODES:
            return None
        kind = KINDS_OF_DESCRIPTORS.get(name, "descriptor")
        return kind, "%s %s descriptor (%d)" % ("an" if kind in ("epoll", "inotify") else "the", name, number)
    if target.startswith(DEVICES):
        return "descriptor", "the device %s" % target
    return None


def describe_socket(number):
    bare = Socket(fileno=number)
    try:
        if bare.type & 15 == SOCK_STREAM and bare.getsockopt(SOL_SOCKET, SO_ACCEPTCONN):
            return "a socket that listens on %s" % shown_address(bare.getsockname())
        kind = "Unix" if bare.family == AF_UNIX else "UDP" if bare.type & 15 == SOCK_DGRAM else "TCP"
        if bare.family not in (AF_UNIX, AF_INET, AF_INET6):
            kind = "special"
        try:
            peer = shown_address(bare.getpeername())
        except OSError:
            return "a %s socket (descriptor %d)" % (kind, number)
        return "a %s connection to %s" % (kind, peer) if peer else "one of two connected %s sockets" % kind
    except OSError:
        return "a socket (descriptor %d)" % number
    finally:
        bare.detach()


def shown_address(address):
    if isinstance(address, tuple) and len(address) >= 2:
        return ("[%s]:%s" if ":" in str(address[0]) else "%s:%s") % address[:2]
    if isinstance(address, bytes):
        address = "@" + address.strip(b"\0").decode("utf-8", "replace")
    return str(address)
