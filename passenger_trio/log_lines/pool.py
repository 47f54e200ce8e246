"""Lines about the processes and groups of the pool. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.core.model import GroupKey
from passenger_trio.log_lines import CRITICAL, DEBUG, ERROR, INFO, WARNING, lines_of

line = lines_of("passenger_trio.pool")

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


# -- the pool -------------------------------------------------------------------------------------------------------


@line(CRITICAL, "the pool has failed, and the server ends: {reason}")
def pool_failed(*, reason: str) -> None: ...


@line(WARNING, "cannot open a stream to process {pid} of {group} for a front: {reason}")
def no_stream_for_front(*, group: GroupKey, pid: int, reason: str) -> None: ...


@line(ERROR, "cannot run the hook for {hook}: {command}: {reason}")
def hook_unusable(*, hook: str, command: str, reason: str) -> None: ...


@line(ERROR, "the hook for {hook} took longer than {seconds:.0f} s, or than the server, and was killed")
def hook_killed(*, hook: str, seconds: float) -> None: ...


@line(WARNING, "the hook for {hook} ended with status {status}")
def hook_failed(*, hook: str, status: int) -> None: ...
