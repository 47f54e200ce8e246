"""Errors with the names that an embedding program uses (LI8): a parameter's name (``max_pool_size``) instead of the flag's
(``--max-pool-size``), also in advice that names a command.

The errors are the same objects; only their text and ``OptionError.option`` change."""

from __future__ import annotations

from passenger_trio.errors import OptionError, PassengerError
from passenger_trio.late_patterns import late

__all__ = ["in_words_of_programs", "reword"]

_WORDS = (
    (
        "name it: passenger-trio start module:object (or file.py:object)",
        "name it: target='module:object' (or 'file.py:object')",
    ),
    ("choose another port with -p", "choose another port"),
    ("choose another with -p", "choose another port"),
    ("choose another with -a", "choose another address"),
    ("choose another address with -a or port with -p", "choose another address or port"),
    ("choose another with -S", "choose another socket"),
    ("passenger-trio start ", "root: "),
)
"""Advice for the command line -> for a program."""
_OPTION = late(r"--(no-)?([a-z][a-z-]*[a-z])")


def in_words_of_programs(text: str) -> str:
    """The text of an error, with names of parameters instead of options."""
    for ours, theirs in _WORDS:
        text = text.replace(ours, theirs)
    return _OPTION.sub(lambda found: found[2].replace("-", "_") + ("=False" if found[1] else ""), text)


def reword(error: PassengerError) -> None:
    """Give an error the words of a program."""
    if error.args and isinstance(error.args[0], str):
        error.args = (in_words_of_programs(error.args[0]), *error.args[1:])
    if isinstance(error, OptionError):
        error.option = in_words_of_programs(error.option)
        error.hint = in_words_of_programs(error.hint)
