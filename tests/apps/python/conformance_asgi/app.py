"""The application that passenger_trio.testing.conformance drives, for ASGI on asyncio and on Trio."""

import asyncio
import atexit
import os
import random
import signal
import sys
import threading
import time

LOADED_BY = os.getpid()

hook_file = os.environ.get("CONFORMANCE_HOOK_FILE")
if hook_file:

    @atexit.register
    def append_pid():
        with open(hook_file, "a") as file:
            file.write("%d\n" % os.getpid())


start = os.environ.get("CONFORMANCE_START")
if start == "raise":
    raise RuntimeError("conformance: raised while it was loaded")
if start == "raise-long":
    raise RuntimeError("conformance: " + "\x01\u20ac" * 100000 + " the end")
if start == "exit":
    sys.exit(3)
if start == "sleep":
    time.sleep(60)
if start == "thread":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def is_asyncio():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def sleep(seconds):
    """An awaitable of the event loop that runs."""
    return asyncio.sleep(seconds) if is_asyncio() else sys.modules["trio"].sleep(seconds)


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError("conformance has no lifespan")
    name = scope["path"][len(scope["root_path"]) :].strip("/").replace("-", "_")
    await globals()["at_" + name](scope, receive, send)


def query(scope):
    return scope["query_string"].decode("latin-1")


async def begin(send, *headers, status=200):
    headers = [(b"content-type", b"text/plain"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def chunk(send, body, more=True):
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def text(send, body, *headers):
    await begin(send, *headers)
    await send({"type": "http.response.body", "body": body})


async def body_of(receive):
    pieces = []
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError("the client is gone")
        pieces.append(event["body"])
        if not event["more_body"]:
            return b"".join(pieces)


async def at_hello(scope, receive, send):
    await text(send, b"hello")


async def at_meta(scope, receive, send):
    meta = {
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": query(scope),
        "SCRIPT_NAME": scope["root_path"],
        "PATH_INFO": scope["path"][len(scope["root_path"]) :],
        "SERVER_NAME": scope["server"][0],
        "SERVER_PORT": str(scope["server"][1]),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
        "REMOTE_ADDR": scope["client"][0],
    }
    for name, value in scope["headers"]:
        name = name.decode().upper().replace("-", "_")
        meta[name if name.startswith("CONTENT_") else "HTTP_" + name] = value.decode("latin-1")
    await text(send, "".join("%s=%s\n" % item for item in meta.items()).encode("latin-1"))


async def at_echo(scope, receive, send):
    await text(send, await body_of(receive))


async def at_deaf(scope, receive, send):
    await text(send, b"deaf")


async def at_chunks(scope, receive, send):
    await begin(send)
    for body in (b"one", b"two", b"three"):
        await chunk(send, body)
    await chunk(send, b"", False)


async def at_gate(scope, receive, send):
    await begin(send)
    await chunk(send, b"one")
    while not os.path.exists(query(scope)):
        await sleep(0.002)
    await chunk(send, b"two", False)


async def at_deaf_gate(scope, receive, send):
    await begin(send, (b"content-length", b"4"))
    await chunk(send, b"deaf", False)
    while not os.path.exists(query(scope)):
        time.sleep(0.002)  # and nothing is read meanwhile


async def at_endless(scope, receive, send):
    await begin(send)
    gone = []

    async def listen():
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.append(True)

    try:
        # On Trio the loop below is cancelled.
        listening = asyncio.ensure_future(listen()) if is_asyncio() else None
        while not gone:
            await chunk(send, b"x" * 1000)
        if listening:
            await listening
    finally:
        with open(query(scope), "a") as file:
            file.write("closed\n")


async def at_large(scope, receive, send):
    await text(send, b"x" * 20000000)


async def at_raise(scope, receive, send):
    raise ValueError("conformance: raised before the head")


async def at_raise_late(scope, receive, send):
    await begin(send)
    await chunk(send, b"begun")
    raise ValueError("conformance: raised after the head")


async def at_exit(scope, receive, send):
    sys.exit(4)


async def at_nul(scope, receive, send):
    await text(send, b"nul", (b"x-nul", b"a\0b"))


async def at_short(scope, receive, send):
    await text(send, b"01234", (b"content-length", b"10"))


async def at_long(scope, receive, send):
    await text(send, b"0123456789", (b"content-length", b"5"))


async def at_status(scope, receive, send):
    await begin(send, (b"x-test", b"1"), status=int(query(scope)))
    await send({"type": "http.response.body", "body": b"body"})


async def at_print(scope, receive, send):
    print(query(scope))
    await text(send, b"printed")


async def at_sleep(scope, receive, send):
    await sleep(float(query(scope)))
    await text(send, b"done")


async def at_spin(scope, receive, send):
    until = time.monotonic() + float(query(scope))
    while time.monotonic() < until:
        pass
    await text(send, b"done")


async def at_process(scope, receive, send):
    facts = {
        "pid": os.getpid(),
        "loaded_by": LOADED_BY,
        "random": random.random(),
        "signals": " ".join(
            str(int(number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
            if signal.getsignal(number) == signal.SIG_IGN
        ),
        "variables": " ".join(sorted(os.environ)),
    }
    await text(send, "".join("%s=%s\n" % item for item in facts.items()).encode())


# WebSocket


async def at_ws_echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    headers = [(b"x-offered", ",".join(scope["subprotocols"]).encode())]
    chosen = query(scope)
    await send({"type": "websocket.accept", "subprotocol": chosen or None, "headers": headers})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        text = event.get("text")
        if text == "raise":
            raise ValueError("conformance: raised on an open WebSocket")
        if text == "return":
            return
        if text == "too long":
            try:
                await send({"type": "websocket.send", "bytes": b"x" * (16 * 1024 * 1024 + 1)})
            except ValueError:
                await send({"type": "websocket.send", "text": "refused"})
        elif text is not None and text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            await send({"type": "websocket.close", "code": int(code), "reason": reason})
            await receive()
            return
        elif text is not None:
            await send({"type": "websocket.send", "text": text})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


async def at_ws_note(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    event = await receive()
    while event["type"] != "websocket.disconnect":
        event = await receive()
    with open(query(scope), "a") as file:
        file.write("%d %s\n" % (event["code"], event["reason"]))
    await send({"type": "websocket.send", "text": "nobody reads this"})


async def at_ws_refuse(scope, receive, send):
    await receive()
    await send({"type": "websocket.close"})


async def at_ws_deny(scope, receive, send):
    assert "websocket.http.response" in scope["extensions"]
    await receive()
    headers = [(b"x-test", b"1")]
    await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"are you"})


async def at_ws_raise(scope, receive, send):
    raise ValueError("conformance: raised before the handshake")
