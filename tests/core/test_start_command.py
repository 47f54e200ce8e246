"""Which start commands replace their shell."""

from __future__ import annotations

import subprocess

import pytest

from passenger_trio.core.start_command import is_one_program, shell_text


@pytest.mark.parametrize(
    "command",
    [
        "php -S 127.0.0.1:$PORT",
        "gunicorn -b unix:$SOCKET 'app:make(1; 2)'",
        'uvicorn "a&b:app" --port ${PORT}',
        "./server",
        "node server.js >log 2>&1",
        "python -m http.server $PORT # all of it",
        "perl app.pl < /dev/null",
        "env A=b ./server",
        "read@home --port $PORT",
        "sh -c 'cd x && y'",
    ],
)
def test_one_program_replaces_the_shell(command: str) -> None:
    assert is_one_program(command)
    assert shell_text(command) == f"exec {command}"


@pytest.mark.parametrize(
    "command",
    [
        "cd public && php -S 127.0.0.1:$PORT",
        "a; b",
        "a b#c; d",
        "a | b",
        "a & wait",
        "a&&b",
        "(a)",
        "A=b ./server",
        "exec ./server",
        "if true; then a; fi",
        "{ a; }",
        "a $(b)",
        "a `b`",
        "a\nb",
        "export A=b",
        "a 'b",
        "",
        ">x a",
        ". ./env.sh",
    ],
)
def test_more_than_that_does_not(command: str) -> None:
    assert not is_one_program(command)


@pytest.mark.os
@pytest.mark.parametrize(
    "command",
    [
        "echo x >&2; printf '%s\\n' 'a  b'",
        "printf '%s\\n' 'a  b'",
        "env printf '%s\\n' 'a  b' # c",
        "A='a  b' sh -c 'echo \"$A\"'",
    ],
)
def test_the_shell_does_what_it_would_have_done(command: str) -> None:
    outputs = [
        subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=True).stdout
        for text in (command, shell_text(command))
    ]
    assert outputs[0] == outputs[1] == "a  b\n"
