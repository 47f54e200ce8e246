"""Which user an application runs as: decided from the server's user, the options, and the owner of the startup file (OP8).

The first row that applies decides:

======================================================  ==================================================
the application has ``user``                            that user (only root can become another user)
the server is not root                                  the server's own user
``--user`` names a user (also root)                     the server's own user: it has become that user by then
a program embeds the server                             the program's own user: the program decides
the startup file belongs to another user than root      that user
else                                                    ``nobody``, with a warning: root only if named
======================================================  ==================================================

The group is ``group``, else the user's own. Group 0 is taken only by name, or for root.

Pure: the caller looks up accounts and files. Law: the result is root only if root was asked for by name, or if the
server was told to stay root.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping

from passenger_trio.late_classes import frozen

__all__ = ["Account", "Because", "Choice", "choose_user", "environment_of", "is_allowed", "may_become"]


@frozen
class Account:
    """A user, as in the system's database of users.

    :ivar name: ``""`` if the number has no entry.
    """

    uid: int
    gid: int
    name: str = ""
    home: str = "/"
    shell: str = "/bin/sh"

    @property
    def shown(self) -> str:
        """For messages: ``shop (uid 1001)``."""
        return f"{self.name} (uid {self.uid})" if self.name else f"uid {self.uid}"


class Because(enum.Enum):
    """Why an application runs as its user: the rows of the table."""

    ASKED = "as its option user says"
    OWNER = "who owns its startup file"
    ROOTS_FILE = "because its startup file belongs to root"


@frozen
class Choice:
    """The user and group to become.

    :ivar gid: the main group.
    """

    account: Account
    gid: int
    because: Because


def choose_user(
    *,
    euid: int,
    is_named: bool,
    is_embedded: bool,
    user: Account | None,
    group: int | None,
    owner: Account,
    nobody: Account,
) -> Choice | None:
    """The user for an application's programs. None: the server's own.

    :param euid: the server's user.
    :param is_named: whether ``--user`` named the server's user.
    :param user: the value of the option ``user``, if it is given and names another user than the server's own.
    :param group: the value of the option ``group``, if it is given.
    :param owner: of the startup file.
    :param nobody: the user for what belongs to root.
    """
    if user is not None:
        chosen, because = user, Because.ASKED
    elif euid != 0 or is_named or is_embedded:
        return None
    elif owner.uid != 0:
        chosen, because = owner, Because.OWNER
    else:
        chosen, because = nobody, Because.ROOTS_FILE
    gid = chosen.gid if group is None else group
    if gid == 0 and group is None and chosen.uid != 0:
        gid = nobody.gid
    return Choice(chosen, gid, because)


def may_become(euid: int, uid: int) -> bool:
    """Whether a server of user ``euid`` can start programs as user ``uid``."""
    return euid in (0, uid)


def is_allowed(uid: int, groups: Collection[int], owner: int, group: int, mode: int, wanted: int) -> bool:
    """Whether permission bits allow a user something (path_resolution(7)): the bits of the first class that fits count.

    :param groups: all groups of the user. :param owner: of the file, as ``group`` and ``mode`` are.
    :param wanted: 4: read; 2: write; 1: run a file, or go through a directory.
    """
    if uid == 0:
        return True
    shift = 6 if uid == owner else 3 if group in groups else 0
    return mode >> shift & wanted == wanted


_OF_A_SESSION = ("XDG_", "SUDO_", "SSH_", "DBUS_", "GPG_", "GNUPG")
"""Beginnings of variables that belong to the login of the user who started the server."""
_OF_A_LOGIN = frozenset({"MAIL", "LS_COLORS", "DISPLAY", "XAUTHORITY", "USERNAME", "OLDPWD"})


def environment_of(account: Account, base: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that becomes another user: without the variables of the server's own login, and with the
    new user's HOME, USER, LOGNAME and SHELL.
    """
    kept = {
        name: value for name, value in base.items() if not name.startswith(_OF_A_SESSION) and name not in _OF_A_LOGIN
    }
    name = account.name or str(account.uid)
    return {**kept, "HOME": account.home, "USER": name, "LOGNAME": name, "SHELL": account.shell}
