"""OP5: files of plain lines are read without tomllib, and mean what tomllib says they mean."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passenger_trio.core.config_text import _read_plain, read_app_file

LINES = (
    'root = "../shop"', 'base_uri="/a b#c"', "min_instances = 0", "reload = true", "a = false # no", "# only this", "", "\t",
    'name = "\u00e9"', "n = 9007199254740991", "x = 01", 'x = "a\\"b"', "x = 'literal'", "x = 1.5", "x = [1]", "[env]",
    'x = "a', 'a.b = "c"', "min_instances = 1", "x = 1_000", 'x = "" # "', 'x = "a" "b"', "a-b = 1", '"q" = 1', "x = 0x1",
    'y\t=\t"\x0b"', "# \x7f", 'root = "\x85"',
)  # fmt: skip


@given(st.lists(st.sampled_from(LINES) | st.text(max_size=12), max_size=6))
def test_OP5_what_is_read_as_plain_lines_is_what_tomllib_reads(lines: list[str]) -> None:
    text = "\n".join(lines).replace("\r", "")
    plain = _read_plain(text)
    if plain is not None:
        values, numbers = plain
        document = tomllib.loads(text)
        assert values == document
        assert {name: type(value) for name, value in values.items()} == {
            name: type(document[name]) for name in document
        }
        assert all(text.split("\n")[at - 1].split("=")[0].strip() == name for name, at in numbers.items())


def test_OP5_the_usual_file_is_plain_and_its_settings_have_their_lines() -> None:
    text = '# the shop\nroot = "../shop"\nmin_instances = 0\n\nreload = true # today\n'
    assert _read_plain(text) is not None
    [table] = read_app_file(text, "shop.toml").apps
    assert {name: (setting.value, setting.line) for name, setting in table.items()} == {
        "root": ("../shop", 2),
        "min_instances": (0, 3),
        "reload": (True, 5),
    }


@pytest.mark.parametrize("text", ["x = 1\nx = 2", "x = 01", 'x = "a\\n"', "[env]\nA = 1", 'x = "\x7f"'])
def test_OP5_what_may_mean_more_is_left_to_tomllib(text: str) -> None:
    assert _read_plain(text) is None
