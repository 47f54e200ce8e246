"""When the application began and ended with a request: the application's row of a timeline.

One JSON object a line, appended to the file in ``HARNESS_TIMES``.
"""

from __future__ import annotations

import json
import os
import time

__all__ = ["note"]


def note(request_id: str, begun: float, raised: BaseException | None) -> None:
    """The application has ended with a request. :param begun: seconds since the epoch."""
    path = os.environ.get("HARNESS_TIMES")
    if not path:
        return
    line = {
        "request_id": request_id,
        "begun": begun,
        "ended": time.time(),
        "pid": os.getpid(),
        "raised": "" if raised is None else f"{type(raised).__name__}: {raised}"[:500],
    }
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError:
        return  # the harness has ended, and removed the file
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)
