"""Every option, once. The command-line flags, the environment names, the configuration keys and the
documentation come from this schema.

A field's metadata has the form in which people write it (``kind``), its help, its short flag, and
the variables of other programs that set it. In these objects, times are seconds and sizes are
bytes; ``core.option_values`` makes them of what people write. The classes are frozen: changed options are a new object.

Pure: this module reads no file, no environment and no clock.
"""

from __future__ import annotations

from typing import Any

import attrs

from passenger_trio.late_classes import frozen

__all__ = [
    "FRONTS_AUTO",
    "LEAST",
    "MAX_WEBSOCKET_MESSAGE",
    "MOST",
    "NOT_ZERO",
    "AppOptions",
    "Config",
    "PoolOptions",
    "ServerOptions",
]

MAX_WEBSOCKET_MESSAGE = 16 * 1024**2
"""The longest frame of the session protocol; a message is one frame."""

LEAST = {
    "force_max_concurrent_requests_per_process": -1,
    "max_concurrent_requests_per_process": -1,
    "thread_count": 1,
    "socket_backlog": 1,
    "max_header_fields": 1,
    "nice": -20,
}
"""The smallest value of a number; 0 for those not listed."""
MOST = {"port": 65535, "nice": 19, "cpu_weight": 10_000, "socket_backlog": 2**31 - 1}
"""The largest value."""
NOT_ZERO = frozenset(
    {
        "memory_check_interval",
        "start_timeout",
        "header_timeout",
        "write_timeout",
        "keep_alive_timeout",
        "max_request_line",
        "max_header_size",
        "max_header_field_size",
        "websocket_max_message_size",
    }
)
"""Times and sizes that must not be 0, because the server could not serve."""

FRONTS_AUTO = "auto"


def option(
    default: Any,
    help: str,
    *,
    kind: str = "",
    short: str = "",
    choices: tuple[str, ...] = (),
    variables: tuple[str, ...] = (),
) -> Any:
    """An attrs field with the metadata that the command line and the documentation need.

    :param kind: ``duration``, ``size``, ``int``, ``flag``, ``path``, ``text``, ``mode``, ``list``,
        ``pool size`` or ``choice``; by default taken from the type of ``default``.
    :param variables: environment variables that other programs use too. On the command line, the
        first one that is set replaces the default (OP10).
    """
    if not kind:
        kind = {bool: "flag", int: "int", float: "duration", str: "text", tuple: "list"}.get(type(default), "text")
    metadata = {"help": help, "kind": kind, "short": short, "choices": choices, "variables": variables}
    return attrs.field(default=default, metadata=metadata)


