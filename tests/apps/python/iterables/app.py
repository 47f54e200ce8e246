"""Every kind of iterable that an application may return, and some that it may not; the path says which."""

import array

PLAIN = [("Content-Type", "text/plain")]


class Sized:
    """Has a length, and is no list."""

    def __init__(self, *chunks):
        self.chunks = chunks

    def __len__(self):
        return len(self.chunks)

    def __iter__(self):
        return iter(self.chunks)


class Indexed:
    """Is iterated by the old protocol."""

    def __getitem__(self, index):
        return (b"old", b"protocol")[index]


class ClassAsApplication:
    """The response is the instance: a class is called like a function."""

    def __init__(self, environ, start_response):
        start_response("200 OK", PLAIN)

    def __iter__(self):
        yield b"an instance"


def generator(*chunks):
    yield from chunks


class Bytes(bytes):
    pass


def application(environ, start_response):
    way = WAYS[environ["PATH_INFO"]]
    if way is ClassAsApplication:
        return way(environ, start_response)
    headers = list(PLAIN)
    if environ["QUERY_STRING"]:
        headers.append(("Content-Length", environ["QUERY_STRING"]))
    start_response("200 OK", headers)
    return way()


WAYS = {
    "/list": lambda: [b"one"],
    "/tuple": lambda: (b"one",),
    "/list-of-three": lambda: [b"one", b"", b"three"],
    "/empty-list": lambda: [],
    "/list-of-empty": lambda: [b"", b""],
    "/list-of-nothing": lambda: [b""],
    "/generator": lambda: generator(b"one", b"", b"three"),
    "/empty-generator": lambda: generator(),
    "/generator-of-empty": lambda: generator(b"", b""),
    "/generator-of-one": lambda: generator(b"one"),
    "/iterator": lambda: iter([b"one", b"two"]),
    "/map": lambda: map(bytes, [b"one", b"two"]),
    "/sized-one": lambda: Sized(b"one"),
    "/sized-two": lambda: Sized(b"one", b"two"),
    "/sized-none": lambda: Sized(),
    "/indexed": Indexed,
    "/class": ClassAsApplication,
    "/subclass": lambda: [Bytes(b"one")],
    "/large-list": lambda: [b"x" * 1000] * 1000,
    "/large-chunk": lambda: [b"x" * 20000000],
    "/large-generator": lambda: generator(b"x" * 17000000, b"y" * 100000, b"z"),
    "/none": lambda: None,
    "/str": lambda: "text",
    "/bytes": lambda: b"bytes",
    "/number": lambda: 42,
    "/list-of-str": lambda: ["text"],
    "/list-of-both": lambda: [b"bytes", "text"],
    "/list-of-bytearray": lambda: [bytearray(b"bytes")],
    "/list-of-memoryview": lambda: [memoryview(b"bytes")],
    "/list-of-none": lambda: [None],
    "/generator-of-str": lambda: generator("text"),
    "/generator-of-both": lambda: generator(b"bytes", "text"),
    "/generator-of-arrays": lambda: generator(array.array("b", [1])),
}
