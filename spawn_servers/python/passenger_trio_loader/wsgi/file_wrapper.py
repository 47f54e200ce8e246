"""``wsgi.file_wrapper``: a file that the application returns as its response (PEP 3333, "Optional Platform-Specific File Handling").

The kernel sends a plain file, so its bytes never enter Python. Any other file is read block by block.
"""

import io
import stat
from os import fstat, pread

from passenger_trio_loader.session_frames import BLOCK


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable of blocks. ``Session._send_file`` sends plain files without it."""

    def __init__(self, file, block_size=8192):
        self.file = file
        self.block_size = max(block_size, BLOCK)
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.file.read(self.block_size)
        if data:
            return data
        raise StopIteration

    def plain_file(self):
        """(descriptor, position, bytes from there to the end) if the kernel can send it; else None.

        Only of objects that are known to show the bytes of their descriptor: a ``GzipFile`` has one, too.
        """
        file = self.file
        if type(file) is io.BufferedReader:
            file = file.raw
        if type(file) is not io.FileIO:
            return None
        try:
            descriptor = file.fileno()
            status = fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            at = self.file.tell()
            size = max(0, status.st_size - at)
            # Files that the kernel generates (/proc, /sys) have no blocks, and their size is not the number of their bytes.
            if not status.st_blocks and size <= BLOCK and len(pread(descriptor, size + 1, at)) != size:
                return None
        except (OSError, ValueError):
            return None
        return descriptor, at, size
