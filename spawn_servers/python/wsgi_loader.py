"""Runs a WSGI application for passenger_trio, in the application's own interpreter.

    python wsgi_loader.py              a worker: loads the application and serves it
    python wsgi_loader.py --preload    a preloader: loads it once, and forks workers when it is asked to

This program is only the way in. Read ../CONTRACT.md first, then passenger_trio_loader/__init__.py, which states the
reading order of the package, then passenger_trio_loader/wsgi/__init__.py for PEP 3333.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from passenger_trio_loader.process import run
from passenger_trio_loader.wsgi.interface import Wsgi

del sys.path[0]

if __name__ == "__main__":
    run(Wsgi())
