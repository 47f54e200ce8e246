"""Limits of one application's processes: which limits of the kernel its options mean (OP9).

Pure: ``system.resource_limits`` sets them. A value is both the soft and the hard limit. 0 (or an empty text) leaves the server's
own.

Law: a limit that the server may not grant is an error before anything starts. It is never found out by a process that fails
to start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import attrs

from passenger_trio.core.option_values import parse_size
from passenger_trio.errors import OptionError
from passenger_trio.late_classes import frozen
from passenger_trio.options import AppOptions

__all__ = ["UNLIMITED", "AppLimits", "Rights", "check_grantable", "limits_of", "parse_core"]

UNLIMITED = -1
"""As the kernel's RLIM_INFINITY."""
_LONGEST = 2**63 - 1


@frozen
class AppLimits:
    """:ivar resources: name of a resource (``NOFILE``) -> limit, or ``UNLIMITED``.
    :ivar nice: None: the server's own.
    """

    resources: Mapping[str, int] = attrs.field(factory=dict)
    nice: int | None = None

    def __bool__(self) -> bool:
        return bool(self.resources) or self.nice is not None


def limits_of(app: AppOptions) -> AppLimits:
    """The limits of an application's processes.

    :raises OptionError: ``core`` is not a size.
    """
    if _SAID(app) == _NOTHING_SAID:  # the usual case: most applications set no limit
        return _NO_LIMITS
    wanted = {
        "NOFILE": app.open_files or None,
        "NPROC": app.processes or None,
        "CORE": parse_core(app.core),
        "AS": app.address_space or None,
        "CPU": max(1, round(app.cpu_time)) if app.cpu_time else None,
    }
    return AppLimits({name: value for name, value in wanted.items() if value is not None}, app.nice or None)


_SAID: Callable[[AppOptions], tuple[Any, ...]] = attrgetter(
    "open_files", "processes", "core", "address_space", "cpu_time", "nice"
)
_NOTHING_SAID = _SAID(AppOptions())
_NO_LIMITS = AppLimits()


def parse_core(text: str, option: str = "--core") -> int | None:
    """The largest core file: bytes from ``0``, ``64M``, or ``unlimited``. None from ``""``.

    :raises OptionError: not one of these.
    """
    if text == "":
        return None
    if text == "unlimited":
        return UNLIMITED
    try:
        return min(parse_size(text, option), _LONGEST)
    except OptionError:
        raise OptionError(option, text, "a size (0: no core files; 64M), or unlimited") from None


_OPTION_OF = {
    "NOFILE": "--open-files",
    "NPROC": "--processes",
    "CORE": "--core",
    "AS": "--address-space",
    "CPU": "--cpu-time",
}


@frozen
class Rights:
    """What the server may grant. Root in a container often lacks some of root's capabilities.

    :ivar may_raise: limits above its own hard ones (CAP_SYS_RESOURCE).
    :ivar may_hasten: a nice value below its own (CAP_SYS_NICE).
    :ivar most_files: open files of any process that the kernel allows; ``UNLIMITED``: unknown.
    :ivar hard: its own hard limit of a resource, or ``UNLIMITED``.
    :ivar nice: its own nice value.
    """

    may_raise: bool
    may_hasten: bool
    most_files: int
    hard: Callable[[str], int]
    nice: int


def check_grantable(limits: AppLimits, rights: Rights) -> None:
    """:raises OptionError: the server may not set a limit so high, or a nice value so low."""
    for name, value in limits.resources.items() if not rights.may_raise else ():
        most = rights.hard(name)
        if most != UNLIMITED and (value == UNLIMITED or value > most):
            raise OptionError(
                _OPTION_OF[name],
                "unlimited" if value == UNLIMITED else value,
                f"the server's own hard limit is {most}, and only root can raise it (in a container: with CAP_SYS_RESOURCE)",
            )
    files = limits.resources.get("NOFILE", 0)
    if UNLIMITED != rights.most_files < files:
        raise OptionError(_OPTION_OF["NOFILE"], files, f"the kernel allows {rights.most_files} (fs.nr_open)")
    if limits.nice is not None and limits.nice < rights.nice and not rights.may_hasten:
        raise OptionError(
            "--nice",
            limits.nice,
            f"the server's own is {rights.nice}, and only root can lower it (in a container: with CAP_SYS_NICE)",
        )
