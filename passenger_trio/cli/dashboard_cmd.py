"""``passenger-trio dashboard``: a local page that shows an instance, until Ctrl-C."""

from __future__ import annotations

import webbrowser

import click

from passenger_trio.cli.choose_instance import choose, instance_option

__all__ = ["dashboard"]


@click.command(short_help="Show an instance on a local page in the browser.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of 127.0.0.1 (default: a free one).")
@click.option(
    "--control", is_flag=True, help="Let the page restart applications and detach, disable and enable processes."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@instance_option
def dashboard(port: int, control: bool, opens: bool, instance: str | None) -> None:
    """Show an instance on a page at 127.0.0.1 until Ctrl-C: its state in a sentence, processes, waiters, failed starts, requests in flight, what happened.

    The address has a token: anybody who has it, and can reach 127.0.0.1 here, sees the page. Without --control nothing can be changed there.
    """
    import trio

    from passenger_trio.admin.client import fetch, order
    from passenger_trio.dashboard.server import Dashboard, Instance
    from passenger_trio.errors import BindError
    from passenger_trio.system.listen import listen_tcp

    chosen = choose(instance)
    path = chosen.admin_socket
    fetch(path, "/v1/status")  # an instance that does not answer is told of here
    try:
        (listener,) = listen_tcp("127.0.0.1", port, 64)
    except OSError as exc:
        raise BindError(f"cannot listen on 127.0.0.1:{port}: {exc.strerror}; choose another with --port") from None

    async def run() -> None:
        shown = Instance(
            chosen.name, lambda target: fetch(path, target), lambda target, what: order(path, target, what)
        )
        page = Dashboard(shown, listener, controls=control)
        click.echo(page.url)
        if opens:
            webbrowser.open(page.url)
        await page.serve()

    with listener:
        trio.run(run)
