"""``--user``: the whole process becomes another user (R46). Only for the server as a program, not for an embedded server."""

from __future__ import annotations

import os

from passenger_trio.core.users import environment_of
from passenger_trio.errors import OptionError
from passenger_trio.log_lines import processes as lines
from passenger_trio.spawning.accounts import groups_of
from passenger_trio.spawning.run_as import find_server_user
from passenger_trio.system.privileges import drop_privileges

__all__ = ["become_user", "stays"]


def stays(name: str) -> bool:
    """Whether ``--user NAME`` changes nothing.

    :raises OptionError: the user does not exist, or this process may not become it.
    """
    return not name or find_server_user(name).uid == os.geteuid()


def become_user(name: str) -> None:
    """Make this process run as the user from now on, with its groups and its environment.

    :raises OptionError: the user does not exist, or this process may not become it.
    """
    if stays(name):
        return
    account = find_server_user(name)
    try:
        drop_privileges(account.uid, account.gid, groups_of(account, account.gid))
    except OSError as error:
        raise OptionError("--user", name, f"the kernel refuses: {error.strerror}") from error
    environment = environment_of(account, os.environ)
    for variable in set(os.environ) - set(environment):
        del os.environ[variable]
    os.environ.update(environment)
    lines.server_runs_as(user=account.shown)
