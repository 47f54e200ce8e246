"""An ASGI application under lint and faults: see ``wrap``."""

from __future__ import annotations

import sys
import time
from typing import Any, Awaitable, Callable

__all__ = ["Wrapper"]

_points: Any = sys.modules["passenger_harness_fault_points"]
_rules: Any = sys.modules["passenger_harness_asgi_rules"]
_findings: Any = sys.modules["passenger_harness_findings"]
_times: Any = sys.modules["passenger_harness_times"]


async def _point(name: str, path: str) -> None:
    fault = _points.claim(name, path)
    if fault is not None:
        await _points.perform_async(fault)


class Wrapper:
    """The application."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        kind, path = scope["type"], scope.get("path", "")
        headers = dict(scope.get("headers", ()))
        method = scope.get("method", kind)
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        automaton = _rules.automaton(scope, _findings.Recorder(_rules.RULES, f"{method} {path}", request_id).add)
        begun = time.time()
        if kind in ("http", "websocket"):
            await _point("head", path)
        in_body = False

        async def checked_receive() -> dict[str, Any]:
            message = await receive()
            automaton.on_receive(message)
            return message

        async def checked_send(message: Any) -> None:
            nonlocal in_body
            automaton.on_send(message)
            if kind == "http" and _points.is_anything_armed():
                is_body = isinstance(message, dict) and message.get("type") == "http.response.body"
                if is_body and not in_body and isinstance(message.get("body"), bytes) and message["body"]:
                    in_body = True
                    body = message["body"]
                    half = (len(body) + 1) // 2
                    await send({"type": "http.response.body", "body": body[:half], "more_body": True})
                    await _point("mid_body", path)
                    message = {**message, "body": body[half:]}
                if is_body and not message.get("more_body", False):
                    body = message.get("body", b"")
                    await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
                    await _point("before_end", path)
                    message = {**message, "body": body[-1:]}
                    await send(message)
                    await _point("after_end", path)
                    return
            await send(message)

        if automaton is None:
            await self.app(scope, receive, send)
            return
        raised = None
        try:
            await self.app(scope, checked_receive, checked_send)
            automaton.on_return()
        except BaseException as error:
            raised = error
            raise
        finally:
            if kind != "lifespan":
                _times.note(request_id, begun, raised)
            # Its traceback has this frame: the cycle would keep what the application has in hand, such as a generator that is not at its end.
            raised = None
