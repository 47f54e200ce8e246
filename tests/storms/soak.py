"""The soak: everything at the same time, for half an hour. Honest applications beside a hostile one, and everything that is taken away from a server is taken away.

    python tests/storms/soak.py [--minutes 30] [--seed 1]

Three groups share one pool. ``honest`` (WSGI, forked) and ``live`` (ASGI, started one by one) get what good clients send: small requests on kept and on new connections, uploads on disk, slow
readers, event streams behind a POST. ``hostile`` dies, hangs up, floods, leaves daemons. Beside them are clients that abort in every place. One phase follows another: calm; workers of ``hostile``
and of ``killed`` (which gets nothing but what may be sent again) are killed; rolling restarts; no descriptor (the limit is lowered under what is open); no process or thread (``RLIMIT_NPROC``, as
another user, because it does not bind root).

Goals: the server lives and ends with 0; honest requests see no error (while something is taken away: none but a 503 that says so); memory at the end is within 5 % of what it was when everything had
been used once; nothing is left. Prints the figures as JSON; exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from storm_tools import as_another_user, interpreter_of_another_user, limit, percentile

from passenger_trio.admin.client import order
from passenger_trio.errors import PassengerError
from passenger_trio.testing import RawClient, Supervisor, eventually

HONEST = """
import hashlib, time
def application(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path.endswith("/digest"):
        body = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
    elif path.endswith("/big"):
        start_response("200 OK", [("Content-Length", str(65536 * int(query)))])
        return (b"%07d\\n" % number * 8192 for number in range(int(query)))
    elif path.endswith("/nap"):
        time.sleep(float(query))
        body = b"rested"
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
LIVE = """
import asyncio
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"data: %d %d\\n\\n" % (size, number), "more_body": True})
        await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"data: end\\n\\n"})
"""
HOSTILE = """
import os, signal, socket, subprocess, sys, time
def application(environ, start_response):
    what = environ["PATH_INFO"].rpartition("/")[2]
    if what == "exit":
        os._exit(3)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "raise":
        raise RuntimeError("hostile")
    if what == "flood":
        sys.stderr.write("flood\\n" * 20000)
    if what == "daemon":
        subprocess.Popen(["sleep", "3"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if what == "headers":
        start_response("200 OK", [("X-Bad", "a\\r\\nb")])
        return [b"x"]
    if what == "garbage":
        for number in range(3, 64):
            try:
                found = socket.socket(fileno=os.dup(number))
                if found.family == socket.AF_UNIX:
                    found.send(b"\\xff" * 100)
            except OSError:
                pass
    if what == "hang":
        time.sleep(2)
    start_response("200 OK", [])
    if what == "middle":
        def pieces():
            yield b"first"
            os._exit(4)
        return pieces()
    if what == "tiny":
        return (b"x" for _ in range(20000))
    return [b"so far so good"]
"""
DEEDS = ("exit", "segfault", "raise", "flood", "daemon", "headers", "garbage", "hang", "middle", "tiny", "")
PHASES = ("calm", "kills", "calm", "restarts", "calm", "descriptors", "calm", "processes")
PHASE = 6.0
"""Seconds."""
WARM = 25
"""Calm phases until everything has been used often: five minutes."""
SHORT = {"descriptors": ("nofile", resource.RLIMIT_NOFILE), "processes": ("nproc", resource.RLIMIT_NPROC)}


@attrs.define(eq=False)
class Soak:
    server: Supervisor
    seed: int
    outcomes: dict[str, Counter[str]] = attrs.field(factory=dict)
    """Of each kind of request."""
    errors: list[str] = attrs.field(factory=list)
    """What honest clients saw that they should not have."""
    latencies: list[float] = attrs.field(factory=list)
    """Of small honest requests while nothing is taken away."""
    done: Counter[str] = attrs.field(factory=Counter)
    rss: list[int] = attrs.field(factory=list)
    """Bytes, at the end of each calm phase."""
    descriptors: list[int] = attrs.field(factory=list)
    phase: str = "calm"
    short_until: float = 0.0
    stop: threading.Event = attrs.field(factory=threading.Event)
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    # -- clients ------------------------------------------------------------------------------------------------

    def run_client(self, kind: str, work: Callable[[random.Random], str], honest: bool, pause: float) -> None:
        choice = random.Random(f"{self.seed} {kind} {threading.get_ident()}")
        while not self.stop.is_set():
            begun = time.monotonic()
            short = begun < self.short_until
            try:
                outcome = work(choice)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a result
                outcome = f"{type(error).__name__}: {error}"[:100]
            short = short or begun < self.short_until or time.monotonic() < self.short_until
            with self.lock:
                self.outcomes.setdefault(kind, Counter())[outcome] += 1
                if honest and outcome != "good" and not (short and outcome in ("503", "500")):
                    self.errors.append(f"{self.phase}: {kind}: {outcome}")
                if kind == "small" and not short:
                    self.latencies.append(time.monotonic() - begun)
            self.stop.wait(pause * choice.random())

    def connect(self) -> RawClient:
        return self.server.connect(60)

    def kept(self, path: str) -> Callable[[random.Random], str]:
        """Small requests on one connection."""
        client: RawClient | None = None

        def ask(choice: random.Random) -> str:
            nonlocal client
            client = client or self.connect()
            try:
                response = client.get(path)
            except ConnectionError:
                # A connection that was idle may be closed for want of descriptors, or at its thousandth request: a good client asks anew.
                client.close()
                client = self.connect()
                response = client.get(path)
            if response.header("Connection") == "close" or not response.complete:
                client.close()
                client = None
            return "good" if response.status == 200 and response.complete else str(response.status)

        return ask

    def small(self, choice: random.Random) -> str:
        with self.connect() as client:
            response = client.get("/honest/hello", [("Connection", "close")])
            return "good" if response.body == b"hello" else str(response.status)

    def upload(self, choice: random.Random) -> str:
        body = choice.randbytes(1000) * choice.choice((1, 200, 1000))
        with self.connect() as client:
            response = client.request("POST", "/honest/digest", body=body)
            import hashlib

            return "good" if response.text == hashlib.sha256(body).hexdigest() else str(response.status)

    def slow_reader(self, choice: random.Random) -> str:
        with self.connect() as client:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.send(b"GET /honest/big?64 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            size = 0
            head = b""
            while piece := client.receive(65536):
                head = head or piece
                size += len(piece)
                time.sleep(0.002)
            status = head[9:12].decode()
            whole = 64 * 65536 < size < 64 * 65536 + 1000
            return "good" if status == "200" and whole else status if status != "200" else "cut short"

    def events(self, choice: random.Random) -> str:
        size = choice.choice((10, 100_000, 300_000))
        with self.connect() as client:
            response = client.request("POST", "/live/events", body=b"e" * size)
            good = response.body.startswith(b"data: %d 0\n" % size) and response.body.endswith(b"data: end\n\n")
            return "good" if good and response.complete else str(response.status)

    def hostile(self, choice: random.Random) -> str:
        with self.server.connect(20) as client:
            response = client.get(f"/hostile/{choice.choice(DEEDS)}")
            return f"{response.status}{'' if response.complete else ' cut short'}"

    def abort(self, choice: random.Random) -> str:
        """In the head, in the body, before the response, in the response; with a reset or without."""
        client = self.server.connect(20)
        path = choice.choice((b"/honest/big?64", b"/live/events", b"/hostile/tiny", b"/killed/hello"))
        whole = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000\r\n\r\n" % path + b"a" * 400_000
        part = choice.choice((5, 60, 30_000, 250_000, len(whole)))
        client.send(whole[:part])
        if choice.random() < 0.5:
            client.socket.settimeout(0.2)
            try:
                client.receive(choice.choice((1, 50_000)))
            except TimeoutError:
                pass
        if choice.random() < 0.5:
            client.reset()
        else:
            client.close()
        return "aborted"

    # -- phases -------------------------------------------------------------------------------------------------

    def run_phase(self, phase: str, choice: random.Random) -> None:
        self.phase = phase
        end = time.monotonic() + PHASE
        pid = self.server.pid
        self.done[phase] += 1
        if phase in SHORT:
            what, number = SHORT[phase]
            before = resource.getrlimit(number)[0]
            self.short_until = float("inf")
            limit(self.server, what, len(self.server.descriptors()) - 10 if phase == "descriptors" else 1)
            try:
                while time.monotonic() < end and not self.gone:
                    self.kill_one("hostile", choice)
                    time.sleep(1)
            finally:
                if not self.gone:
                    limit(self.server, what, before)
                # What has failed for want of something is tried again after a while, and told until then.
                self.short_until = time.monotonic() + 30
        elif phase == "restarts":
            names = ["honest", "live", "hostile", "killed"]
            while time.monotonic() < end and not self.gone:
                try:
                    order(
                        str(self.server.ready["admin_socket"]),
                        "/v1/restart",
                        {"group": choice.choice(names), "wait": True},
                        for_long=True,
                    )
                except PassengerError as error:
                    self.done[f"restart refused: {error}"[:80]] += 1
                self.done["restarts ordered"] += 1
        else:
            while time.monotonic() < end and not self.gone:
                if phase == "kills":
                    self.kill_one(choice.choice(("hostile", "killed")), choice)
                time.sleep(0.7)
        if phase == "calm" and not self.gone:
            self.rss.append(rss(pid))
            self.descriptors.append(len(self.server.descriptors()))

    @property
    def gone(self) -> bool:
        return self.server.process.poll() is not None

    def kill_one(self, name: str, choice: random.Random) -> None:
        try:
            groups = self.server.status()["groups"]
            pids = [
                process["pid"]
                for group in groups
                if group["name"] == name
                for process in group["processes"]
                if process["pid"]
            ]
            if pids:
                os.kill(choice.choice(pids), signal.SIGKILL)
                self.done["kills"] += 1
        except (OSError, PassengerError):
            self.done["not reachable"] += 1


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def write_site(root: Path, python: str) -> Path:
    for name, source, file in (
        ("honest", HONEST, "passenger_wsgi.py"),
        ("killed", HONEST, "passenger_wsgi.py"),
        ("live", LIVE, "asgi.py"),
        ("hostile", HOSTILE, "passenger_wsgi.py"),
    ):
        (root / name).mkdir()
        (root / name / file).write_text(source)
    tables = "".join(
        f'\n[[app]]\nroot = "{name}"\nbase_uri = "/{name}"\nenvironment = "production"\nmin_instances = {least}\npython = "{python}"\n{more}'
        for name, least, more in (
            ("honest", 3, ""),
            ("killed", 2, ""),
            ("live", 1, 'spawn_method = "direct"\nshutdown_timeout = "3s"\n'),
            ("hostile", 1, 'shutdown_timeout = "3s"\n'),
        )
    )
    (root / "passenger-trio.toml").write_text("[pool]\nmax_pool_size = 10\n" + tables)
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def soak(minutes: float, seed: int = 1) -> dict[str, Any]:
    python = interpreter_of_another_user()
    prefix = as_another_user() if python else ()
    with tempfile.TemporaryDirectory(prefix="pt-soak-") as directory:
        server = Supervisor.start(None, cwd=write_site(Path(directory), python or sys.executable), prefix=prefix)
        problems: list[str] = []
        soaked = Soak(server, seed)
        try:
            clients = [
                ("small", soaked.small, True, 0.05),
                ("kept", soaked.kept("/honest/hello"), True, 0.02),
                ("kept", soaked.kept("/honest/nap?0.01"), True, 0.05),
                ("may be repeated", soaked.kept("/killed/hello"), False, 0.03),
                ("upload", soaked.upload, True, 0.3),
                ("upload", soaked.upload, True, 0.3),
                *[("slow reader", soaked.slow_reader, True, 0.5)] * 3,
                *[("events", soaked.events, True, 0.3)] * 3,
                *[("hostile", soaked.hostile, False, 0.2)] * 3,
                *[("abort", soaked.abort, False, 0.1)] * 2,
            ]
            threads = [threading.Thread(target=soaked.run_client, args=client) for client in clients]
            for thread in threads:
                thread.start()
            try:
                end = time.monotonic() + minutes * 60
                choice = random.Random(seed)
                turn = 0
                while time.monotonic() < end and not soaked.gone:
                    soaked.run_phase(PHASES[turn % len(PHASES)], choice)
                    turn += 1
            finally:
                soaked.stop.set()
                for thread in threads:
                    thread.join()
            status: dict[str, Any] = {}
            if soaked.gone:
                problems.append(f"the server ended with {server.process.returncode}: {server.log_tail[-2000:]}")
            else:
                eventually(lambda: at_rest(server), 90, "everything has come to rest")
                status = server.status()
                code = server.stop(timeout=60)
                if code:
                    problems.append(f"the server's exit code is {code}")
        except AssertionError as error:
            problems.append(str(error)[-3000:])
        finally:
            server.__exit__(AssertionError, None, None) if problems else server.__exit__(None, None, None)
        faults = [line for line in server.log if "please report it" in line]
        problems += [f"a fault was logged: {line[:500]}" for line in faults[:5]]
        if soaked.errors:
            problems.append(f"{len(soaked.errors)} honest requests failed: {Counter(soaked.errors).most_common(5)}")
        repeated = soaked.outcomes.get("may be repeated", Counter())
        if repeated["good"] < 0.99 * sum(repeated.values()):
            problems.append(f"of what may be repeated too much failed: {dict(repeated)}")
        growth = grown(soaked.rss)
        if growth > 0.05:
            problems.append(f"memory has grown by {growth:.1%}")
        return {
            "minutes": minutes,
            "good": not problems,
            "problems": problems,
            "requests": sum(sum(counter.values()) for counter in soaked.outcomes.values()),
            "outcomes": {kind: dict(counter.most_common(8)) for kind, counter in sorted(soaked.outcomes.items())},
            "honest_errors": len(soaked.errors),
            "phases": dict(soaked.done),
            "latency_ms": {
                name: round(1000 * percentile(soaked.latencies, part), 1)
                for name, part in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
            },
            "rss_mib": [round(size / 1024**2, 1) for size in soaked.rss],
            "rss_growth": round(growth, 4),
            "descriptors": soaked.descriptors,
            "buffers": status.get("buffers", {}),
            "rejected": status.get("requests", {}).get("rejected", {}),
            "left": "nothing" if not problems else "see problems",
        }


def at_rest(server: Supervisor) -> bool:
    try:
        status = server.status()
    except PassengerError:
        return False
    sessions = sum(process["sessions"] for group in status["groups"] for process in group["processes"])
    return not sessions and not status["requests"]["active"] and not status["buffers"]["disk"]


def grown(sizes: list[int]) -> float:
    """From when everything had been used to the end: what fills once (the recorder of the pool, the allocator's arenas) is full after some minutes. The middle of a third each, so that one busy
    moment counts for nothing.
    """
    used = sizes[min(len(sizes) // 2, WARM) :]
    third = max(1, len(used) // 3)
    return statistics.median(used[-third:]) / statistics.median(used[:third]) - 1 if len(used) > 1 else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcome = soak(arguments.minutes, arguments.seed)
    print(json.dumps(outcome, indent=2))
    return 0 if outcome["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
