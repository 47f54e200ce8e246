"""Lines about the server itself: its start and end, signals, reloads, front processes, the admin socket. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.core.model import GroupKey
from passenger_trio.log_lines import DEBUG, ERROR, INFO, WARNING, lines_of

line = lines_of("passenger_trio")
fronts = lines_of("passenger_trio.fronts")
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
