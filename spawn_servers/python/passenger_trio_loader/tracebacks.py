"""Exceptions as text: class, message, and a traceback that begins in the application.

None of these functions raises, whatever the exception's own methods do.
"""

import os

OWN_DIRECTORY = os.path.join(os.path.dirname(__file__), "")
"""Frames of files in this directory are ours, not the application's."""


def class_name(error):
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def message_of(error):
    try:
        # A lone surrogate (from a file name in another encoding) fits in JSON, but not in UTF-8.
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "(its text cannot be shown: __str__ failed)"


def frames_of_application(error):
    """The traceback without the frames of the loader and of the import system in front."""
    frames = error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((OWN_DIRECTORY, "<frozen importlib")):
            break
        frames = frames.tb_next
    return frames


def preload_traceback():
    """Load ``traceback`` before the worker serves: later there may be no descriptor left to read its file (fault 34).

    Nearly every application has loaded it already, with ``logging``.
    """
    import traceback  # noqa: F401


def traceback_of(error):
    import traceback  # Loaded before, unless the start itself has failed.

    try:
        lines = traceback.format_exception(type(error), error, frames_of_application(error))
    except Exception:  # an exception whose __str__ or __cause__ raises
        lines = traceback.format_tb(frames_of_application(error)) + [class_name(error), "\n"]
    return "".join(lines).encode("utf-8", "backslashreplace").decode()


def error_payload(error, report):
    """The payload of an ``X`` frame. A traceback is cut at its front, a message at its end."""
    # A character takes at most 4 bytes.
    texts = (class_name(error)[:200], message_of(error)[:2000], report[-30000:])
    return "".join(text.replace("\0", "\ufffd") + "\0" for text in texts).encode("utf-8", "replace")
