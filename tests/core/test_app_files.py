"""OP4: which files of --apps-dir are served, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.core.apps_dir_plan import choose
from passenger_trio.options import AppOptions


def app(name: str, where: str = "", least: int = 1, **more: Any) -> AppOptions:
    return AppOptions(name=name, base_uri=where or f"/{name}", min_instances=least, **more)


A, B, C = app("a"), app("b"), app("c")


@pytest.mark.parametrize(
    ("fixed", "wanted", "before", "most", "served", "refused"),
    [
        ([], {"a": A, "b": B}, {}, 6, {"a": A, "b": B}, []),
        ([], {"a": A, "b": app("a", "/b")}, {}, 6, {"a": A}, ["b"]),
        ([], {"a": A, "b": app("b", "/a")}, {}, 6, {"a": A}, ["b"]),
        # Who was served before comes first, also if another file's name comes before.
        ([], {"a": app("c", "/x"), "c": C}, {"c": C}, 6, {"c": C}, ["a"]),
        # The version before goes on where the new one stands in another's way.
        ([], {"a": A, "b": app("a", "/b")}, {"a": A, "b": B}, 6, {"a": A, "b": B}, ["b"]),
        ([app("a", "/z")], {"a": A, "b": B}, {}, 6, {"b": B}, ["a"]),
        ([], {"a": A, "b": B, "c": C}, {}, 2, {"a": A, "b": B}, ["c"]),
        ([app("f", least=2)], {"a": A, "b": app("b", least=0)}, {}, 2, {"b": app("b", least=0)}, ["a"]),
        ([], {"a": app("a", least=5), "b": B}, {"a": A, "b": B}, 2, {"a": A, "b": B}, ["a"]),
        ([], {"a": app("a", "/x", host_name=("a.test",)), "b": app("b", "/x")}, {}, 6, None, []),
    ],
)
def test_choice(
    fixed: list[AppOptions],
    wanted: dict[str, AppOptions],
    before: dict[str, AppOptions],
    most: int,
    served: dict[str, AppOptions] | None,
    refused: list[str],
) -> None:
    choice = choose(fixed, wanted, before, most)
    assert choice.served == (wanted if served is None else served)
    assert list(choice.refused) == refused
