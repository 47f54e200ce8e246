"""A FastAPI application as its documentation has them: lifespan, streaming, uploads, background tasks."""

import asyncio
import os
import time
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app: FastAPI):
    if os.environ.get("DATABASE") == "down":
        raise ConnectionError("the database is down")
    print("opened", flush=True)
    yield {"opened_by": os.getpid()}
    print("closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def index(request: Request):
    return {"pid": os.getpid(), "opened_by": request.state.opened_by, "url": str(request.url)}


@app.get("/blocking")
def blocking():
    """FastAPI runs this in a thread."""
    time.sleep(0.05)
    return {"pid": os.getpid()}


@app.get("/ticks")
async def ticks(count: int = 1_000_000, pause: float = 0.01):
    async def body():
        try:
            for number in range(count):
                yield b"tick %d\n" % number
                await asyncio.sleep(pause)
        finally:
            print("left at %.6f" % time.monotonic(), flush=True)

    return StreamingResponse(body(), media_type="text/plain")


@app.post("/upload")
async def upload(request: Request):
    sizes = [len(piece) async for piece in request.stream()]
    return {"size": sum(sizes)}


@app.post("/later")
async def later(tasks: BackgroundTasks, path: str):
    async def wait():
        while not os.path.exists(path):
            await asyncio.sleep(0.002)
        print("done later", flush=True)

    tasks.add_task(wait)
    return {"accepted": True}


@app.get("/gate")
async def gate(path: str):
    while not os.path.exists(path):
        await asyncio.sleep(0.002)
    return {"pid": os.getpid()}


@app.get("/raise")
async def fail():
    raise LookupError("the application has a bug")
