"""What options of gunicorn, uvicorn, puma and Phusion Passenger are called here, and why some have no counterpart.

Pure: a table, and the function that reads it. Names that are simply accepted (``--workers``, ``--bind``) are not
here, but in ``cli/flags.py`` and ``cli/start_cmd.py``.
"""

from __future__ import annotations

__all__ = ["advice_for"]

_SETTLED = "there is one way to serve requests, and it needs no choice"
_FOREGROUND = "the server stays in the foreground; let systemd or another supervisor start it in the background"
_PID = "`passenger-trio list` and `status` find the server; a supervisor that starts it knows its pid"
_PROXY = "TLS ends in a proxy in front of the server, such as nginx, Caddy or HAProxy"
_NGINX = "there is no nginx inside; put one in front if you need it"
_LOGGING = "the log goes to standard error (--log-level, --log-format); the requests to --access-log"

_ADVICE = {
    # gunicorn
    "--worker-class": f"{_SETTLED}: --thread-count N for threads, asgi by itself, gevent as the application patches",
    "--worker-connections": "use --max-concurrent-requests-per-process",
    "--threads": "use --thread-count",
    "--timeout": "use --max-request-time, which is off by default, or --start-timeout for the start",
    "--graceful-timeout": "use --max-drain-time for a restart, --shutdown-timeout for a stop",
    "--keep-alive": "use --keep-alive-timeout",
    "--backlog": "use --socket-backlog",
    "--limit-request-line": "use --max-request-line",
    "--limit-request-fields": "use --max-header-fields",
    "--limit-request-field_size": "use --max-header-field-size",
    "--preload": "applications are preloaded where that is safe; use --spawn-method smart to insist on it",
    "--preload-app": "applications are preloaded where that is safe; use --spawn-method smart to insist on it",
    "--reload-extra-file": "use --reload-include, or --reload-dir",
    "--reload-engine": "the kernel tells of changes, with --reload",
    "--chdir": "name the directory of the application: passenger-trio start DIR",
    "--pythonpath": "set PYTHONPATH: --env PYTHONPATH=DIR",
    "--daemon": _FOREGROUND,
    "--pid": _PID,
    "--worker-tmp-dir": "processes are watched without files; use --data-buffer-dir for large bodies",
    "--access-logfile": "use --access-log",
    "--access-logformat": "use --access-log-format combined or json",
    "--error-logfile": _LOGGING,
    "--log-file": _LOGGING,
    "--log-config": _LOGGING,
    "--log-syslog": f"{_LOGGING}; systemd or logger passes it on",
    "--capture-output": "what the application prints is in the log always",
    "--enable-stdio-inheritance": "what the application prints is in the log always",
    "--statsd-host": "`passenger-trio status --json` has the numbers",
    "--forwarded-allow": "use --trusted-proxies",
    "--proxy-protocol": "clients behind a proxy are known by X-Forwarded-For: --trusted-proxies",
    "--proxy-allow-from": "use --trusted-proxies",
    "--keyfile": _PROXY,
    "--certfile": _PROXY,
    "--raw-env": "use --env NAME=VALUE",
    "--check-config": "use `passenger-trio config check`",
    "--print-config": "use `passenger-trio config show --all`",
    "--paste": "name the application: module:factory()",
    "--reuse-port": "one server listens, and gives each request to the process that is least busy",
    # uvicorn
    "--factory": "name the function with its parentheses: module:factory()",
    "--fd": "the server opens its own socket: --address and --port, or --socket",
    "--http": _SETTLED,
    "--ws": _SETTLED,
    "--ws-max-size": "use --websocket-max-message-size",
    "--ws-ping-interval": "use --websocket-ping-interval",
    "--ws-ping-timeout": "use --websocket-ping-timeout",
    "--ws-max-queue": "a WebSocket whose application does not read is paused; there is no queue to set",
    "--lifespan": "lifespan events are sent, and an application that does not take them is served without",
    "--interface": "use --app-type wsgi or asgi",
    "--app-dir": "name the directory of the application: passenger-trio start DIR module:app",
    "--proxy-headers": "fields of trusted proxies are believed: --trusted-proxies",
    "--no-proxy-headers": "use --trusted-proxies with the address of no peer: 255.255.255.255",
    "--no-access-log": "use --access-log off",
    "--use-colors": "the log has colours in a terminal, unless NO_COLOR is set",
    "--limit-concurrency": "use --max-concurrent-requests-per-process and --max-request-queue-size",
    "--limit-max-requests": "use --max-requests",
    "--timeout-keep-alive": "use --keep-alive-timeout",
    "--timeout-graceful-shutdown": "use --shutdown-timeout",
    "--timeout-worker-healthcheck": "a process that hangs is found by --max-request-time",
    "--h11-max-incomplete-event-size": "use --max-header-size",
    "--ssl-keyfile": _PROXY,
    "--ssl-certfile": _PROXY,
    "--server-header": "a Server field of the application replaces ours",
    "--header": "let the application, or a proxy, set it",
    "--workers-max": "use --max-pool-size",
    # puma
    "--config-file": "use --config",
    "--control-url": "the admin socket is always there: `passenger-trio status`",
    "--control-token": "the admin socket belongs to your user and needs no token",
    "--debug": "use --log-level debug",
    "--dir": "name the directory of the application: passenger-trio start DIR",
    "--early-hints": "interim responses are passed on always",
    "--persistent-timeout": "use --keep-alive-timeout",
    "--first-data-timeout": "use --header-timeout",
    "--prune-bundler": "each process loads the Gemfile of its application",
    "--redirect-stdout": "what the application prints is in the log, on standard error",
    "--redirect-stderr": _LOGGING,
    "--state": _PID,
    "--silent": "use --log-level error",
    "--quiet": "use --access-log off",
    "--tag": "use --name",
    "--fork-worker": "processes are forked from a preloader: --spawn-method smart",
    # Phusion Passenger
    "--pid-file": _PID,
    "--log-file-path": _LOGGING,
    "--daemonize": _FOREGROUND,
    "--nodejs": "use --node",
    "--rackup": "use --startup-file",
    "--engine": _NGINX,
    "--nginx-bin": _NGINX,
    "--nginx-version": _NGINX,
    "--nginx-config-template": _NGINX,
    "--ssl": _PROXY,
    "--ssl-certificate": _PROXY,
    "--ssl-certificate-key": _PROXY,
    "--ssl-port": _PROXY,
    "--static-files-dir": "let nginx or the application serve files",
    "--concurrency-model": "use --thread-count",
    "--rolling-restarts": "every restart is rolling",
    "--resist-deployment-errors": "a version that does not start never replaces one that serves",
    "--max-requests-queue-size": "use --max-request-queue-size",
    "--app-file-descriptor-ulimit": "set the limit where the server is started (systemd: LimitNOFILE)",
    "--debugger": "start the application by itself in your debugger",
    "--disable-turbocaching": "there is no cache to switch off",
    "--turbocaching": "there is no cache; put one in front",
    "--disable-security-update-check": "the server asks nobody",
    "--force-max-concurrent-requests": "use --force-max-concurrent-requests-per-process",
    "--memory-limit-check-interval": "use --memory-check-interval",
    "--abort-websockets-on-process-shutdown": "WebSockets have a time to end: --websocket-drain",
    "--unlimited-concurrency-path": "use --unlimited-concurrency-paths",
    "--vary-turbocache-by-cookie": "there is no cache",
    "--ctl": "each option is a flag, a variable or a key of passenger-trio.toml",
    "--envvar": "use --env NAME=VALUE",
    "--auto": "it never asks anything",
}
"""Option -> what to do. The option is as the other server spells it, in lower case."""


def advice_for(option: str) -> str:
    """What to use in place of an option of another server; ``""``: the option is unknown."""
    return _ADVICE.get(option.lower(), "")
