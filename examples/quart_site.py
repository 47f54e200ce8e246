"""A Quart-Trio site that runs a server in the same Trio program, and adds and removes its applications.

    python examples/quart_site.py 8000
    curl -X PUT  'localhost:8000/apps/shop?root=/path/to/shop'   # serve it at /shop of the server
    curl         'localhost:8000/apps'                            # what runs
    curl         'localhost:8000/ask/shop/some/path'              # a request to it, without TCP
    curl -X POST 'localhost:8000/apps/shop/restart'
    curl -X DELETE 'localhost:8000/apps/shop'

The site is served by Hypercorn, the applications by passenger_trio. Both end together: one nursery holds them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hypercorn.config
import hypercorn.trio
import trio
from quart import Response, request
from quart_trio import QuartTrio

import passenger_trio
from passenger_trio.errors import NotFound, NothingToServe, OptionError, RestartFailed, SpawnError

WELCOME = Path(__file__).parent / "welcome"


def make_site(server: passenger_trio.RunningServer) -> QuartTrio:
    """The site that manages the applications of ``server``."""
    site = QuartTrio(__name__)

    @site.get("/apps")
    async def apps() -> dict[str, Any]:
        status = await server.status()
        return {
            "addresses": status["addresses"],
            "apps": {group["name"]: [process["pid"] for process in group["processes"]] for group in status["groups"]},
        }

    @site.put("/apps/<name>")
    async def add(name: str) -> tuple[dict[str, Any], int]:
        app = await server.add_app(
            passenger_trio.AppOptions(root=request.args["root"], name=name, base_uri=f"/{name}", min_instances=1)
        )
        await app.wait_ready()
        return {"pids": [process.pid for process in app.processes]}, 201

    @site.delete("/apps/<name>")
    async def remove(name: str) -> tuple[str, int]:
        await server.remove_app(name)
        return "", 204

    @site.post("/apps/<name>/restart")
    async def restart(name: str) -> dict[str, Any]:
        app = server.app(name)
        await app.wait_restarted(app.restart())
        return {"pids": [process.pid for process in app.processes if process.serves]}

    @site.get("/ask/<name>/", defaults={"path": ""})
    @site.get("/ask/<name>/<path:path>")
    async def ask(name: str, path: str) -> Response:
        async with server.app(name).request("GET", f"/{path}") as response:
            return Response(
                await response.read(), response.status, content_type=response.header("content-type") or "text/plain"
            )

    @site.errorhandler(passenger_trio.PassengerError)
    async def failed(error: Exception) -> tuple[dict[str, str], int]:
        statuses: dict[type[Exception], int] = {
            NotFound: 404,
            NothingToServe: 422,
            OptionError: 422,
            SpawnError: 502,
            RestartFailed: 502,
        }
        return {"error": str(error)}, statuses.get(type(error), 500)

    return site


async def main(port: int) -> None:
    config = passenger_trio.Config(
        server=passenger_trio.ServerOptions(port=0, access_log="off"),
        apps=(passenger_trio.AppOptions(root=str(WELCOME), name="welcome"),),
    )
    front = hypercorn.config.Config()
    front.bind = [f"127.0.0.1:{port}"]
    async with trio.open_nursery() as nursery:
        server = await nursery.start(passenger_trio.serve, config)
        print("applications at", *server.addresses, flush=True)
        addresses = await nursery.start(hypercorn.trio.serve, make_site(server), front)
        print("site at", *addresses, flush=True)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
