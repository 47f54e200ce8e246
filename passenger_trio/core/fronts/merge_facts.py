"""The counters of several fronts as those of one (FR5).

The owner's own facts are the pattern for ``merge_facts``: a front's facts must have the same members, or are rejected. Numbers
are added. Counters by name (``_BY_NAME``) may have names that the owner lacks. Any other value is taken from the owner.

Law: a front's facts never change the shape of the result, except for the names in counters by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from passenger_trio.errors import BadFrontMessage

__all__ = ["check_requests", "merge_facts"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_BY_NAME = frozenset({"rejected", "errors"})
"""Objects whose members are counters by name. (``access_log`` has ``errors`` as a number.)"""
_FAULTS = "faults"
_FAULT: dict[str, type] = {"count": int, "last": str, "age": float, "failing": bool}


def merge_facts(ours: Mapping[str, Any], theirs: Mapping[str, Any], front: str) -> dict[str, Any]:
    """The sum of two fronts' facts.

    :param theirs: of a front that is not trusted.
    :param front: its name, for the list of faults.
    :raises BadFrontMessage: its facts have other members than ours.
    """
    total = _add_members({name: value for name, value in ours.items() if name != _FAULTS}, theirs, _FAULTS)
    if _FAULTS in ours:
        total[_FAULTS] = _add_faults(ours[_FAULTS], theirs.get(_FAULTS), front)
    return total


def _add_members(ours: Mapping[str, Any], theirs: Mapping[str, Any], but: str = "") -> dict[str, Any]:
    if theirs.keys() - {but} != ours.keys():
        raise BadFrontMessage("a front reports other facts than we have")
    return {name: _add(name, value, theirs[name]) for name, value in ours.items()}


def _add_faults(ours: Mapping[str, Any], theirs: object, front: str) -> dict[str, Any]:
    """Both values of ``error_kernel.ErrorKernel.statistics`` as one. The name of a front's task gets the name of the front."""
    if not isinstance(theirs, dict) or theirs.keys() != ours.keys() or not isinstance(theirs["tasks"], dict):
        raise BadFrontMessage("a front reports its faults as something else")
    tasks = dict(ours["tasks"])
    for name, fault in theirs["tasks"].items():
        if (
            not isinstance(fault, dict)
            or fault.keys() != _FAULT.keys()
            or not all(isinstance(fault[member], kind) for member, kind in _FAULT.items())
        ):
            raise BadFrontMessage("a front reports a fault that is none")
        tasks[f"{name} ({front})"] = fault
    return {"total": ours["total"] + _number("faults", theirs["total"]), "tasks": tasks}


def _add(name: str, ours: Any, theirs: Any) -> Any:
    if isinstance(ours, bool | str) or ours is None:
        return ours
    if isinstance(ours, int | float):
        return ours + _number(name, theirs)
    if not isinstance(theirs, dict):
        raise BadFrontMessage(f"a front reports {name} as something else")
    if name in _BY_NAME:
        sum_ = dict(ours)
        for key, value in theirs.items():
            if not _NAME.fullmatch(key):
                raise BadFrontMessage(f"a front counts in {name} what has no name")
            sum_[key] = sum_.get(key, 0) + _number(name, value)
        return sum_
    return _add_members(ours, theirs)


def _number(name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise BadFrontMessage(f"a front reports {name} as something that is no count")
    return value


_REQUEST: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "method": (str,),
    "path": (str,),
    "group": (str,),
    "client": (str,),
    "stage": (str,),
    "age": (int, float),
    "in_stage": (int, float),
    "queue_time": (int, float),
    "pid": (int, type(None)),
    "buffered": (dict,),
    "relay": (dict, type(None)),
}


def check_requests(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Check the list of requests in flight that a front has sent.

    :raises BadFrontMessage: the value is no such list.
    """
    requests = told.get("requests")
    if not isinstance(requests, list):
        raise BadFrontMessage("a front reports its requests as something else")
    for request in requests:
        if (
            not isinstance(request, dict)
            or request.keys() != _REQUEST.keys()
            or not all(
                isinstance(request[name], kinds) and not isinstance(request[name], bool)
                for name, kinds in _REQUEST.items()
            )
        ):
            raise BadFrontMessage("a front reports a request that is none")
    return requests
