"""A loader whose workers take WebSockets and speak no interface: ``python websocket_loader.py``. It keeps spawn_servers/CONTRACT.md.

What it does with a WebSocket depends on the path: ``/echo`` sends everything back, ``/reject`` answers 403, ``/late`` closes with 4001 after the first message, ``/flood``
sends 64 KiB messages for as long as they are taken, ``/deaf`` reads nothing. The text ``die`` ends the process. Any other request is answered with its pid.
"""

import asyncio
import json
import os
import struct


async def read_frame(reader):
    kind, size = struct.unpack("!cI", await reader.readexactly(5))
    return kind, await reader.readexactly(size)


def frame(kind, payload=b""):
    return struct.pack("!cI", kind, len(payload)) + payload


async def serve_stream(reader, writer):
    try:
        while True:
            kind, payload = await read_frame(reader)
            texts = payload.decode("latin-1").split("\0")[:-1]
            pairs = dict(zip(texts[::2], texts[1::2]))
            assert kind == b"H"
            assert await read_frame(reader) == (b"E", b"")
            path = pairs["PATH_INFO"]
            if not pairs["REQUEST_SCHEME"].startswith("ws") or path == "/reject":
                status = b"403" if path == "/reject" else b"200"
                writer.write(frame(b"R", status + b"\0\0") + frame(b"D", b"%d" % os.getpid()) + frame(b"E"))
            else:
                await talk(reader, writer, path)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def talk(reader, writer, path):
    writer.write(frame(b"W"))
    if path == "/deaf":
        await asyncio.sleep(3600)
    flood = asyncio.ensure_future(send_for_ever(writer)) if path == "/flood" else None
    closed = False
    while True:
        kind, payload = await read_frame(reader)
        if kind == b"C":
            break
        if payload == b"die":
            os._exit(7)
        if path == "/late" and not closed:
            writer.write(frame(b"C", struct.pack("!H", 4001) + b"late"))
            closed = True
        elif path == "/echo":
            writer.write(frame(kind, payload))
            await writer.drain()
    if flood is not None:
        flood.cancel()
    writer.write(frame(b"E"))


async def send_for_ever(writer):
    while True:
        writer.write(frame(b"B", bytes(65536)))
        await writer.drain()


async def main():
    reader, writer = await asyncio.open_unix_connection(os.environ["PASSENGER_TRIO_SPAWN_SOCKET"])

    def say(**message):
        writer.write(json.dumps(message).encode() + b"\n")

    token = os.environ["PASSENGER_TRIO_SPAWN_TOKEN"]
    say(type="hello", token=token, contract=1, role="worker", language="fake", version="1", pid=os.getpid())
    options = json.loads(await reader.readline())
    path = os.path.join(options["socket_dir"], options["socket_name"])
    await asyncio.start_unix_server(serve_stream, path, backlog=4096)
    socket = {"address": "unix:" + path, "protocol": "session", "concurrency": 10000, "websocket": True}
    say(type="ready", sockets=[socket])
    await reader.readline()  # the end, or the word to stop: a supervisor sends it when no session is left
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
