"""Lines about the server itself: its start and end, signals, reloads, front processes, the admin socket, the pool as a whole, hooks, buffers on disk. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.core.model import GroupKey
from passenger_trio.log_lines import CRITICAL, DEBUG, ERROR, INFO, WARNING, lines_of

line = lines_of("passenger_trio")
fronts = lines_of("passenger_trio.fronts")
pool = lines_of("passenger_trio.pool")
requests = lines_of("passenger_trio.server")
admin = lines_of("passenger_trio.admin")
metrics = lines_of("passenger_trio.metrics")

# -- start and end ----------------------------------------------------------------------------------------------------


@line(WARNING, "serving while {group} is still loading: its requests wait in the queue")
def start_not_awaited(*, group: GroupKey) -> None: ...


@line(INFO, "stopped during its start")
def stopped_at_start(*, status: int) -> None: ...


@line(INFO, "draining: {requests} requests are under way")
def draining(*, requests: int) -> None: ...


@line(WARNING, "the process {pid} of --lifeline has ended: ending at once")
def lifeline_ended(*, pid: int) -> None: ...


# -- signals ----------------------------------------------------------------------------------------------------------


@line(WARNING, "{signal} has no effect (docs/signals.md says what each signal does)")
def signal_without_effect(*, signal: str) -> None: ...


@line(INFO, "{signal}: opening the log files anew")
def logs_reopened(*, signal: str) -> None: ...


@line(INFO, "{signal}: reading the configuration anew, and restarting")
def reload_by_signal(*, signal: str) -> None: ...


@line(INFO, "{signal}: restarting, once everything has started")
def restart_after_start(*, signal: str) -> None: ...


@line(WARNING, "{signal}: ending at once")
def ending_at_once(*, signal: str) -> None: ...


@line(INFO, "{signal}: draining (once more: end at once)")
def draining_by_signal(*, signal: str) -> None: ...


# -- reloads ----------------------------------------------------------------------------------------------------------


@line(INFO, "reload: {change}")
def reload_changes(*, change: str) -> None: ...


@line(ERROR, "not applying {path}: {reason}")
def file_not_taken_over(*, path: str, reason: str) -> None: ...


@line(INFO, "{path} is valid again, or was removed")
def file_well_again(*, path: str) -> None: ...


@line(ERROR, "not applying the files of --apps-dir: {reason}")
def files_not_taken_over(*, reason: str) -> None: ...


@line(ERROR, "keeping the previous configuration, and restarting all applications with it: {reason}")
def reload_failed(*, reason: str) -> None: ...


# -- front processes --------------------------------------------------------------------------------------------------


@line(
    WARNING,
    "{fronts} fronts have less than {places} places in processes each (--max-pool-size, --thread-count): they will often wait for each other",
)
def fronts_too_many(*, fronts: int, places: int) -> None: ...


@fronts(ERROR, "front {front} {reason}; its connections are lost, and it is started again {when}")
def front_ended(*, front: int, reason: str, when: str) -> None: ...


@fronts(DEBUG, "front {front} is drained")
def front_drained(*, front: int) -> None: ...


@fronts(ERROR, "keeping the previous access log: {reason}")
def front_keeps_access_log(*, reason: str) -> None: ...


@fronts(ERROR, "leaving out the {what} of front {front}: {reason}")
def front_left_out(*, front: int, what: str, reason: str) -> None: ...


# -- who asks ---------------------------------------------------------------------------------------------------------


@admin(WARNING, "accept on the admin socket failed: {reason}")
def admin_socket_failed(*, reason: str) -> None: ...


@admin(WARNING, "user {uid} (pid {pid}) was refused on the admin socket")
def admin_refused(*, uid: int, pid: int) -> None: ...


@metrics(WARNING, "accept on the metrics listener failed: {reason}")
def metrics_listener_failed(*, reason: str) -> None: ...


# -- the pool and its hooks -------------------------------------------------------------------------------------------


@pool(CRITICAL, "the pool has failed, and the server ends: {reason}")
def pool_failed(*, reason: str) -> None: ...


@pool(ERROR, "cannot run the hook for {hook}: {command}: {reason}")
def hook_unusable(*, hook: str, command: str, reason: str) -> None: ...


@pool(ERROR, "the hook for {hook} took longer than {seconds:.0f} s, or than the server, and was killed")
def hook_killed(*, hook: str, seconds: float) -> None: ...


@pool(WARNING, "the hook for {hook} ended with status {status}")
def hook_failed(*, hook: str, status: int) -> None: ...


# -- buffers, descriptors, sockets ------------------------------------------------------------------------------------


@requests(WARNING, "buffers have reached {limit} bytes on disk, their limit: applications are paused")
def spill_full(*, limit: int) -> None: ...


@requests(
    WARNING,
    "connections and buffers ({open_files}) have reached what the limit on descriptors leaves them: applications are paused "
    "while their clients are slow",
)
def spill_no_descriptor(*, open_files: int) -> None: ...


@requests(
    ERROR,
    "buffering in {directory} failed ({code}: {reason}): applications are paused while their clients are slow, and it is "
    "tried again",
)
def spill_failed(*, directory: str, code: str, reason: str) -> None: ...


@requests(ERROR, "cannot read back a buffer in {directory}: {reason}")
def spill_lost(*, directory: str, reason: str) -> None: ...


@requests(WARNING, "{requests} refused requests are not in the access log")
def refusals_unlogged(*, requests: int) -> None: ...


@requests(WARNING, "{reason}")
def server_warning(*, reason: str) -> None: ...


@requests(WARNING, "cannot remove the socket {path}: {reason}")
def socket_stays(*, path: str, reason: str) -> None: ...
