"""Lines of the error kernel, about the server's own tasks. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.log_lines import CRITICAL, ERROR, lines_of

line = lines_of("passenger_trio.error_kernel")


@line(ERROR, "{task} failed< ({consequence})>: {reason}; this is a fault of passenger_trio, please report it")
def task_failed(*, task: str, consequence: str, reason: str, times: int, exc_info: BaseException) -> None: ...


@line(ERROR, "{task} failed< ({consequence})>, for the {times}th time like this: {reason}")
def task_failed_again(*, task: str, consequence: str, reason: str, times: int) -> None: ...


@line(ERROR, "cannot record a fault of {task}: {reason}")
def fault_unrecorded(*, task: str, reason: str, exc_info: BaseException) -> None: ...


@line(ERROR, "{task} keeps failing: giving up: {reason}")
def task_given_up(*, task: str, reason: str) -> None: ...


@line(
    CRITICAL,
    "{task} keeps failing, and the server does without it: trying again every {seconds:.0f} seconds. "
    "The last time: {reason}",
)
def task_missing(*, task: str, seconds: float, reason: str) -> None: ...
