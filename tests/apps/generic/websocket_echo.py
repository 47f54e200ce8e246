"""A program that serves WebSockets by itself, with the websockets library, on the port of its first argument."""

import asyncio
import os
import sys

from websockets.asyncio.server import serve


def look(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "refused")
    if "Upgrade" not in request.headers:
        return connection.respond(200, f"{os.getpid()}")
    return None


async def echo(connection):
    async for message in connection:
        if message == "pid":
            await connection.send(str(os.getpid()))
        elif message == "bye":
            await connection.close(4000, "as you wish")
        elif message == "rude":
            connection.transport.abort()
        else:
            await connection.send(message)
    print("ws closed", connection.close_code, flush=True)


def choose(connection, offered):
    return "echo" if "echo" in offered else None


async def main():
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), process_request=look, select_subprotocol=choose):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
