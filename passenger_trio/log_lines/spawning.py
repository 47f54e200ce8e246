"""Lines about programs that become processes: loaders, preloaders, users. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.log_lines import INFO, WARNING, lines_of

line = lines_of("passenger_trio.spawning")


@line(INFO, "event from the loader of {group}: {name_of_event} {members}")
def loader_event(*, group: str, name_of_event: str, members: str) -> None: ...


@line(INFO, "event from pid {pid}: {name_of_event} {members}")
def process_event(*, pid: int, name_of_event: str, members: str) -> None: ...


@line(INFO, "event from the preloader of {group}: {name_of_event} {members}")
def preloader_event(*, group: str, pid: int, name_of_event: str, members: str) -> None: ...


@line(INFO, "{group} is an {interface} application: serving it as one")
def turned_out(*, group: str, interface: str) -> None: ...


@line(WARNING, "pid {pid}: {reason}")
def loader_broke_protocol(*, pid: int, reason: str) -> None: ...


@line(WARNING, "ending the preloader of {group} (pid {pid}): {reason}")
def preloader_broke_protocol(*, group: str, pid: int, reason: str) -> None: ...


@line(WARNING, "the preloader of {group} (pid {pid}) ended by itself: {how}")
def preloader_died(*, group: str, pid: int, how: str, status: int | None, signal: str | None) -> None: ...


@line(WARNING, "the preloader of {group} (pid {pid}) is stuck: killing it, and starting this process directly")
def preloader_stuck(*, group: str, pid: int) -> None: ...


@line(WARNING, "{group} {reason}")
def unsafe_to_fork(*, group: str, pid: int, reason: str) -> None: ...


@line(WARNING, "accept on the spawn socket failed: {reason}")
def spawn_socket_failed(*, reason: str) -> None: ...


@line(WARNING, "rejected a connection to the spawn socket: {reason}")
def spawn_connection_rejected(*, pid: int, uid: int, reason: str) -> None: ...


@line(
    WARNING,
    "pid {stranger} (user {uid}) listens on the socket of pid {pid}: sending it no request, and replacing pid {pid}",
)
def stranger_listens(*, pid: int, stranger: int, uid: int) -> None: ...


@line(INFO, "{group} runs as {user}, {reason}")
def runs_as(*, group: str, user: str, reason: str) -> None: ...


@line(
    WARNING,
    "{group} runs as {user}, because the server was started by root and the application in {directory} belongs to root. "
    "Give it a user: --app-user NAME (user in an [[app]] table), or chown its files. "
    "--user NAME runs the whole server as NAME; --user root runs everything as root",
)
def runs_as_nobody(*, group: str, user: str, directory: str) -> None: ...


@line(INFO, "{groups} more applications run as {user}, {reason}")
def more_run_as(*, groups: int, user: str, reason: str) -> None: ...


@line(WARNING, "{groups} more applications of root's run as {user}")
def more_run_as_nobody(*, groups: int, user: str) -> None: ...


@line(INFO, "the server runs as {user} from here on")
def server_runs_as(*, user: str) -> None: ...
