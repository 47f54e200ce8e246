"""``python -m passenger_trio`` is the command ``passenger-trio``."""

from __future__ import annotations

from passenger_trio.cli.main import entry

if __name__ == "__main__":
    entry()
