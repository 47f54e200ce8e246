"""Imports its neighbours, pickles what it defines, starts a process that imports it again."""

import multiprocessing
import pickle

from neighbour import WORD
from package.inner import DEEP


class Parcel:
    def __init__(self, content):
        self.content = content


def double(number):
    return 2 * number


def application(environ, start_response):
    parcel = pickle.loads(pickle.dumps(Parcel("pickled")))
    lines = [WORD, DEEP, parcel.content, __name__, __file__, str(__spec__.name)]
    if environ["PATH_INFO"] == "/spawn":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            lines.append(str(pool.map(double, [21])))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(lines).encode()]
