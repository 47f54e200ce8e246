"""The shell command that starts an application: the text for ``sh -c``.

A shell between the server and the program does harm: its pid is not the program's, and a signal
ends the shell before the program has ended. So if the command is one program, the program replaces the shell
(``exec``). For any other command the shell waits for the program that it runs, even after SIGTERM.
"""

from __future__ import annotations

import shlex

__all__ = ["is_one_program", "shell_text"]

_WORDS = (
    ". : ! [ { alias break builtin case cd command continue declare do done echo eval exec exit export false for function getopts hash if "
    "kill let local printf read readonly return set shift source test time times trap true type typeset ulimit umask unalias unset "
    "until wait while"
)
_BUILTINS = frozenset(_WORDS.split())
_OPERATORS = frozenset("|&;()")


def is_one_program(command: str) -> bool:
    """Whether ``exec`` may precede the command. In doubt: no."""
    if "\n" in command or "`" in command:
        return False
    lexer = shlex.shlex(command, posix=False, punctuation_chars=True)
    lexer.commenters = ""
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return False  # an unclosed quote: the shell reports it
    if not words or words[0] in _BUILTINS or "=" in words[0] or set(words[0]) & set("<>"):
        return False
    return not any(set(word) <= _OPERATORS for word in words)


def shell_text(command: str) -> str:
    """The argument of ``sh -c``."""
    return f"exec {command}" if is_one_program(command) else f"trap 'exit 143' TERM\n{command}"