@attrs.frozen(kw_only=True, cache_hash=True)
class AppOptions:
    """One application: its directory, how it is started, and the number of its processes."""

    root: str = option(".", "directory of the application", kind="path")
    target: str = option("", "module:object or module:factory(); detected when left out")
    name: str = option("", "name of the application group (default: the directory's name)")
    environment: str = option(
        "development",
        "development, production, ...",
        short="e",
        variables=("RAILS_ENV", "RACK_ENV", "NODE_ENV", "PASSENGER_APP_ENV"),
    )
    app_type: str = option(
        "",
        "type of the application; detected when left out",
        kind="choice",
        choices=("wsgi", "asgi", "rack", "node", "generic"),
    )
    startup_file: str = option("", "file to load, in the application's directory", kind="path")
    python: str = option(
        "",
        "Python interpreter (its .venv's, or active)",
        kind="path",
    )
    ruby: str = option(
        "",
        "Ruby interpreter (default: as .ruby-version or the Gemfile asks, else in PATH)",
        kind="path",
    )
    node: str = option("", "Node.js interpreter of the application (default: node in PATH)", kind="path")
    app_start_command: str = option("", "start a program that listens on $PORT (TCP) or $SOCKET (Unix)")
    user: str = option(
        "",
        "user that the application runs as, by name or number, if root starts the server (default: the owner of its startup file; nobody for root's)",
    )
    group: str = option("", "group that the application runs as, by name or number (default: its user's)")
    umask: str = option("", "umask of the application, octal: 0022 (default: the server's)", kind="mode")
    open_files: int = option(0, "most open files of a process (0: the server's limit)")
    processes: int = option(
        0, "most processes and threads of the application's user, of whichever program (0: the server's limit)"
    )
    core: str = option("", "largest core file: 0, a size, or unlimited (default: the server's limit)")
    address_space: int = option(0, "most address space of a process (0: the server's limit)", kind="size")
    cpu_time: float = option(0.0, "most processor time of a process; the kernel kills it then (0: the server's limit)")
    nice: int = option(0, "nice value of the application's processes, -20 to 19 (0: the server's)")
    memory_high: int = option(
        0,
        "memory of all its processes together above which the kernel slows them down (0: no limit); needs cgroup v2",
        kind="size",
    )
    memory_max: int = option(
        0,
        "most memory of all its processes together; the kernel kills one then (0: no limit); needs cgroup v2",
        kind="size",
    )
    cpu_weight: int = option(
        0, "share of the processor when it is contended, 1 to 10000 (0: 100, as others); needs cgroup v2"
    )
    cpu_max: str = option(
        "", "most of the processor for all its processes together: 150%, or as in cpu.max; needs cgroup v2"
    )
    pids_max: int = option(0, "most processes and threads of the application (0: no limit); needs cgroup v2")
    spawn_method: str = option(
        "auto",
        "fork from a preloader: auto: if that is safe, smart: always, direct: never",
        kind="choice",
        choices=("auto", "smart", "direct"),
    )
    retry: str = option(
        "idempotent",
        "which requests to send to a second process if the first one closed without an answer: safe methods (GET, HEAD, OPTIONS, TRACE), "
        "idempotent methods (also PUT and DELETE), or none (off)",
        kind="choice",
        choices=("safe", "idempotent", "off"),
    )
    min_instances: int = option(1, "processes to keep running")
    max_instances: int = option(0, "most processes of this application (0: the pool's limit)")
    max_request_queue_size: int = option(100, "most requests that wait for a process; more: 503 (0: no limit)")
    max_request_queue_time: float = option(
        0.0, "most time that a request waits for a process; longer: 504 (0: no limit)"
    )
    max_requests: int = option(
        0,
        "replace a process after about this many requests; its replacement starts early (0: never)",
    )
    max_requests_jitter: int = option(0, "random number of requests, up to this, to subtract for each process")
    max_process_lifetime: float = option(0.0, "replace a process after this time (0: never)")
    max_request_time: float = option(
        0.0, "kill the process of a request that takes longer, and answer 504 (0: no limit)"
    )
    memory_limit: int = option(0, "replace a process that uses more memory (0: no limit)", kind="size")
    hard_memory_limit: int = option(0, "kill a process that uses more memory (0: no limit)", kind="size")
    force_max_concurrent_requests_per_process: int = option(
        -1,
        "requests per process at the same time, whatever its loader reports (0: any number; -1: as reported)",
    )
    unlimited_concurrency_paths: tuple[str, ...] = option(
        (),
        "path below which requests do not count among those that a process serves at the same time: for WebSockets and others that the application hands to threads or an event loop of its own; repeatable",
    )
    sticky_sessions: bool = option(
        False,
        "send each client to the same process again, by a cookie: for sessions in a process's memory, and for long polling (socket.io)",
    )
    sticky_sessions_cookie_name: str = option("_passenger_route", "name of that cookie")
    sticky_sessions_cookie_attributes: str = option(
        "HttpOnly; SameSite=Lax", "attributes of that cookie; over HTTPS also Secure"
    )
    preloader_socket: str = option(
        "",
        "fork from a preloader that runs already and listens on this Unix socket, instead of starting one (WSGI, ASGI, Rack); with --spawn-method direct, each process is taken from there",
        kind="path",
    )
    start_timeout: float = option(90.0, "most time until a process is ready")
    warmup_url: str = option("", "path that a new process must answer before it replaces an old one", kind="text")
    max_drain_time: float = option(
        300.0,
        "time for the requests of a replaced or detached process; then it is ended (0: no limit)",
    )
    restart_dir: str = option("tmp", "directory of restart.txt, relative to the application's directory", kind="path")
    max_preloader_idle_time: float = option(300.0, "stop a preloader that forked nothing for this time (0: never)")
    thread_count: int = option(1, "threads per process (WSGI, Rack): the number of requests it serves at the same time")
    max_concurrent_requests_per_process: int = option(
        -1,
        "requests at the same time per process with an event loop or a server of its own (0: any number; -1: asgi and node 100, generic any number)",
    )
    loop: str = option(
        "auto",
        "event loop of an ASGI application (auto: trio for Quart-Trio, else asyncio)",
        kind="choice",
        choices=("auto", "asyncio", "trio"),
    )
    env: tuple[tuple[str, str], ...] = option(
        (), "set a variable of the application's environment; repeatable", kind="list"
    )
    env_file: tuple[str, ...] = option(
        (),
        "file of NAME=VALUE lines, in the application's directory, for its environment; repeatable (needs the extra env-file)",
    )
    host_name: tuple[str, ...] = option(
        (), "serve this application for this host name, or *.example.com; repeatable (default: any)", kind="list"
    )
    base_uri: str = option("", "mount the application under this path (SCRIPT_NAME)")
    shutdown_timeout: float = option(10.0, "time in which a process must end before it is killed")
    request_buffering: bool = option(
        True, "buffer a request body, in memory and on disk, before a process gets the request"
    )
    streamed_paths: tuple[str, ...] = option(
        (),
        "path below which request bodies are streamed to the application and not buffered first; repeatable",
    )
    response_buffer_high_watermark: int = option(
        128 * 1024**2, "pause a process when its response has this much in the buffers (0: no limit)", kind="size"
    )
    reload: bool = option(False, "restart the application when its files change (needs the extra reload)")
    reload_dir: tuple[str, ...] = option(
        (), "directory to watch, with those below it; repeatable (default: the application's directory)"
    )
    reload_include: tuple[str, ...] = option(
        (), "watch files of this name or path, too: '*.sql'; repeatable (code, templates and configuration are watched)"
    )
    reload_exclude: tuple[str, ...] = option(
        (), "do not watch files or directories of this name or path: 'data', '*_test.py'; repeatable"
    )
    friendly_error_pages: str = option(
        "auto",
        "explain errors to the browser (auto: in development)",
        kind="choice",
        choices=("auto", "on", "off"),
    )

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def explains_errors(self) -> bool:
        """Whether error pages may show a diagnosis (R26: never in production)."""
        return self.is_development if self.friendly_error_pages == "auto" else self.friendly_error_pages == "on"


