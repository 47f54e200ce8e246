"""The system's users and groups, by name or number, as ``core.users`` takes them.

Within ``remembering`` each user is looked up once, because thousands of applications have the same few users (OP5). Outside of it
nothing is kept, because users come and go while the server runs.

Law: when descriptors are short, the C library reports that an entry does not exist, or gives a user fewer groups than it has. So each
function first opens the files that the library will read, and raises ``OSError`` if it cannot (KE2).
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from passenger_trio.core.users import Account

__all__ = ["account_of", "find_account", "find_group", "groups_of", "nobody", "remembered", "remembering"]

_F = TypeVar("_F", bound=Callable[..., Any])

_NOBODY = 65534
"""The number of ``nobody`` and ``nogroup`` if no entry has that name."""


_known: ContextVar[dict[Any, Any] | None] = ContextVar("_known", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Look up each user only once while the block runs. A nested block changes nothing."""
    if _known.get() is not None:
        yield
        return
    token = _known.set({})
    try:
        yield
    finally:
        _known.reset(token)


def remembered(look_up: _F) -> _F:
    """A function that, within ``remembering``, calls ``look_up`` only once for the same arguments."""

    @functools.wraps(look_up)
    def find(*arguments: Any) -> Any:
        known = _known.get()
        if known is None:
            return look_up(*arguments)
        key = look_up, arguments
        if key not in known:
            known[key] = look_up(*arguments)
        return known[key]

    return find  # type: ignore[return-value]


_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _check_readable(path: str) -> None:
    """Check that a file can be opened.

    :raises OSError: no descriptor, or no memory, is left.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in _LACKS:
            raise


@remembered
def find_account(text: str) -> Account | None:
    """The user with this name; else, of digits, the user with this number, which need not have an
    entry. None: there is none.

    :raises OSError: see the law. So do the others.
    """
    _check_readable("/etc/passwd")
    try:
        return _account(pwd.getpwnam(text))
    except KeyError:
        return account_of(int(text)) if _is_number(text) else None


@remembered
def account_of(uid: int) -> Account:
    """The user with this number. Without an entry: its group has the same number, its home is ``/``."""
    _check_readable("/etc/passwd")
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return Account(uid, uid)


@remembered
def find_group(text: str) -> int | None:
    """The number of the group with this name, or with this number. None: there is none."""
    _check_readable("/etc/group")
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        return int(text) if _is_number(text) else None


@remembered
def nobody() -> Account:
    """The user for programs that should have no rights."""
    return find_account("nobody") or Account(_NOBODY, _NOBODY, "nobody")


@remembered
def groups_of(account: Account, gid: int) -> tuple[int, ...]:
    """The groups of a user whose main group is ``gid``, as ``initgroups`` sets them."""
    _check_readable("/etc/group")
    return tuple(os.getgrouplist(account.name, gid)) if account.name else (gid,)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < 2**32 - 1
