"""Exceptions as text: their class, their message, and a traceback that begins in the application."""

import os

OWN_DIRECTORY = os.path.join(os.path.dirname(__file__), "")
"""What is in it is not the application's."""


def class_name(error):
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)


def text_of(error):
    try:
        # Half a surrogate pair (a file name in another encoding) can be said in JSON, but nobody can write it.
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:
        return "(its text cannot be shown: __str__ failed)"


def frames_of_application(error):
    """Its traceback without the frames of the loader and of the import system in front."""
    frames = error.__traceback__
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if not file.startswith((OWN_DIRECTORY, "<frozen importlib")):
            break
        frames = frames.tb_next
    return frames


def load_what_errors_need():
    """Before it serves: when an error is to be told of, there may be no descriptor left to read a module with.

    Nearly every application has loaded it already, with ``logging``.
    """
    import traceback  # noqa: F401


def traceback_of(error):
    import traceback  # It is loaded already, unless the application has not come so far.

    try:
        lines = traceback.format_exception(type(error), error, frames_of_application(error))
    except Exception:  # an exception whose __str__ or __cause__ raises
        lines = traceback.format_tb(frames_of_application(error)) + [class_name(error), "\n"]
    return "".join(lines).encode("utf-8", "backslashreplace").decode()


def error_payload(error, report):
    """The payload of ``X``. The end of a traceback says what happened; so does the front of a message."""
    # 4 bytes a character at the most.
    texts = (class_name(error)[:200], text_of(error)[:2000], report[-30000:])
    return "".join(text.replace("\0", "\ufffd") + "\0" for text in texts).encode("utf-8", "replace")
