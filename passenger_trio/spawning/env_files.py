"""Files of environment variables (``--env-file``), in python-dotenv's format.

The files are read when a program is started, so a restart finds what has changed.

Laws: a variable of the server's own environment, or of ``--env``, wins over a file (as in python-dotenv). A later
file wins over an earlier one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from passenger_trio.errors import OptionError
from passenger_trio.system.extras import import_extra
from passenger_trio.system.regular_files import read_regular

__all__ = ["read_env_files"]

_MOST = 1_000_000


def read_env_files(root: str, files: Sequence[str]) -> dict[str, str]:
    """The variables of all files.

    :param root: the application's directory, to which the names of files are relative.
    :raises OptionError: a file cannot be read.
    :raises MissingExtra: python-dotenv is not installed.
    """
    if not files:
        return {}
    dotenv = import_extra("dotenv", "env-file", "--env-file")
    found: dict[str, str] = {}
    for file in files:
        path = os.path.join(root, file)
        try:
            content = read_regular(path, _MOST)
            if content is None:
                raise OptionError("--env-file", file, f"there is no file {path}")
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise OptionError("--env-file", file, f"it cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise OptionError("--env-file", file, "it is not UTF-8") from None
        values = dotenv.dotenv_values(stream=io.StringIO(text))
        found |= {name: value for name, value in values.items() if value is not None and "\0" not in name + value}
    return found
