"""Starlette: a report that stops when its reader leaves, by the documented ``request.is_disconnected()``; with a
middleware that does nothing, and without."""

import asyncio

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def report(request):
    for _ in range(40):
        if await request.is_disconnected():
            print("stopped: the reader has left", flush=True)
            return PlainTextResponse("")
        await asyncio.sleep(0.05)
    print("computed to the end", flush=True)
    return PlainTextResponse("the report")


async def nothing(request, call_next):
    return await call_next(request)


routes = [Route("/report", report)]
plain = Starlette(routes=routes)
wrapped = Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=nothing)])
