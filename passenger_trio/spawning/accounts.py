"""The system's users and groups, by name or number, as ``core.users`` takes them."""

from __future__ import annotations

import grp
import os
import pwd

from passenger_trio.core.users import Account

__all__ = ["account_of", "find_account", "find_group", "groups_of", "nobody"]

_NOBODY = 65534
"""The number of ``nobody`` and ``nogroup`` where no entry has that name."""


def find_account(text: str) -> Account | None:
    """The user with this name; else, of digits, the user with this number, which need not have an
    entry. None: there is none.
    """
    try:
        return _account(pwd.getpwnam(text))
    except KeyError:
        return account_of(int(text)) if _is_number(text) else None


def account_of(uid: int) -> Account:
    """The user with this number. Without an entry: its group has the same number, its home is ``/``."""
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return Account(uid, uid)


def find_group(text: str) -> int | None:
    """The number of the group with this name, or with this number. None: there is none."""
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        return int(text) if _is_number(text) else None


def nobody() -> Account:
    """The user for what should have no rights."""
    return find_account("nobody") or Account(_NOBODY, _NOBODY, "nobody")


def groups_of(account: Account, gid: int) -> tuple[int, ...]:
    """The groups of a user whose main group is ``gid``, as ``initgroups`` sets them."""
    return tuple(os.getgrouplist(account.name, gid)) if account.name else (gid,)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 2**32 - 1
