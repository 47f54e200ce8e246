"""The application's own files as text: which exist, and which names their syntax trees bind.

It only reads, at most 1 MiB of a file, and only regular files (a FIFO named ``app.py`` must not
stop the supervisor). Symbolic links are followed, because users develop and deploy with them. An
unreadable file counts like one with a syntax error: it is the file that the user meant, and the
loader will show the error. An ``AppFiles`` lives for one detection and reads each file once. It lists the
root's directory once, so that a name that does not exist costs nothing: there may be thousands of
applications, and most of the names that detection looks for exist in none of them (OP5).
"""

from __future__ import annotations

import os

from passenger_trio.core.python_names import Module, read_module
from passenger_trio.system.regular_files import read_regular

__all__ = ["AppFiles"]

_LONGEST = 1024 * 1024


class AppFiles:
    """The modules under one or more directories, in the order of Python's search path."""

    def __init__(self, root: str, *more: str) -> None:
        """:param root: absolute path.
        :param more: further directories in which to find modules.
        """
        self.root = root
        self._path = (root, *more)
        self._read: dict[str, Module | None] = {}
        self._sources: dict[str, bytes | None] = {}
        self._names: frozenset[str] | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names in the root's directory."""
        if self._names is None:
            try:
                self._names = frozenset(os.listdir(self.root))
            except (OSError, ValueError):  # ValueError: a NUL in the path
                self._names = frozenset()
        return self._names

    def source(self, path: str) -> bytes | None:
        """The text of a file (as for ``file``); None if there is no such regular file.

        :raises OSError: it cannot be read.
        """
        if "/" not in path and path not in self.names:
            return None
        path = os.path.join(self.root, path)
        if path not in self._sources:
            self._sources[path] = read_regular(path, _LONGEST + 1)
        return self._sources[path]

    def file(self, path: str, package: str = "") -> Module | None:
        """The module in a file (absolute, or relative to the root); None if there is no such
        regular file.
        """
        if path not in self._read:
            self._read[path] = self._module(path, package)
        return self._read[path]

    def _module(self, path: str, package: str) -> Module | None:
        try:
            source = self.source(path)
        except OSError as exc:
            return Module(syntax_error=f"it cannot be read: {exc.strerror}")
        if source is None:
            return None
        if len(source) > _LONGEST:
            return Module(syntax_error="it is longer than 1 MiB and was not read")
        return read_module(source, package=package)

    def load(self, module: str) -> Module | None:
        """The text of a module by its dotted name, or None if it is not among these files."""
        where = self.path_of(module)
        if not where:
            return None
        is_package = os.path.basename(where) == "__init__.py"
        return self.file(where, module if is_package else module.rpartition(".")[0])

    def path_of(self, module: str) -> str:
        """The file of a module by its dotted name, or ``""``."""
        if module and all(part.isidentifier() for part in module.split(".")):
            first = module.partition(".")[0]
            for directory in self._path:
                if directory == self.root and first not in self.names and f"{first}.py" not in self.names:
                    continue
                if directory != self.root and not self._may_be_there(directory):
                    continue
                base = os.path.join(directory, *module.split("."))
                for candidate in (os.path.join(base, "__init__.py"), base + ".py"):
                    if os.path.isfile(candidate):
                        return candidate
        return ""

    def _may_be_there(self, directory: str) -> bool:
        """Whether a further directory may exist. If it is in the root, the listing shows that."""
        above, _, name = directory.rpartition("/")
        return above != self.root.rstrip("/") or name in self.names

    def relative(self, path: str) -> str:
        """A path for people: relative to the root if it is below the root."""
        return os.path.relpath(path, self.root) if path.startswith(self.root.rstrip("/") + "/") else path
