"""Tells in the file ``EVENTS`` what it hears of its clients, on the loop of ``LOOP``. Waits until there is ``EVENTS``.gate."""

import importlib
import os

loop = importlib.import_module(os.environ["LOOP"])


def note(text):
    with open(os.environ["EVENTS"], "a") as file:
        file.write(text + "\n")


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    path = scope["path"]
    note("began " + path)
    await receive()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}
    if path == "/stream":
        await send(start)
        await send({"type": "http.response.body", "body": b"x" * 20, "more_body": True})
    if path.endswith("gate"):
        if path == "/stream-gate":
            await send(start)
            await send({"type": "http.response.body", "body": b"x" * 20, "more_body": True})
        while not os.path.exists(os.environ["EVENTS"] + ".gate"):
            await loop.sleep(0.02)
        if path == "/gate":
            await send(start)
        await send({"type": "http.response.body", "body": b"news", "more_body": True})
        return await send({"type": "http.response.body", "body": b""})
    try:
        note((await receive())["type"])
    finally:
        note("ended")
