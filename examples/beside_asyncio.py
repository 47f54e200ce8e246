"""An asyncio program that runs a server beside its own loop, in the same thread: Trio's guest mode.

    python examples/beside_asyncio.py path/to/app

asyncio owns the thread; Trio runs as its guest. ``Server`` is all that this needs, and may be copied.
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Any

import outcome
import trio

import passenger_trio


class Server:
    """``async with Server(config) as server`` in an asyncio task. ``server`` is a ``RunningServer``.

    Its synchronous functions may be called from asyncio as they are. Async ones belong to Trio: ``await guest.run(function)``.
    """

    def __init__(self, config: passenger_trio.Config) -> None:
        self._config = config
        self._scope = trio.CancelScope()

    async def __aenter__(self) -> passenger_trio.RunningServer:
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[passenger_trio.RunningServer] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()
        trio.lowlevel.start_guest_run(
            self._serve,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True,
        )
        both: list[asyncio.Future[Any]] = [self._started, self._ended]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            self._ended.result()  # raises why it did not start
        self.server = self._started.result()
        return self.server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.server.stop()
        else:
            self._scope.cancel()
        await self._ended

    async def _serve(self) -> None:
        with self._scope:
            async with passenger_trio.open_server(self._config) as server:
                self._started.set_result(server)
                await server.wait_stopping()

    def _done(self, result: outcome.Outcome[None]) -> None:
        if isinstance(result, outcome.Error):
            self._ended.set_exception(result.error)
        else:
            self._ended.set_result(None)


async def main(root: str) -> None:
    config = passenger_trio.Config(
        server=passenger_trio.ServerOptions(port=0, access_log="off"),
        apps=(passenger_trio.AppOptions(root=root),),
    )
    async with Server(config) as server:
        print("serving at", *server.addresses, flush=True)
        address = server.addresses[0].removeprefix("http://").rstrip("/")
        host, port = address.rsplit(":", 1)
        # The program's own work goes on in asyncio; here it is a client of the server.
        for _ in range(3):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
            print(answer.partition(b"\r\n")[0].decode(), flush=True)
            writer.close()
            await writer.wait_closed()
        server.restart()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
