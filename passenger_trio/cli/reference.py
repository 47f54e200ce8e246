"""The schema of ``options`` -> ``docs/options.md``. A test checks that the file is what this makes of the schema::

python -m passenger_trio.cli.reference > docs/options.md
"""

from __future__ import annotations

from passenger_trio.cli.flags import SECTIONS, Flag, flags

__all__ = ["options_reference"]

_HEAD = """# Options of `passenger-trio start`

<!-- Made from passenger_trio/options.py by: python -m passenger_trio.cli.reference > docs/options.md -->

`passenger-trio start [DIR] [TARGET]` serves the application in DIR (the current directory, if it is left out). TARGET names the
application where it cannot be found by reading DIR's files: `module:object`, `module:factory()` or `file.py:object`.
`--app WHERE=DIR` (or `WHERE=TARGET`) serves one more application at a path, a host name, or a path of a host: `--app /blog=../blog`,
`--app wiki.example.com=wiki`, `--app example.com/shop=shop:app`. Options of applications hold for all of them.

Each option can be given on the command line, or by an environment variable, or in a configuration file, or as a member of `AppOptions`,
`PoolOptions` or `ServerOptions` in Python. The command line wins over the environment, and that over the file.

Some defaults come from variables that other programs know, too: `PORT`, `WEB_CONCURRENCY`, and `RAILS_ENV`, `RACK_ENV`, `NODE_ENV` or
`PASSENGER_APP_ENV`, whichever is set first in this order. Where `PORT` says the port and nobody says the address, the server listens on `0.0.0.0`.

* **Times** are written `30`, `30s`, `5m`, `2h`, `1d`, `250ms`. In Python they are seconds.
* **Sizes** are written `65536`, `64K`, `512M`, `1GiB`; every unit is a power of 1024. In Python they are bytes.
* **Flags** are switched on by `--name` and off by `--no-name`; in the environment by `1` and `0`.
* **Options that can be repeated** are separated by white space in the environment. So what has white space in it (a `--hook` with arguments) is
  said elsewhere.

## The configuration file

`passenger-trio.toml` in DIR, or the file that `--config` or `PASSENGER_TRIO_CONFIG` names. It can have several applications: one is chosen by
host name and path, the most specific first.

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

* The last column below says the table and the key: `ServerOptions.port` is `port` in `[server]`, `PoolOptions` is `[pool]`, `AppOptions` is `[[app]]`. `[[app]]`
  also has `root` (relative to the file; DIR, if it is left out) and `target`.
* An option of an application that is given on the command line or in the environment holds for every application of the file.
* A name that there is not is an error. `passenger-trio config check` finds it without starting anything; `passenger-trio config show --origin` shows where each value comes from.
* `Passengerfile.json` is read where there is no `passenger-trio.toml`. Its keys that mean nothing here are named in the log.

## Hooks

`--hook EVENT=COMMAND` runs a program, without a shell, at an event of the pool: `process_attached`, `process_detached`, `process_exited`, `spawn_failed`,
`queue_full`, `request_time_exceeded`, `memory_limit_exceeded`, `drain_time_exceeded`, `restart_ended`, `restart_rejected`. `PASSENGER_TRIO_HOOK` in its environment is the event, and
its members are variables, empty where there is nothing to say. Hooks run one after another; one that takes longer than 30 s is killed.

| variable | of | says |
|---|---|---|
| `PASSENGER_TRIO_HOOK_GROUP` | all but `queue_full` | the application and its environment: `shop (production)` |
| `PASSENGER_TRIO_HOOK_PID` | what happens to a process | its pid |
| `PASSENGER_TRIO_HOOK_REASON` | `process_detached`, `process_exited` | why it was to go, for people; empty: nobody had asked it to |
| `PASSENGER_TRIO_HOOK_EXIT_STATUS` | `process_exited` | its exit status; empty: a signal has ended it, or nobody can tell |
| `PASSENGER_TRIO_HOOK_SIGNAL` | `process_exited` | the signal that has ended it: `SIGSEGV` |
| `PASSENGER_TRIO_HOOK_SUMMARY`, `PASSENGER_TRIO_HOOK_ID` | `spawn_failed` | what went wrong, and how the log calls it |
| `PASSENGER_TRIO_HOOK_GENERATION` | `restart_ended`, `restart_rejected` | which restart of the application it is; 2 is the first |
| `PASSENGER_TRIO_HOOK_TIME` | all | seconds since the epoch |
"""

_TAIL = """
## Exit codes

| code | meaning |
|---|---|
| 0 | ended as it was told to |
| 1 | a command that asks an instance: none answers, none can be chosen, or it did not do what was asked |
| 2 | an option, or the way the command was called, cannot be used |
| 3 | the application failed to start, and `--abort-on-startup-error` was given |
| 4 | nothing to serve was found |
| 5 | the address cannot be listened on |
| 70 | an internal error, or a machine that lacks something |
| 130 | interrupted before anything was served |
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
