"""The user that the programs of an application run as: collects the facts for ``core.users``, which decides.

``run_as`` looks up accounts and the owner of the startup file. The spawners use the result, a ``RunAs``."""

from __future__ import annotations

import os
import sys

from passenger_trio.core.fronts.front_count import front_count
from passenger_trio.core.users import Account, Because, choose_user, may_become
from passenger_trio.errors import NothingToServe, OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.log_lines import processes as lines
from passenger_trio.options import AppOptions, ServerOptions
from passenger_trio.spawning.accounts import account_of, find_account, find_group, groups_of, nobody, remembered
from passenger_trio.spawning.detect import DetectedApp
from passenger_trio.spawning.user_access import what_is_closed
from passenger_trio.system.processor_quota import cpus

__all__ = ["RunAs", "check_fronts", "check_reach", "find_server_user", "log_choice", "log_more", "run_as"]


@frozen
class RunAs:
    """The user of an application's programs.

    :ivar gid: the main group.
    :ivar groups: the supplementary groups.
    """

    account: Account
    gid: int
    groups: tuple[int, ...]
    because: Because

    @property
    def uid(self) -> int:
        return self.account.uid


def run_as(app: AppOptions, detected: DetectedApp, *, server_user: str, is_embedded: bool) -> RunAs | None:
    """The user of an application's programs. None: the server's own.

    :param server_user: the value of ``--user``.
    :param is_embedded: whether a program embeds the server.
    :raises OptionError: the user or group does not exist, or the server may not become it.
    """
    if not (app.user or app.group) and (server_user or is_embedded or os.geteuid() != 0):
        return None
    euid = os.geteuid() if not server_user else find_server_user(server_user).uid
    user, group = None, None
    if app.user:
        user = find_account(app.user)
        if user is None:
            raise OptionError("--app-user", app.user, "there is no such user")
        if not may_become(euid, user.uid):
            raise OptionError(
                "--app-user",
                app.user,
                f"the server runs as {account_of(euid).shown}: only root can run it as another user",
            )
        if user.uid == euid and not app.group:
            return None
    if app.group:
        group = find_group(app.group)
        if group is None:
            raise OptionError("--app-group", app.group, "there is no such group")
        if euid != 0:
            raise OptionError("--app-group", app.group, "only a server that root started can choose a group")
        user = user or (account_of(0) if server_user or is_embedded else None)
    choice = choose_user(
        euid=euid,
        is_named=bool(server_user),
        is_embedded=is_embedded,
        user=user,
        group=group,
        owner=account_of(_owner(detected)),
        nobody=nobody(),
    )
    if choice is None:
        return None
    return RunAs(choice.account, choice.gid, groups_of(choice.account, choice.gid), choice.because)


@remembered
def find_server_user(name: str) -> Account:
    """The account of ``--user``.

    :raises OptionError: it does not exist, or the server may not become it.
    """
    account = find_account(name)
    if account is None:
        raise OptionError("--user", name, "there is no such user")
    if not may_become(os.geteuid(), account.uid):
        raise OptionError("--user", name, f"the server was started by {account_of(os.geteuid()).shown}: only root can")
    return account


def check_reach(app: AppOptions, detected: DetectedApp, choice: RunAs | None, server_user: str) -> None:
    """Check that the user of an application can start it.

    :param choice: the result of ``run_as``.
    :raises NothingToServe: that user cannot reach the directory, the startup file or the interpreter.
    """
    if choice is None:
        if not server_user:
            return
        account = find_server_user(server_user)
        if account.uid == os.geteuid():
            return
        gid, groups, why = account.gid, groups_of(account, account.gid), "as --user says"
    else:
        account, gid, groups, why = choice.account, choice.gid, choice.groups, choice.because.value
    for path, runs in ((detected.startup_file or detected.root, False), (detected.python, True)):
        closed = what_is_closed(path, account.uid, gid, groups, runs=runs)
        act = "run" if runs else "read"
        if closed:
            at = "" if closed == path else f" ({closed} is closed to that user)"
            raise NothingToServe(
                f"{app.name or detected.root} would run as {account.shown}, {why}, and this user cannot {act} {path}{at}: "
                f"open it, or {_ways_out(choice, runs=runs)}"
            )


def _ways_out(choice: RunAs | None, *, runs: bool) -> str:
    other = ", or give an interpreter that all can run" if runs else ""
    if choice is None:
        return f"give --user another user{other}"
    return f"give it another user: --app-user NAME (user in an [[app]] table), or --user root to run all as root{other}"


def check_fronts(server: ServerOptions) -> None:
    """Check that the user of ``--user`` can start front processes, if there are any.

    :raises OptionError: the user does not exist, the server may not become it, or it cannot run the server's interpreter.
    """
    account = find_server_user(server.user)
    if account.uid == os.geteuid() or front_count(server.fronts, cpus()) < 2:
        return
    closed = what_is_closed(sys.executable, account.uid, account.gid, groups_of(account, account.gid), runs=True)
    if closed:
        at = "" if closed == sys.executable else f" ({closed} is closed to that user)"
        raise OptionError(
            "--user",
            server.user,
            f"with --fronts this user runs {sys.executable}, and cannot{at}: install passenger-trio where that user "
            "can run it, or leave out --fronts",
        )


def log_choice(name: str, root: str, choice: RunAs | None) -> None:
    """Log the user that an application runs as."""
    if choice is None:
        return
    if choice.because is Because.ROOTS_FILE:
        lines.runs_as_nobody(group=name, user=choice.account.shown, directory=root)
    else:
        lines.runs_as(group=name, user=choice.account.shown, reason=choice.because.value)


def log_more(count: int, user: str, because: Because) -> None:
    """Log the user of the applications that got no line of their own (``log_choice``)."""
    if because is Because.ROOTS_FILE:
        lines.more_run_as_nobody(groups=count, user=user)
    else:
        lines.more_run_as(groups=count, user=user, reason=because.value)


def _owner(detected: DetectedApp) -> int:
    """The owner of the startup file itself, also if that is a symbolic link; of the directory if there is no such file."""
    for path in (detected.startup_file, detected.root):
        if path:
            try:
                return os.lstat(path).st_uid
            except OSError:
                continue
    return 0
