"""Out-of-band work of one process: order it, and wait for its end. ``core.oob_work`` decides when.

The order is a frame on a stream to the process, which has no session then. Idle streams are closed first: a
worker may have a thread waiting on each, and none left for the order.
"""

from __future__ import annotations

import trio

from passenger_trio.codecs.session_protocol import OOB_WORK_FRAME, is_end_of_oob_work
from passenger_trio.errors import MalformedResponse
from passenger_trio.pool.session import Process
from passenger_trio.spawning.spawner import LiveProcess

__all__ = ["run_oob_work"]


async def run_oob_work(process: Process[LiveProcess], seconds: float) -> str:
    """Return when the process has done its work.

    :return: what went wrong, for the log; ``""``: nothing.
    """
    process.close_idle_streams()
    try:
        stream = process.live.connect_nowait()
    except OSError as error:
        return f"it does not accept a connection: {error.strerror}"
    process.streams += 1
    try:
        with trio.move_on_after(seconds):
            answer = b""
            await stream.send_all(OOB_WORK_FRAME)
            while not is_end_of_oob_work(answer):
                data = await stream.recv()
                if not data:
                    return "it closed the connection"
                answer += data
            return ""
        return f"it took longer than {seconds:g} s"
    except trio.BrokenResourceError:
        return "its connection broke"
    except MalformedResponse as error:
        return str(error)
    finally:
        stream.close()
        process.streams -= 1
