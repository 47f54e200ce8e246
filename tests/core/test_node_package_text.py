"""What the text of a Node.js project says."""

from __future__ import annotations

from typing import Any

import pytest

from passenger_trio.core.node_package_text import (
    framework_of,
    looks_like_server,
    main_file,
    start_command,
    started_file,
)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("node server.js", "server.js"),
        ("node ./bin/www", "./bin/www"),
        ("NODE_ENV=production node dist/main", "dist/main"),
        ("cross-env NODE_ENV=production DEBUG=* node app.js", "app.js"),
        ("node 'my app.js'", "my app.js"),
        ("node --inspect server.js", ""),
        ("node server.js --port 3000", ""),
        ("node -e 'x'", ""),
        ("node -v", ""),
        ("nodemon server.js", ""),
        ("next start", ""),
        ("node", ""),
        ("", ""),
        ("node 'x", ""),
        ("npm run build && node x.js", ""),
    ],
)
def test_the_file_that_is_started(command: str, file: str) -> None:
    assert started_file(command) == file


@pytest.mark.parametrize(
    "package", [{}, {"scripts": None, "main": 1, "dependencies": []}, {"scripts": {"start": 5}}, {"scripts": ["start"]}]
)
def test_what_is_not_as_it_should_be_says_nothing(package: dict[str, Any]) -> None:
    assert (start_command(package), main_file(package), framework_of(package)) == ("", "", "")


def test_what_a_package_says() -> None:
    package = {"scripts": {"start": " node a.js "}, "main": "b.js", "dependencies": {"lodash": "1", "fastify": "5"}}
    assert (start_command(package), main_file(package), framework_of(package)) == ("node a.js", "b.js", "fastify")


@pytest.mark.parametrize(
    "text",
    [
        "app.listen(3000)",
        "app\n  .listen (port)",
        "const http = require('http')",
        'import { createServer } from "node:http"',
        "import express from 'express'",
        "const Koa = require( 'koa' )",
        "http.createServer(f)",
    ],
)
def test_a_server(text: str) -> None:
    assert looks_like_server(text)


@pytest.mark.parametrize(
    "text",
    ["", "import React from 'react'", "document.addEventListener('x', f)", "require('httpful')", "exports.a = 1"],
)
def test_no_server(text: str) -> None:
    assert not looks_like_server(text)
