"""Lines about the processes of applications: how they are started (spawns, loaders, preloaders, users), end, and are replaced. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.core.model import GroupKey
from passenger_trio.log_lines import DEBUG, ERROR, INFO, WARNING, lines_of

line = lines_of("passenger_trio.pool")
spawning = lines_of("passenger_trio.spawning")

# -- spawns ---------------------------------------------------------------------------------------------------------


@line(DEBUG, "starting a process of {group}: {reason}")
def spawn_begins(*, group: GroupKey, reason: str) -> None: ...


@line(INFO, "{group} is still loading, for {seconds:.0f} s so far")
def spawn_lasts(*, group: GroupKey, seconds: float) -> None: ...


@line(INFO, "process {pid} of {group} is ready after {milliseconds:.0f} ms ({how})")
def process_ready(*, group: GroupKey, pid: int, milliseconds: float, how: str) -> None: ...


@line(ERROR, "{group} does not start: {summary} [error {error_id}]")
def spawn_failed(
    *, group: GroupKey, summary: str, error_id: str, category: str, status: str = "", solution: str = ""
) -> None: ...


@line(ERROR, "[error {error_id}] {text}")
def spawn_evidence(*, group: GroupKey, error_id: str, text: str) -> None: ...


@line(ERROR, "{summary}: process {pid} of {group} [error {error_id}]")
def circuit_opened(*, group: GroupKey, pid: int, summary: str, error_id: str) -> None: ...


@line(ERROR, "<{group}: >{summary}: {problem} [error {error_id}]")
def spawn_unexplained(*, group: GroupKey | None, summary: str, problem: str, error_id: str) -> None: ...


@line(DEBUG, "retiring the preloader of {group}: {reason}")
def preloader_retired(*, group: GroupKey, reason: str) -> None: ...


# -- ends -----------------------------------------------------------------------------------------------------------


@line(DEBUG, "detaching process {pid} of {group}: {reason}")
def process_detached(*, group: GroupKey, pid: int, reason: str) -> None: ...


@line(DEBUG, "retiring process {pid} of {group}: {reason}")
def process_retired(*, group: GroupKey, pid: int, reason: str) -> None: ...


@line(WARNING, "process {pid} of {group} is leaving and still has {requests}: {what}")
def process_draining(
    *, group: GroupKey, pid: int, sessions: int, requests: str, seconds: float | None, what: str
) -> None: ...


@line(WARNING, "ending process {pid} of {group} with {requests} in progress: {reason}")
def drain_time_exceeded(*, group: GroupKey, pid: int, sessions: int, requests: str, reason: str) -> None: ...


@line(WARNING, "killing process {pid} of {group}: {reason}")
def process_killed(*, group: GroupKey, pid: int, reason: str) -> None: ...


@line(ERROR, "process {pid} of {group} does not end although it was killed")
def process_stays(*, group: GroupKey, pid: int) -> None: ...


@line(INFO, "process {pid} of {group} ended: {how} ({reason})")
def process_ended(
    *, group: GroupKey, pid: int, how: str, reason: str, status: int | None = None, signal: str | None = None
) -> None: ...


@line(WARNING, "process {pid} of {group} ended: {how}")
def process_died(
    *, group: GroupKey, pid: int, how: str, status: int | None = None, signal: str | None = None
) -> None: ...


# -- what processes do ----------------------------------------------------------------------------------------------


@line(DEBUG, "process {pid} of {group} begins its out-of-band work")
def oob_work_begins(*, group: GroupKey, pid: int) -> None: ...


@line(WARNING, "the out-of-band work of process {pid} of {group} failed: {reason}")
def oob_work_failed(*, group: GroupKey, pid: int, reason: str) -> None: ...


@line(WARNING, "cannot measure the memory of {processes} processes this time: {reason}")
def memory_unmeasured(*, processes: int, reason: str) -> None: ...


# -- groups ---------------------------------------------------------------------------------------------------------


@line(INFO, "restarted {group}: generation {generation} serves")
def restart_ended(*, group: GroupKey, generation: int) -> None: ...


@line(ERROR, "gave up the restart of {group}: the previous version keeps serving<; {summary}>< [error {error_id}]>")
def restart_rejected(*, group: GroupKey, generation: int, summary: str = "", error_id: str = "") -> None: ...


@line(
    ERROR,
    "restarted {group}, and it does not start; no process of the previous version is left<; {summary}>< [error {error_id}]>",
)
def restart_failed(*, group: GroupKey, generation: int, summary: str = "", error_id: str = "") -> None: ...


@line(INFO, "removed {group}")
def group_removed(*, group: GroupKey) -> None: ...


@line(INFO, "restarting {group}: {reason}")
def restart_begins(*, group: GroupKey, reason: str) -> None: ...


@line(INFO, "{group}: always_restart.txt {reason}")
def always_restart_changed(*, group: GroupKey, reason: str) -> None: ...


@line(INFO, "{group} restarts when files change in {directories}")
def code_watched(*, group: GroupKey, directories: str) -> None: ...


@line(WARNING, "looking at the files of {group} periodically: {reason}")
def code_polled(*, group: GroupKey, reason: str) -> None: ...


@line(WARNING, "cannot look for changes of the code of {groups} applications this time: {reason}")
def code_unseen(*, groups: int, reason: str) -> None: ...


@line(WARNING, "cannot look at restart.txt of {groups} applications this time: {reason}")
def restart_files_unseen(*, groups: int, reason: str) -> None: ...


@line(WARNING, "cannot open a stream to process {pid} of {group} for a front: {reason}")
def no_stream_for_front(*, group: GroupKey, pid: int, reason: str) -> None: ...


# -- loaders, preloaders and users ------------------------------------------------------------------------------------


@spawning(INFO, "event from the loader of {group}: {name_of_event} {members}")
def loader_event(*, group: str, name_of_event: str, members: str) -> None: ...


@spawning(INFO, "event from pid {pid}: {name_of_event} {members}")
def process_event(*, pid: int, name_of_event: str, members: str) -> None: ...


@spawning(INFO, "event from the preloader of {group}: {name_of_event} {members}")
def preloader_event(*, group: str, pid: int, name_of_event: str, members: str) -> None: ...


@spawning(INFO, "{group} is an {interface} application: serving it as one")
def turned_out(*, group: str, interface: str) -> None: ...


@spawning(WARNING, "pid {pid}: {reason}")
def loader_broke_protocol(*, pid: int, reason: str) -> None: ...


@spawning(WARNING, "ending the preloader of {group} (pid {pid}): {reason}")
def preloader_broke_protocol(*, group: str, pid: int, reason: str) -> None: ...


@spawning(WARNING, "the preloader of {group} (pid {pid}) ended by itself: {how}")
def preloader_died(*, group: str, pid: int, how: str, status: int | None, signal: str | None) -> None: ...


@spawning(WARNING, "the preloader of {group} (pid {pid}) is stuck: killing it, and starting this process directly")
def preloader_stuck(*, group: str, pid: int) -> None: ...


@spawning(WARNING, "{group} {reason}")
def unsafe_to_fork(*, group: str, pid: int, reason: str) -> None: ...


@spawning(WARNING, "accept on the spawn socket failed: {reason}")
def spawn_socket_failed(*, reason: str) -> None: ...


@spawning(WARNING, "rejected a connection to the spawn socket: {reason}")
def spawn_connection_rejected(*, pid: int, uid: int, reason: str) -> None: ...


@spawning(
    WARNING,
    "pid {stranger} (user {uid}) listens on the socket of pid {pid}: sending it no request, and replacing pid {pid}",
)
def stranger_listens(*, pid: int, stranger: int, uid: int) -> None: ...


@spawning(INFO, "{group} runs as {user}, {reason}")
def runs_as(*, group: str, user: str, reason: str) -> None: ...


@spawning(
    WARNING,
    "{group} runs as {user}, because the server was started by root and the application in {directory} belongs to root. "
    "Give it a user: --app-user NAME (user in an [[app]] table), or chown its files. "
    "--user NAME runs the whole server as NAME; --user root runs everything as root",
)
def runs_as_nobody(*, group: str, user: str, directory: str) -> None: ...


@spawning(INFO, "{groups} more applications run as {user}, {reason}")
def more_run_as(*, groups: int, user: str, reason: str) -> None: ...


@spawning(WARNING, "{groups} more applications of root's run as {user}")
def more_run_as_nobody(*, groups: int, user: str) -> None: ...


@spawning(INFO, "the server runs as {user} from here on")
def server_runs_as(*, user: str) -> None: ...
