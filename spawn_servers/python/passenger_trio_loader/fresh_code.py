"""Code that was saved a moment ago is compiled: the cache of bytecode cannot know that it has the last version.

The cache tells the versions of a file apart by its size and by the second in which it was saved. Of two versions with the same size, saved within one second,
each process that starts later would run the first one if that was imported in between: after a deployment, or while somebody edits.

Law: a file is neither read from the cache nor put into it until it is older than ``MOMENT``. Once it is, no other version can have its second.
"""

from importlib.machinery import SourceFileLoader
from time import time

MOMENT = 2.0
"""Seconds: more than the one that the cache has, because a file's time may be a little older than the save."""


def trust_no_new_bytecode():
    """Change the import system of this process. Call it once."""
    stats_of = SourceFileLoader.path_stats

    def path_stats(self, path):
        stats = stats_of(self, path)
        if abs(time() - stats["mtime"]) < MOMENT:
            # The import system takes this as: there is no cache (importlib.abc.SourceLoader.path_stats).
            raise OSError("saved a moment ago")
        return stats

    SourceFileLoader.path_stats = path_stats
