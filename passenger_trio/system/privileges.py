"""Giving up root for good (R46).

``drop_privileges`` changes the whole process. It is for a program that owns its process, never for an embedding one.
Law: when it returns, no system call brings root back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["can_be_root_again", "drop_privileges"]


def drop_privileges(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Become this user with these groups, in this whole process and for ever.

    :raises OSError: the kernel refuses.
    :raises RuntimeError: root could be had again.
    """
    os.setgroups(groups)  # first: only root may
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if uid != 0 and can_be_root_again():
        raise RuntimeError("root could be had again")


def can_be_root_again() -> bool:
    """Whether this process can become root. If it can, it is root when this returns."""
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True
