"""Does not want to end; the path says how. At exit it writes to the file in the environment variable HOOK_FILE."""

import atexit
import os
import re
import signal
import sys
import threading
import time


@atexit.register
def note_the_end():
    with open(os.environ["HOOK_FILE"], "a") as file:
        file.write("hook in %s\n" % threading.current_thread().name)


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(60)
    elif path == "/spin":
        while True:
            pass
    elif path == "/swallow":
        begun = False
        while True:
            try:
                if not begun:
                    begun = True
                    start_response("200 OK", [])(b"begun\n")
                time.sleep(60)
            except BaseException:
                pass
    elif path == "/lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif path == "/keep-the-lock":
        # One call into C that does not give the interpreter lock back: it backtracks for years.
        start_response("200 OK", [])(b"begun\n")
        re.match("(a*)*b", "a" * 40)
    elif path == "/thread":
        threading.Thread(target=time.sleep, args=(60,)).start()
    elif path == "/slow-hook":
        atexit.register(time.sleep, 60)
    elif path == "/take-sigterm":
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        time.sleep(60)
    elif path == "/take-wakeup":
        signal.set_wakeup_fd(-1)
    elif path == "/default-sigterm":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    elif path == "/fill-output":
        print("x" * 1000000)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
