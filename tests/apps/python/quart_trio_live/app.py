"""A Quart application on Trio."""

import os
import time

import trio
from quart import request
from quart_trio import QuartTrio

app = QuartTrio(__name__)


@app.before_serving
async def open_database():
    await trio.sleep(0)
    print("opened", flush=True)


@app.after_serving
async def close_database():
    print("closed", flush=True)


@app.get("/")
async def index():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
    return {"pid": os.getpid(), "path": request.path}


@app.post("/upload")
async def upload():
    return {"size": len(await request.get_data())}


@app.get("/ticks")
async def ticks():
    async def body():
        try:
            while True:
                yield b"tick\n"
                await trio.sleep(0.01)
        finally:
            print("left at %.6f" % time.monotonic(), flush=True)

    return body(), 200, {"Content-Type": "text/plain"}
