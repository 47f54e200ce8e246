"""Open a server, serve one request, close it: 1 000 times in one process (LI8). Nothing may be left, and memory may not grow.

    python tests/storms/open_and_close.py [TIMES]

Goals: no descriptor, task, thread, file or process more at the end than after the first tenth; RSS within 5 %. Prints JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import trio

import passenger_trio

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def holds(runtime: str) -> dict[str, int]:
    """What the program has now."""
    gc.collect()
    me = psutil.Process()
    return {
        "descriptors": me.num_fds(),
        "threads": threading.active_count(),
        "processes": len(me.children(recursive=True)),
        "files": sum(len(files) for _, _, files in os.walk(runtime)),
        "rss": me.memory_info().rss,
    }


async def once(config: passenger_trio.Config) -> None:
    async with passenger_trio.open_server(config) as server, server.app().request("GET", "/") as response:
        assert (response.status, await response.read()) == (200, b"hello")


async def main(times: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="pt-") as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        app = Path(directory) / "app"
        app.mkdir()
        (app / "passenger_wsgi.py").write_text(APP)
        config = passenger_trio.Config(
            server=passenger_trio.ServerOptions(port=0, access_log="off"),
            apps=(passenger_trio.AppOptions(root=str(app)),),
        )
        samples: list[dict[str, int]] = []
        for number in range(1, times + 1):
            await once(config)
            if number % max(1, times // 10) == 0:
                tasks = trio.lowlevel.current_statistics().tasks_living
                samples.append({**holds(directory), "tasks": tasks})
                print(number, samples[-1], file=sys.stderr, flush=True)
    first, last = samples[0], samples[-1]
    grown = {name: last[name] - first[name] for name in first if name != "rss"}
    # Trio keeps idle threads for a while, so there may be one or two.
    ok = all(more <= 0 for name, more in grown.items() if name != "threads") and grown["threads"] <= 2
    ratio = last["rss"] / first["rss"]
    return {"times": times, "grown": grown, "rss_ratio": round(ratio, 4), "passed": ok and ratio < 1.05}


if __name__ == "__main__":
    result = trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
    print(json.dumps(result))
    sys.exit(not result["passed"])
