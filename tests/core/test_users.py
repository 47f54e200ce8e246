"""OP8: which user an application runs as. Every answer has a yes and a no; the mutants of these predicates are in mutants/trust.toml."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.core.users import Account, Because, Choice, choose_user, environment_of, is_allowed, may_become

ROOT = Account(0, 0, "root", "/root", "/bin/bash")
SHOP = Account(1001, 1001, "shop", "/srv/shop", "/bin/bash")
BLOG = Account(1002, 1002, "blog")
NOBODY = Account(65534, 65534, "nobody")
ADMIN = Account(1003, 0, "admin")
"""Its main group is root's."""


def choice(**facts: Any) -> Choice | None:
    usual: dict[str, Any] = {"euid": 0, "is_named": False, "is_embedded": False, "user": None, "group": None}
    return choose_user(**{**usual, "owner": SHOP, "nobody": NOBODY, **facts})


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({}, Choice(SHOP, 1001, Because.OWNER)),
        ({"owner": ROOT}, Choice(NOBODY, 65534, Because.ROOTS_FILE)),
        ({"user": BLOG}, Choice(BLOG, 1002, Because.ASKED)),
        ({"user": BLOG, "owner": ROOT}, Choice(BLOG, 1002, Because.ASKED)),
        ({"user": ROOT}, Choice(ROOT, 0, Because.ASKED)),
        ({"user": BLOG, "is_named": True}, Choice(BLOG, 1002, Because.ASKED)),
        ({"user": BLOG, "is_embedded": True}, Choice(BLOG, 1002, Because.ASKED)),
        ({"group": 7}, Choice(SHOP, 7, Because.OWNER)),
        ({"user": BLOG, "group": 7}, Choice(BLOG, 7, Because.ASKED)),
        ({"owner": ADMIN}, Choice(ADMIN, 65534, Because.OWNER)),
        ({"user": ADMIN}, Choice(ADMIN, 65534, Because.ASKED)),
        ({"user": ADMIN, "group": 0}, Choice(ADMIN, 0, Because.ASKED)),
        ({"is_named": True}, None),
        ({"is_named": True, "owner": ROOT}, None),
        ({"is_embedded": True}, None),
        ({"is_embedded": True, "owner": ROOT}, None),
        ({"euid": 1001, "owner": BLOG}, None),
        ({"euid": 1001, "owner": ROOT}, None),
    ],
)
def test_the_table(facts: dict[str, Any], wanted: Choice | None) -> None:
    """OP8: asked for, else the owner, else nobody; root only by name."""
    assert choice(**facts) == wanted


def test_who_may_become_whom() -> None:
    """OP8: root anybody, others only themselves."""
    assert may_become(0, 0)
    assert may_become(0, 1001)
    assert may_become(1001, 1001)
    assert not may_become(1001, 1002)
    assert not may_become(1001, 0)


@pytest.mark.parametrize(
    ("uid", "mode", "wanted", "allowed"),
    [
        (0, 0o000, 4, True),  # root
        (1001, 0o700, 1, True),  # the owner
        (1001, 0o077, 1, False),  # the class of the owner counts, although others may
        (1002, 0o070, 1, True),  # of the group
        (1002, 0o707, 1, False),  # of the group, although others may
        (65534, 0o001, 1, True),  # any other
        (65534, 0o770, 1, False),
        (65534, 0o001, 4, False),  # another right
        (65534, 0o004, 4, True),
    ],
)
def test_what_permission_bits_allow(uid: int, mode: int, wanted: int, allowed: bool) -> None:
    """OP8: as path_resolution(7) has it. The file is user 1001's and group 500's; user 1002 is in that group."""
    groups = {500} if uid == 1002 else {uid}
    assert is_allowed(uid, groups, 1001, 500, 0o040000 | mode, wanted) is allowed


def test_the_environment_of_another_user() -> None:
    """OP8: HOME, USER, LOGNAME and SHELL are its own; what belongs to the login of root is gone; the rest stays."""
    base = {
        "PATH": "/bin", "LANG": "C", "HOME": "/root", "USER": "root", "LOGNAME": "root", "SHELL": "/bin/zsh",
        "MAIL": "/var/mail/root", "SUDO_USER": "me", "XDG_RUNTIME_DIR": "/run/user/0", "SSH_AUTH_SOCK": "/tmp/agent",
        "DBUS_SESSION_BUS_ADDRESS": "unix:", "DATABASE_URL": "x",
    }  # fmt: skip
    own = {"HOME": "/srv/shop", "USER": "shop", "LOGNAME": "shop", "SHELL": "/bin/bash"}
    assert environment_of(SHOP, base) == {"PATH": "/bin", "LANG": "C", "DATABASE_URL": "x", **own}
    assert environment_of(Account(4711, 4711), base)["USER"] == "4711"


def test_how_accounts_are_shown() -> None:
    assert SHOP.shown == "shop (uid 1001)"
    assert Account(4711, 4711).shown == "uid 4711"
