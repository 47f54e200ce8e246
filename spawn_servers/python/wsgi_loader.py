"""Runs a WSGI application for passenger_trio, in the application's own interpreter.

    python wsgi_loader.py              a worker: loads the application and serves it
    python wsgi_loader.py --preload    a preloader: loads it once, and forks workers when it is asked to

This program only starts the package beside it. Read in this order:

    ../CONTRACT.md, ../IMPLEMENTATION.md         what any loader must do, and what ours do beyond that
    passenger_trio_loader/__init__.py            the laws of the Python loader, and the order of its files
    passenger_trio_loader/wsgi/__init__.py       the same for PEP 3333
    passenger_trio_loader/preloading/__init__.py the same for a preloader
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from passenger_trio_loader.process import run
from passenger_trio_loader.wsgi.interface import Wsgi

del sys.path[0]

if __name__ == "__main__":
    run(Wsgi())