@frozen(kw_only=True)
class PoolOptions:
    """The limits of all applications together."""

    max_pool_size: int | str = option(
        6,
        "most processes of all; auto, 50%: as fit into memory",
        kind="pool size",
        variables=("WEB_CONCURRENCY",),
    )
    pool_idle_time: float = option(300.0, "stop an idle process above the minimum after this time (0: never)")
    max_concurrent_spawns: int = option(
        0, "processes that load an application at the same time, not counting slow ones (0: one per core)"
    )
    memory_check_interval: float = option(
        5.0,
        "how often to measure the processes of applications with a memory limit; with --max-pool-size auto, all processes",
    )
    hook: tuple[str, ...] = option((), "run a command at an event of the pool: EVENT=COMMAND, repeatable", kind="list")
    stat_throttle_rate: float = option(
        1.0,
        "how often to check restart.txt, and the code of an application that crashes (0: never)",
    )


@frozen(kw_only=True)
class ServerOptions:
    """Options for serving clients, and for the logs."""

    address: str = option("127.0.0.1", "address to listen on", short="a")
    port: int = option(3000, "TCP port to listen on (0: any free one)", short="p", variables=("PORT",))
    socket: str = option("", "listen on this Unix socket instead", kind="path", short="S")
    socket_mode: str = option("0666", "mode of the Unix socket's file, octal: who may connect", kind="mode")
    socket_backlog: int = option(2048, "length of the kernel's queue of connections not yet accepted")
    lifeline: int = option(
        0,
        "end at once when the process with this pid has ended (0: none); for programs that start the command and may be killed",
    )
    user: str = option(
        "",
        "user that the whole server becomes once it listens, by name or number; root: stay root, applications too (default: applications run as users of their own)",
    )
    fronts: str = option(
        "1",
        "processes that serve clients, each with an event loop of its own, on one pool; auto: half of the cores",
    )
    front_balance: str = option(
        "load",
        "how several fronts share the clients: load: as many fronts serve as the load needs, and idle connections move to these; count: each front has as many connections",
        kind="choice",
        choices=("load", "count"),
    )
    apps_dir: str = option(
        "",
        "directory of *.toml files, one application each; it is followed while the server runs: files come, change and go",
        kind="path",
    )
    instance_dir: str = option("", "directory for this instance's sockets (default: a new private one)", kind="path")
    plain_parser: bool = option(True, "try the plain-request parser before h11")
    header_timeout: float = option(10.0, "most time for a request head, from its first byte; longer: 408")
    body_timeout: float = option(10.0, "grace period for a request body, before --body-min-rate applies")
    body_min_rate: int = option(
        500, "bytes per second that a request body must reach after --body-timeout", kind="size"
    )
    keep_alive_timeout: float = option(15.0, "close an idle connection after this time")
    write_timeout: float = option(60.0, "close a client connection that accepted no bytes for this time")
    upgrade_idle_timeout: float = option(
        3600.0, "close an upgraded connection (WebSocket) that was silent for this time (0: never)"
    )
    max_requests_per_connection: int = option(1000, "requests on one connection (0: no limit)")
    max_connection_age: float = option(3600.0, "close a connection older than this after its response (0: never)")
    max_request_line: int = option(8192, "longest request line; longer: 414", kind="size")
    max_header_size: int = option(32768, "all header fields of a request together; more: 431", kind="size")
    max_header_field_size: int = option(16384, "one header field; longer: 431", kind="size")
    max_header_fields: int = option(100, "number of header fields; more: 431")
    max_request_body: int = option(128 * 1024**2, "longest request body; longer: 413 (0: no limit)", kind="size")
    allowed_methods: tuple[str, ...] = option(
        (), "serve only these methods: GET, POST, ...; others: 501; repeatable (default: every method)"
    )
    data_buffer_dir: str = option(
        "", "directory of the files that buffer responses and request bodies (default: $TMPDIR or /tmp)", kind="path"
    )
    data_buffer_max: int = option(
        0, "most bytes of all these files together (0: 80 % of the space that is free at the start)", kind="size"
    )
    max_connections: int = option(0, "client connections at the same time (0: from the file limit)")
    trusted_proxies: tuple[str, ...] = option(
        ("127.0.0.0/8", "::1"),
        "peers whose X-Forwarded-* and Forwarded fields are trusted: address, network, unix for any peer on the Unix socket (our own user and root always are), or *; repeatable",
    )
    shutdown_timeout: float = option(30.0, "time in which the server ends when it is stopped")
    websocket_max_message_size: int = option(
        1024**2, "longest message of a WebSocket client; longer: close with 1009 (at most 16M)", kind="size"
    )
    websocket_ping_interval: float = option(20.0, "ping a WebSocket client that was silent for this time (0: never)")
    websocket_ping_timeout: float = option(
        20.0, "close a WebSocket client that did not answer a ping within this time (0: never)"
    )
    websocket_drain: float = option(
        5.0, "time for WebSockets and event streams to end when the server stops or their process is replaced"
    )
    abort_on_startup_error: bool = option(False, "exit with code 3 if the application does not start")
    access_log: str = option(
        "auto",
        "file, '-' (standard output), 'syslog' or syslog:/PATH (its socket), 'off' or 'none', or auto: '-' in development",
        kind="path",
    )
    access_log_format: str = option(
        "combined",
        "format of the access log: combined, json, or a format string with the directives of Apache, gunicorn and our own: '%h %t \"%r\" %>s %b %{queue}x'",
        kind="text",
    )
    tracing: str = option(
        "pass",
        "W3C Trace Context (traceparent, tracestate) of requests: pass it on as it came, also make it where it is missing, or also send spans to OpenTelemetry (extra otel)",
        kind="choice",
        choices=("pass", "make", "spans"),
    )
    slow_request_time: float = option(
        0.0, "log a request that takes longer, with its stages' times and the stack of its process (0: never)"
    )
    metrics_listen: str = option(
        "",
        "serve /metrics (OpenMetrics), /livez, /readyz and /startupz at HOST:PORT, at a port of 127.0.0.1, or at unix:PATH, to whoever can connect (default: on the admin socket only)",
        kind="text",
    )
    health_path: str = option(
        "",
        "also answer /livez, /readyz and /startupz below this path of the public address, to everybody and for every host name: /-/health",
        kind="text",
    )
    log_level: str = option(
        "info", "least serious level that is logged", kind="choice", choices=("debug", "info", "warning", "error")
    )
    disable_log_prefix: bool = option(
        False,
        "pass lines of applications through unchanged, without time, name and pid (with --log-format json: lines that are JSON objects)",
    )
    log_format: str = option(
        "console", "format of the log on standard error", kind="choice", choices=("console", "json")
    )


@frozen(kw_only=True)
class Config:
    """All options of one server."""

    server: ServerOptions = attrs.field(factory=ServerOptions)
    pool: PoolOptions = attrs.field(factory=PoolOptions)
    apps: tuple[AppOptions, ...] = attrs.field(factory=lambda: (AppOptions(),))
