"""The schema of ``options`` -> ``docs/options.md``. A test checks that the file is up to date.

To make the file::

    python -m passenger_trio.cli.reference > docs/options.md
"""

from __future__ import annotations

from passenger_trio.cli.flags import SECTIONS, Flag, flags

__all__ = ["options_reference"]

_HEAD = """# Options of `passenger-trio start`

<!-- Made from passenger_trio/options.py by: python -m passenger_trio.cli.reference > docs/options.md -->

`passenger-trio start [DIR] [TARGET]` serves the application in DIR (default: the current directory). TARGET names the
application if it cannot be found by reading DIR's files: `module:object`, `module:factory()` or `file.py:object`.
`--app WHERE=DIR` (or `WHERE=TARGET`) serves one more application at a path, a host name, or a path of a host: `--app /blog=../blog`,
`--app wiki.example.com=wiki`, `--app example.com/shop=shop:app`. Options of applications apply to all of them.

Each option can be given on the command line, or by an environment variable, or in a configuration file, or as a member of `AppOptions`,
`PoolOptions` or `ServerOptions` in Python. The command line overrides the environment, and the environment overrides the file.

Some defaults come from variables that other servers use: `PORT`, `WEB_CONCURRENCY`, and `RAILS_ENV`, `RACK_ENV`, `NODE_ENV` or
`PASSENGER_APP_ENV`, whichever is set first in this order. If the port comes from `PORT` and no address is given, the server listens on `0.0.0.0`.

* **Times** are written `30`, `30s`, `5m`, `2h`, `1d`, `250ms`. In Python they are seconds.
* **Sizes** are written `65536`, `64K`, `512M`, `1GiB`; every unit is a power of 1024. In Python they are bytes.
* **Flags** are switched on by `--name` and off by `--no-name`; in the environment by `1` and `0`.
* **Names of other servers** are accepted: `-b`/`--bind`, `-w`/`--workers`, `--host`, `--uds`, `--root-path`, `--forwarded-allow-ips`.
  `--help-all` lists every option.
* **Values of options that can be repeated** are separated by white space in the environment. Give a value that contains white space (a `--hook` with
  arguments) on the command line or in the file.

## The configuration file

`passenger-trio.toml` in DIR, or the file that `--config` or `PASSENGER_TRIO_CONFIG` names. It can have several applications: a request goes
to the one whose host name and path fit best.

```toml
[server]
port = 8080

[pool]
max_pool_size = 8
hook = ["spawn_failed=/usr/local/bin/alarm --now"]

[[app]]
root = "shop"

[[app]]
root = "blog"
base_uri = "/blog"
min_instances = 2
env = { DEBUG = "1" }
```

* The last column below names the table and the key: `ServerOptions.port` is `port` in `[server]`, `PoolOptions` is `[pool]`, `AppOptions` is `[[app]]`. `[[app]]`
  also has `root` (relative to the file; default: DIR) and `target`.
* An application's option on the command line or in the environment applies to every application of the file.
* An unknown name is an error. `passenger-trio config check` checks the file without starting anything; `passenger-trio config show --origin` shows where each value comes from.
* `Passengerfile.json` is read if there is no `passenger-trio.toml`. The log names its keys that have no counterpart here.

## Hooks

`--hook EVENT=COMMAND` runs a program, without a shell, at an event of the pool: `process_attached`, `process_detached`, `process_exited`, `spawn_failed`,
`queue_full`, `request_time_exceeded`, `memory_limit_exceeded`, `drain_time_exceeded`, `restart_ended`, `restart_rejected`. `PASSENGER_TRIO_HOOK` in its environment is the event, and
its members are variables, empty if there is no value. Hooks run one after another; one that takes longer than 30 s is killed.

| variable | events | value |
|---|---|---|
| `PASSENGER_TRIO_HOOK_GROUP` | all but `queue_full` | the application and its environment: `shop (production)` |
| `PASSENGER_TRIO_HOOK_PID` | what happens to a process | its pid |
| `PASSENGER_TRIO_HOOK_REASON` | `process_detached`, `process_exited` | why the server ended it, as a sentence; empty: the server did not |
| `PASSENGER_TRIO_HOOK_EXIT_STATUS` | `process_exited` | its exit status; empty: ended by a signal, or unknown |
| `PASSENGER_TRIO_HOOK_SIGNAL` | `process_exited` | the signal that ended it: `SIGSEGV` |
| `PASSENGER_TRIO_HOOK_SUMMARY`, `PASSENGER_TRIO_HOOK_ID` | `spawn_failed` | what failed, and the id of the failure in the log |
| `PASSENGER_TRIO_HOOK_GENERATION` | `restart_ended`, `restart_rejected` | number of the generation; the first restart makes 2 |
| `PASSENGER_TRIO_HOOK_TIME` | all | seconds since the epoch |
"""

_TAIL = """
## Exit codes

| code | meaning |
|---|---|
| 0 | stopped as requested |
| 1 | a command to a running instance failed: no instance answers, several could be meant, or it refused |
| 2 | a wrong option or argument |
| 3 | the application failed to start, and `--abort-on-startup-error` was given |
| 4 | no application found, or its user cannot reach it |
| 5 | cannot listen on the address |
| 6 | a second signal ended the server at once |
| 70 | an internal error, or a resource is missing |
| 130 | interrupted by Ctrl-C before the server handled signals, or in another command |
"""


def options_reference() -> str:
    """The text of ``docs/options.md``."""
    parts = [_HEAD]
    every = flags()
    for section in SECTIONS:
        rows = "\n".join(_row(flag) for flag in every if flag.section == section)
        parts.append(
            f"\n## {section}\n\n| option | default | meaning | environment | Python |\n|---|---|---|---|---|\n{rows}\n"
        )
    parts.append(_TAIL)
    return "".join(parts)


def _row(flag: Flag) -> str:
    spelling = f"`{flag.long}`" if flag.kind == "flag" else f"`{flag.long} {flag.metavar}`"
    if flag.short:
        spelling = f"`-{flag.short}`, {spelling}"
    default = ", else ".join(
        [f"`${one}`" for one in flag.variables] + [f"`{flag.shown_default}`"] * bool(flag.shown_default)
    )
    cells = [spelling, default, flag.help, f"`{flag.env_name}`", f"`{flag.owner.__name__}.{flag.field}`"]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(options_reference(), end="")
