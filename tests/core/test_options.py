"""Quantities as people write them, and the schema that flags and documents come from."""

from __future__ import annotations

import attrs
import pytest

from passenger_trio.core.option_checks import check, check_minimums
from passenger_trio.core.option_values import parse_duration, parse_mode, parse_size
from passenger_trio.errors import OptionError
from passenger_trio.options import AppOptions, Config, PoolOptions, ServerOptions


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        (" 5 m ", 300),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1d", 86400),
        ("2min", 120),
        ("0", 0),
        (7, 7),
        ("5M", 300),
    ],
)
def test_durations(text: str | int, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("64K", 65536),
        ("512m", 512 * 1024**2),
        ("1GiB", 1024**3),
        ("1.5k", 1536),
        ("10b", 10),
        ("2 TB", 2 * 1024**4),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "5x", "1e3", "1 2", "٣", "5m30s", "nan", "inf", "0x10", "1_0", "9" * 400]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_duration(text, "--start-timeout")
    assert caught.value.option == "--start-timeout"
    assert "30s" in caught.value.hint
    with pytest.raises(OptionError):
        parse_size(text)


@pytest.mark.parametrize("options", [AppOptions, PoolOptions, ServerOptions])
def test_every_option_says_what_a_face_must_know(options: type) -> None:
    for field in attrs.fields(options):
        about = field.metadata
        assert about["help"], field.name
        assert about["kind"] in {
            "duration",
            "size",
            "int",
            "flag",
            "path",
            "text",
            "mode",
            "list",
            "choice",
            "pool size",
        }
        assert (about["kind"] == "choice") == bool(about["choices"])
        assert not about["choices"] or field.default in about["choices"] or field.default == ""


def test_short_flags_are_given_once() -> None:
    shorts = [
        field.metadata["short"] for owner in (AppOptions, PoolOptions, ServerOptions) for field in attrs.fields(owner)
    ]
    used = [short for short in shorts if short]
    assert len(used) == len(set(used))


def test_options_do_not_change() -> None:
    config = Config()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.server = ServerOptions()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environment", "pages", "explains"),
    [
        ("development", "auto", True),
        ("production", "auto", False),
        ("production", "on", True),
        ("development", "off", False),
    ],
)
def test_who_gets_error_pages_with_diagnosis(environment: str, pages: str, explains: bool) -> None:
    assert AppOptions(environment=environment, friendly_error_pages=pages).explains_errors is explains


@pytest.mark.parametrize("method", ["", "GET,POST", "GE T", "GET\n", "CONNECT", "É"])
def test_fault_26_a_list_of_methods_has_methods_in_it(method: str) -> None:
    with pytest.raises(OptionError, match="--allowed-methods"):
        check(Config(server=ServerOptions(allowed_methods=(method,))))
    check(Config(server=ServerOptions(allowed_methods=("GET", "M-SEARCH", "brew"))))


def test_minimums_that_do_not_fit_into_the_pool_are_told_with_both_numbers() -> None:
    """OP7, fault 5: seven applications with the default minimum, in the default pool."""
    with pytest.raises(
        OptionError, match=r"--max-pool-size: 6 cannot be used.* 7 applications .* are 7 processes together"
    ):
        check(Config(apps=tuple(AppOptions(root=f"/a{number}") for number in range(7))))
    check(Config(apps=tuple(AppOptions(root=f"/a{number}") for number in range(6))))
    with pytest.raises(OptionError, match=r"--max-pool-size: 2 .*are 3 processes"):
        check_minimums([2, 1], 2)
    with pytest.raises(OptionError, match=r"--min-instances: 3 .*allows 2"):
        check_minimums([3, 0], 2)
    check_minimums([2, 0, 0], 2)
    check_minimums([], 1)


@pytest.mark.parametrize(("text", "mode"), [("0660", 0o660), ("660", 0o660), ("0777", 0o777), ("000", 0)])
def test_a_mode(text: str, mode: int) -> None:
    """Fault 35"""
    assert parse_mode(text) == mode
    check(Config(server=ServerOptions(socket="/s", socket_mode=text)))


@pytest.mark.parametrize("text", ["", "999", "0o660", "1777", "66", "06600", "rw-rw----", "0660 ", "-660", 432])
def test_a_mode_that_is_none(text: str) -> None:
    with pytest.raises(OptionError, match=r"--socket-mode.*three octal digits"):
        check(Config(server=ServerOptions(socket_mode=text)))
