"""What is measured. Each work is a function of (rounds, seconds) that prints its table and returns figures for the JSON file.

A work's figures are ``{"rows": {peer: {figure: number}}, ...}``; ``report.py`` makes the tables of docs/performance.md of them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import attrs
import buffering
import fronts_bench
import growth
import idle
import policy_cost
import spawn_times
import websockets_bench
from measure import BROWSER_HEADERS, Figures, cpu, median, own, rss, spread, system_calls, table, wrk
from peers import (
    APPS,
    GTHREAD,
    GUNICORN,
    HYPERCORN,
    OURS,
    OURS_ALL,
    PASSENGER,
    PASSENGER_RACK,
    PUMA,
    UVICORN,
    UWSGI,
    WAITRESS,
    DoesNotAnswer,
    Peer,
    present,
    running,
)

Work = Callable[[int, int], Figures]
_CHECKOUT = Path(__file__).resolve().parents[2]


@attrs.define
class Samples:
    """Of one peer."""

    rates: list[float] = attrs.Factory(list)
    own_us: list[float] = attrs.Factory(list)
    all_us: list[float] = attrs.Factory(list)
    rss: list[float] = attrs.Factory(list)


def start(rounds: int, seconds: int) -> Figures:
    """From the command to the first answered request of a hello-world application, and the server's memory then."""
    del seconds
    # As an installation is; with PYTHONDONTWRITEBYTECODE a checkout would be compiled anew with each start.
    for python in {peer.program for peer in OURS_ALL}:
        for directory in ("passenger_trio", "spawn_servers"):
            subprocess.run([python, "-m", "compileall", "-q", _CHECKOUT / directory], check=True)
    rows: Figures = {}
    for peer in present(PASSENGER, GTHREAD, UWSGI):
        times, memories = [], []
        for _ in range(rounds):
            with running(peer, APPS / "hello", processes=1) as server:
                times.append(server.ready_after * 1000)
                memories.append(rss(own(server.processes())) / 2**20)
        rows[peer.name] = {"ms": median(times), "all": times, "own_rss_mib": median(memories)}
    table(
        "first answer",
        ("ms", "spread", "server RSS MiB"),
        {
            name: (f"{row['ms']:.0f}", spread(row["all"]), f"{row['own_rss_mib']:.1f}")  # type: ignore[index]
            for name, row in rows.items()
        },
    )
    return {"rows": rows}


def requests(
    title: str, app: str, peers: list[Peer], headers: tuple[tuple[str, str], ...] = (), more: tuple[Peer, ...] = ()
) -> Work:
    """A work: so many requests a second over 32 keep-alive connections, two processes each, in alternation.

    :param more: of ours, with other options.
    """

    def work(rounds: int, seconds: int) -> Figures:
        ours = (*OURS_ALL, *more)
        found = {peer: Samples() for peer in (*ours, *present(*peers)[len(OURS_ALL) :])}
        for _ in range(rounds):
            for peer, samples in list(found.items()):
                try:
                    _sample(peer, APPS / app, seconds, headers, samples)
                except DoesNotAnswer as error:
                    if peer in ours:
                        raise
                    del found[peer]
                    print(f"left out: {error}")
        rates = {peer: median(samples.rates) for peer, samples in found.items()}
        rows = {
            peer.name: {
                "requests_per_second": rates[peer],
                "all": samples.rates,
                "ratios": {one.name: rates[one] / rates[peer] for one in ours},
                "own_cpu_us": median(samples.own_us),
                "all_cpu_us": median(samples.all_us),
                "own_rss_mib": median(samples.rss),
            }
            for peer, samples in found.items()
        }
        table(
            title,
            (
                "requests/s",
                "spread",
                *(f"{one.short} / it" for one in ours),
                "server CPU us",
                "with app",
                "server RSS MiB",
            ),
            {
                peer.name: (
                    f"{rates[peer]:.0f}",
                    spread(samples.rates),
                    *(f"{rates[one] / rates[peer]:.2f}" for one in ours),
                    f"{median(samples.own_us):.0f}",
                    f"{median(samples.all_us):.0f}",
                    f"{median(samples.rss):.1f}",
                )
                for peer, samples in found.items()
            },
        )
        return {"rows": rows}

    work.__doc__ = f"{title}: 32 keep-alive connections, two processes each, in alternation with the peers."
    return work


