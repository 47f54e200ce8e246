"""A queue consumer: jobs come as lines on standard input, and the processes of an application do them.

    printf 'one\ntwo\n' | python examples/queue_consumer.py path/to/app

No HTTP server runs. The application (any that passenger-trio serves) gets each line as the body of ``POST /``; what it
answers is printed. As many jobs run at the same time as the pool has processes. A process that dies costs one attempt
of its one job. A new version of the application is taken up by ``touch tmp/restart.txt``.
"""

from __future__ import annotations

import sys

import trio

import passenger_trio
from passenger_trio.errors import AppResponseError, CheckoutError

ATTEMPTS = 3


async def do(pool: passenger_trio.RunningPool, job: str) -> str:
    """Do one job in a process of the pool, and again in another if that fails."""
    trouble = ""
    for _ in range(ATTEMPTS):
        try:
            async with (
                pool.checkout() as process,
                process.request("POST", "/", body=job.encode()) as response,
            ):
                text = (await response.read()).decode()
                if response.status < 500:
                    return text
                trouble = f"status {response.status}"
        except (AppResponseError, CheckoutError) as error:  # it died, it raised, or none can be started
            trouble = str(error)
    return f"given up: {trouble}"


async def main(root: str, most: int = 4) -> None:
    config = passenger_trio.Config(
        pool=passenger_trio.PoolOptions(max_pool_size=most),
        apps=(passenger_trio.AppOptions(root=root, max_request_queue_size=0),),
    )
    send, receive = trio.open_memory_channel[str](0)  # a line is read when somebody has time for it

    async def consume(jobs: trio.MemoryReceiveChannel[str]) -> None:
        async with jobs:
            async for job in jobs:
                print(f"{job}: {await do(pool, job)}", flush=True)

    async with passenger_trio.open_pool(config) as pool, trio.open_nursery() as consumers:
        async with send, receive:
            for _ in range(most):
                consumers.start_soon(consume, receive.clone())
            async for line in trio.wrap_file(sys.stdin):
                await send.send(line.rstrip("\n"))


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
