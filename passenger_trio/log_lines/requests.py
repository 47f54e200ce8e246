"""Lines about requests and connections. See the package for how they are declared."""

from __future__ import annotations

from passenger_trio.log_lines import ERROR, INFO, WARNING, lines_of

line = lines_of("passenger_trio.server")
slow = lines_of("passenger_trio.slow")

# -- responses of ours ----------------------------------------------------------------------------------------------


@line(ERROR, "{group} raised {exception}: {reason} [request {request_id}] [pid {pid}]")
def application_raised(
    *, group: str, exception: str, reason: str, request_id: str, pid: int, status: int, code: str
) -> None: ...


@line(ERROR, "{group}: {reason} [request {request_id}]< [pid {pid}]>")
def response_failed(*, group: str, reason: str, request_id: str, pid: int | None, status: int, code: str) -> None: ...


@line(WARNING, "{group}: {reason} [request {request_id}]")
def request_refused(*, group: str, reason: str, request_id: str, status: int, code: str) -> None: ...


@line(INFO, "refused a request: {status} {code}< [{client}]>")
def bad_request(*, status: int, code: str, client: str) -> None: ...


@line(WARNING, "cut a response of {group} short after {bytes_sent} bytes [request {request_id}]: {reason}")
def response_cut_short(*, group: str, bytes_sent: int, request_id: str, reason: str, pid: int | None) -> None: ...


# -- connections ----------------------------------------------------------------------------------------------------


@line(INFO, "closing a client that stopped reading< [{client}]>")
def client_stopped_reading(*, client: str) -> None: ...


@line(
    INFO,
    "closing an event stream of {group}: its process is being replaced, or the server stops [request {request_id}]",
)
def event_stream_closed(*, group: str, request_id: str, pid: int | None) -> None: ...


@line(INFO, "closing an upgraded connection to {group}: {reason} [request {request_id}]")
def upgraded_closed(*, group: str, reason: str, request_id: str, pid: int | None) -> None: ...


@line(INFO, "closing a WebSocket whose client does not respond< [{client}]> [request {request_id}]")
def websocket_client_silent(*, group: str, client: str, request_id: str, pid: int | None) -> None: ...


@line(INFO, "closing a WebSocket with {code}: {reason}< [{client}]> [request {request_id}]")
def websocket_client_failed(
    *, group: str, code: int, reason: str, client: str, request_id: str, pid: int | None
) -> None: ...


@line(ERROR, "{group}: {reason} [request {request_id}]< [pid {pid}]>")
def websocket_failed(*, group: str, reason: str, request_id: str, pid: int | None) -> None: ...


@line(ERROR, "{group} closed a WebSocket with the code {code}, which cannot be sent [request {request_id}]")
def websocket_bad_code(*, group: str, code: int, request_id: str, pid: int | None) -> None: ...


@line(WARNING, "closing a WebSocket of {group}: the application stopped reading [request {request_id}]")
def websocket_app_stopped_reading(*, group: str, request_id: str, pid: int | None) -> None: ...


# -- slow requests --------------------------------------------------------------------------------------------------


@slow(WARNING, "{method} {path} of {group} takes {seconds:.1f} s: {reason} [request {request_id}]< [pid {pid}]>")
def request_slow(
    *, method: str, path: str, group: str, seconds: float, reason: str, request_id: str, pid: int | None
) -> None: ...


@slow(WARNING, "[request {request_id}] {text}")
def request_slow_stack(*, group: str, request_id: str, pid: int | None, text: str) -> None: ...


@slow(WARNING, "and {requests} more requests take longer than {limit:g} s")
def requests_slow_more(*, requests: int, limit: float) -> None: ...