def _sample(peer: Peer, app: Path, seconds: int, headers: tuple[tuple[str, str], ...], samples: Samples) -> None:
    with running(peer, app) as server:
        wrk(server.url, peer.warm_up, headers=headers)
        everything = server.processes()
        mine = own(everything)
        before = cpu(mine), cpu(everything)
        count, took = wrk(server.url, seconds, headers=headers)
        samples.rates.append(count / took)
        samples.own_us.append(1e6 * (cpu(mine) - before[0]) / count)
        samples.all_us.append(1e6 * (cpu(everything) - before[1]) / count)
        samples.rss.append(rss(mine) / 2**20)


def calls(rounds: int, seconds: int) -> Figures:
    """System calls of the supervisor (Passenger: its core) for each request, by ``strace -c -f`` under load."""
    del rounds
    rows: Figures = {}
    lines: dict[str, tuple[str, ...]] = {}
    for peer, app in [
        *((one, "hello") for one in present(PASSENGER)),
        (OURS, "hello_rack"),
        (OURS, "hello_asgi"),
        *((one, "hello_rack") for one in present(PASSENGER_RACK)[len(OURS_ALL) :]),
    ]:
        with running(peer, APPS / app) as server:
            # Of several (Passenger's watchdog, its starter) it is the one that works.
            wrk(server.url, peer.warm_up)
            busiest = max(own(server.processes()), key=lambda pid: cpu([pid]))
            total, by_name = system_calls(busiest, server.url, min(seconds, 3))
        name = f"{peer.name}, {app}"
        rows[name] = {"calls_per_request": total, "by_name": by_name}
        most = sorted(by_name.items(), key=lambda item: -item[1])[:6]
        lines[name] = (f"{total:.1f}", ", ".join(f"{call} {count:g}" for call, count in most))
    table("system calls a request", ("all", "of these"), lines)
    return {"rows": rows}


WORKS: dict[str, Work] = {
    "start": start,
    "wsgi": requests("hello world, WSGI", "hello", [PASSENGER, GUNICORN, GTHREAD, UWSGI, WAITRESS]),
    "rack": requests("hello world, Rack", "hello_rack", [PASSENGER_RACK, PUMA]),
    "asgi": requests("hello world, ASGI", "hello_asgi", [HYPERCORN, UVICORN]),
    "browser_wsgi": requests(
        "ten browser headers, a cookie, 2 KiB of HTML, WSGI", "page", [PASSENGER, GTHREAD, UWSGI], BROWSER_HEADERS
    ),
    "browser_rack": requests(
        "ten browser headers, a cookie, 2 KiB of HTML, Rack", "page_rack", [PASSENGER_RACK, PUMA], BROWSER_HEADERS
    ),
    "flask": requests("Flask, a template, 1 ms of work", "flask_page", [PASSENGER, GTHREAD, UWSGI], BROWSER_HEADERS),
    "fronts_wsgi": requests(
        "hello world, WSGI, two fronts", "hello", [PASSENGER, GTHREAD, UWSGI], more=(fronts_bench.TWO_FRONTS,)
    ),
    "fronts_rack": requests(
        "hello world, Rack, two fronts", "hello_rack", [PASSENGER_RACK, PUMA], more=(fronts_bench.TWO_FRONTS,)
    ),
    "fronts_browser_wsgi": requests(
        "browser headers, WSGI, two fronts",
        "page",
        [PASSENGER, GTHREAD, UWSGI],
        BROWSER_HEADERS,
        more=(fronts_bench.TWO_FRONTS,),
    ),
    "fronts_browser_rack": requests(
        "browser headers, Rack, two fronts",
        "page_rack",
        [PASSENGER_RACK, PUMA],
        BROWSER_HEADERS,
        more=(fronts_bench.TWO_FRONTS,),
    ),
    **fronts_bench.WORKS,
    "calls": calls,
    "policy": policy_cost.work,
    "spawn": spawn_times.work,
    **buffering.WORKS,
    "idle": idle.work,
    **websockets_bench.WORKS,
    "growth": growth.work,
}
