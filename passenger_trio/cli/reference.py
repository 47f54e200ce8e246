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

Each option can be given on the command line, or by an environment variable, or as a member of `AppOptions`, `PoolOptions` or
`ServerOptions` in Python. The command line wins over the environment.

* **Times** are written `30`, `30s`, `5m`, `2h`, `1d`, `250ms`. In Python they are seconds.
* **Sizes** are written `65536`, `64K`, `512M`, `1GiB`; every unit is a power of 1024. In Python they are bytes.
* **Flags** are switched on by `--name` and off by `--no-name`; in the environment by `1` and `0`.
* **Options that can be repeated** are separated by white space in the environment.
"""

_TAIL = """
## Exit codes

| code | meaning |
|---|---|
| 0 | ended as it was told to |
| 1 | `status`: no instance answers, or none can be chosen |
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
    default = f"`{flag.shown_default}`" if flag.shown_default else ""
    cells = [spelling, default, flag.help, f"`{flag.env_name}`", f"`{flag.owner.__name__}.{flag.field}`"]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    print(options_reference(), end="")
