"""Configuration files: what they say and on which line; what they cannot say."""

from __future__ import annotations

import pytest

from passenger_trio.core.config_text import read_passengerfile, read_toml
from passenger_trio.errors import ConfigError

GOOD = """\
# a comment with port = 1
[server]
port = 8080

[pool]
max_pool_size = 4

[[app]]
root = "shop"
env = { DEBUG = "1" }

[[app]]
root = "blog"
host_name = ["blog.test"]
"""


def test_tables_and_lines() -> None:
    text = read_toml(GOOD, "x.toml")
    assert (text.server["port"].value, text.server["port"].line) == (8080, 3)
    assert text.pool["max_pool_size"].line == 6
    assert [app["root"].value for app in text.apps] == ["shop", "blog"]
    assert [app["root"].line for app in text.apps] == [9, 13]
    assert text.where(text.apps[1]["host_name"]) == "x.toml:14"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[pool]\nmax_pol_size = 3", "x.toml:2: there is no option max_pol_size; did you mean max_pool_size?"),
        ("\n[srever]\nport = 1", "x.toml:2: there is no table srever; did you mean server?"),
        ("[server]\nmax_pool_size = 3", "x.toml:2: max_pool_size belongs in [pool]"),
        ("[pool]\n\nmin_instances = 3", "x.toml:3: min_instances belongs in [[app]]"),
        ("[[app]]\nroot='a'\n[[app]]\nrott='b'", "x.toml:4: there is no option rott; did you mean root?"),
        ("[pool\n", "x.toml: it is not valid TOML"),
        ("server = 3", "x.toml:1: server must be a table"),
        ("zzz = 3", "x.toml:1: there is no table zzz; there are: server, pool, app"),
    ],
)
def test_what_it_cannot_say_is_said_with_its_line_and_a_suggestion(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(text, "x.toml")
    assert str(caught.value).startswith(complaint)
    assert caught.value.exit_code == 2


def test_a_single_application_may_be_a_plain_table() -> None:
    assert len(read_toml("[app]\nroot = 'a'", "x").apps) == 1


def test_a_passengerfile_is_translated_and_what_means_nothing_is_named() -> None:
    text = read_passengerfile(
        '{\n "port": 4000,\n "max_pool_size": 2,\n "envvars": {"A": "b"},\n "memory_limit": 100,\n "log_level": 5,\n "nodejs": "/usr/bin/node", "app_start_command": "x $PORT", "meteor": "y"}',
        "p.json",
    )
    assert (text.server["port"].value, text.server["port"].line) == (4000, 2)
    assert text.server["log_level"].value == "debug"
    assert text.pool["max_pool_size"].value == 2
    assert text.apps[0]["env"].value == {"A": "b"}
    assert text.apps[0]["memory_limit"].value == "100M"
    assert (text.apps[0]["node"].value, text.apps[0]["app_start_command"].value) == ("/usr/bin/node", "x $PORT")
    assert text.ignored == ("meteor",)


@pytest.mark.parametrize(
    ("passenger", "table", "name", "ours"),
    [
        ('"friendly_error_pages": true', "app", "friendly_error_pages", "on"),
        ('"friendly_error_pages": false', "app", "friendly_error_pages", "off"),
        ('"friendly_error_pages": "auto"', "app", "friendly_error_pages", "auto"),
        ('"memory_limit": "1G"', "app", "memory_limit", "1G"),
        ('"log_level": 0', "server", "log_level", "error"),
        ('"log_level": 7', "server", "log_level", "debug"),
        ('"log_level": 8', "server", "log_level", 8),
        ('"log_level": -1', "server", "log_level", -1),
        ('"log_level": "info"', "server", "log_level", "info"),
    ],
)
def test_values_of_passenger(passenger: str, table: str, name: str, ours: object) -> None:
    text = read_passengerfile("{" + passenger + "}", "p.json")
    assert {"app": text.apps[0], "server": text.server}[table][name].value == ours


@pytest.mark.parametrize("text", ["[1]", "{", '"x"'])
def test_a_passengerfile_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError):
        read_passengerfile(text, "p.json")
