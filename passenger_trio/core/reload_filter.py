"""Which changed files are a reason to restart an application in development (``--reload``).

Pure: this module sees paths, never files. A path is relative to the directory that is watched.

Laws:

* Files that an application may write while it runs are ignored: data, logs, uploads, compiled files. Otherwise its own
  start would restart it, for ever.
* Installed packages, hidden directories and caches are always ignored, even if an inclusion matches.
* An exclusion wins over an inclusion.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from passenger_trio.late_classes import frozen

__all__ = ["DEFAULT_INCLUDES", "ReloadFilter"]

_CODE = ("*.py", "*.rb", "*.ru", "*.js", "*.mjs", "*.cjs", "*.ts", "*.php", "*.pl")
_TEMPLATES = ("*.html", "*.htm", "*.jinja", "*.jinja2", "*.j2", "*.mako", "*.erb", "*.haml", "*.slim", "*.ejs", "*.hbs")
_CONFIGURATION = ("*.toml", "*.yaml", "*.yml", "*.ini", "*.cfg", "*.env", ".env", ".env.*", "Gemfile", "package.json")
DEFAULT_INCLUDES = _CODE + _TEMPLATES + _CONFIGURATION
_NEVER = frozenset(
    {"node_modules", "__pycache__", "site-packages", "bundle", "venv", "tmp", "log", "logs", "htmlcov", "coverage"}
)
"""Names of directories."""


@frozen
class ReloadFilter:
    """:ivar include: additional patterns of names or paths, in the syntax of a shell: ``*.sql``, ``locale/*``.
    :ivar exclude: patterns of names, paths or directories to ignore.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def concerns(self, path: str) -> bool:
        """Whether a change of the file is a reason to restart."""
        *directories, name = path.split("/")
        if any(directory in _NEVER or directory.startswith(".") for directory in directories):
            return False
        prefixes = ["/".join(directories[:depth]) for depth in range(1, len(directories) + 1)]
        candidates = [path, *prefixes, name, *directories]
        if any(_matches(candidate, self.exclude) for candidate in candidates):
            return False
        return _matches(name, DEFAULT_INCLUDES + self.include) or _matches(path, self.include)


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern.rstrip("/")) for pattern in patterns)
