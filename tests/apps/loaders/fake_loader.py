"""A loader that breaks its contract, or keeps it in an odd way: ``python fake_loader.py BEHAVIOUR [--preload]``.

It keeps as much of spawn_servers/CONTRACT.md as the behaviour leaves it. Its workers answer no session.
"""

import json
import os
import select
import socket
import struct
import sys
import time


def connect(role):
    """Say hello and take the options: the connection, the options."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["PASSENGER_TRIO_SPAWN_SOCKET"])
    say(control, hello(os.environ["PASSENGER_TRIO_SPAWN_TOKEN"], role))
    return control, read_line(control)


def hello(token, role, **changes):
    message = {"type": "hello", "token": token, "contract": 1, "role": role, "language": "fake", "version": "1"}
    return dict(message, pid=os.getpid(), **changes)


def say(control, *messages):
    control.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


def read_line(control):
    line = b""
    while not line.endswith(b"\n"):
        data = control.recv(1)
        if not data:
            sys.exit(0)
        line += data
    return json.loads(line)


def wait_for_the_end(control):
    while control.recv(4096):
        pass
    sys.exit(0)


def listen(options):
    path = os.path.join(options["socket_dir"], options["socket_name"])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener, {"address": "unix:" + path, "protocol": "session", "concurrency": 1}


def error(summary, category="application"):
    return {"type": "error", "category": category, "summary": summary, "problem": "p", "solution": "s"}


# --- before it is ready -----------------------------------------------------------------------------------------------


def never_connects():
    print("nothing to say")
    sys.exit(4)


def is_killed():
    os.kill(os.getpid(), 9)


def never_does_anything():
    time.sleep(600)


def says_garbage():
    control, _ = connect("worker")
    control.sendall(b"garbage\n")
    time.sleep(600)


def is_of_another_contract():
    control = socket.socket(socket.AF_UNIX)
    control.connect(os.environ["PASSENGER_TRIO_SPAWN_SOCKET"])
    say(control, hello(os.environ["PASSENGER_TRIO_SPAWN_TOKEN"], "worker", contract=2))
    wait_for_the_end(control)


def hangs_up_and_lives():
    control, _ = connect("worker")
    control.close()
    time.sleep(600)


def hangs_up_and_exits():
    control, _ = connect("worker")
    control.close()
    sys.exit(5)


def floods():
    control, _ = connect("worker")
    while True:
        say(control, *[{"type": "step", "name": "step %d" % number, "state": "in_progress"} for number in range(500)])


def reports_and_exits():
    control, _ = connect("worker")
    say(control, {"type": "step", "name": "load_application", "state": "in_progress"}, error("it is broken"))
    os._exit(1)


def reports_and_stays():
    control, _ = connect("worker")
    say(control, error("it is broken", "configuration"))
    time.sleep(600)


def says_much_and_exits():
    """Its end may be seen before its words are read."""
    control, _ = connect("worker")
    say(control, *[{"type": "event", "name": str(number)} for number in range(100)])
    say(control, error("the last word"))
    os._exit(1)


def sends_a_grandchild():
    """The token comes from a process that was not started by the supervisor."""
    if os.fork() == 0:
        control, _ = connect("worker")
        wait_for_the_end(control)
    os.wait()
    sys.exit(6)


# --- ready, but how ---------------------------------------------------------------------------------------------------


def is_ready_without_a_socket():
    control, _ = connect("worker")
    say(control, {"type": "ready"})
    wait_for_the_end(control)


def is_ready_with_two_sockets():
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [spec, spec]})
    wait_for_the_end(control)


def speaks_gopher():
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [dict(spec, protocol="gopher")]})
    wait_for_the_end(control)


def listens_elsewhere():
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [dict(spec, address="unix:/tmp/elsewhere")]})
    wait_for_the_end(control)


def lies_about_its_socket():
    control, options = connect("worker")
    path = os.path.join(options["socket_dir"], options["socket_name"])
    say(control, {"type": "ready", "sockets": [{"address": "unix:" + path, "protocol": "session", "concurrency": 1}]})
    wait_for_the_end(control)


def puts_a_link_there():
    control, options = connect("worker")
    path = os.path.join(options["socket_dir"], options["socket_name"])
    os.symlink("/dev/log", path)
    say(control, {"type": "ready", "sockets": [{"address": "unix:" + path, "protocol": "session", "concurrency": 1}]})
    wait_for_the_end(control)


def is_ready_and_dies():
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [spec]})
    os._exit(8)


def is_a_worker():
    """Well, until it is told to stop; at SIGTERM it ends."""
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [spec]})
    wait_for_the_end(control)


def breaks_the_contract_later():
    control, options = connect("worker")
    _, spec = listen(options)
    say(control, {"type": "ready", "sockets": [spec]}, {"type": "moon"})
    while control.recv(4096):
        pass
    # More than a pipe holds: whoever ends us reads it, or we would not end.
    sys.stdout.write("last line %s\n" % ("x" * 200000))
    sys.stdout.flush()
    sys.exit(0)


def replaces_its_socket_by_a_directory():
    control, options = connect("worker")
    listener, spec = listen(options)
    say(control, {"type": "ready", "sockets": [spec]})
    stream, _ = listener.accept()
    os.unlink(listener.getsockname())
    os.mkdir(listener.getsockname())
    stream.close()
    wait_for_the_end(control)


# --- preloaders -------------------------------------------------------------------------------------------------------


def as_preloader(answer):
    """A preloader that answers each order to fork with ``answer``."""
    control, _ = connect("preloader")
    say(control, {"type": "ready"})
    while True:
        data, ancillary, _, _ = control.recvmsg(65536, 1024)
        if not data:
            sys.exit(0)
        for _, _, payload in ancillary:
            for fd in struct.unpack("%di" % (len(payload) // 4), payload):
                os.close(fd)
        for line in data.splitlines():
            message = json.loads(line)
            if message["type"] == "shutdown":
                sys.exit(0)
            answer(control, message["token"])


def refuses_to_fork():
    as_preloader(lambda control, token: say(control, {"type": "fork_failed", "token": token, "problem": "no, thanks"}))


def forks_strangers():
    """It says that it has forked whoever the environment names: the supervisor itself, or init."""
    pid = int(os.environ["STRANGER"])
    as_preloader(lambda control, token: say(control, {"type": "forked", "token": token, "pid": pid}))


def dies_of_a_fork():
    as_preloader(lambda control, token: os._exit(9))


def says_garbage_when_asked():
    as_preloader(lambda control, token: control.sendall(b"garbage\n"))


def fork(control):
    """0 in the child, which leads a group of its own and has left the preloader's connection."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        control.close()
    return pid


def forks_a_sleeper_late():
    """The process comes when nobody waits for it any more, leads a group of its own, and does not connect."""

    def answer(control, token):
        time.sleep(float(os.environ["DELAY"]))
        pid = fork(control)
        if pid == 0:
            time.sleep(600)
        os.setpgid(pid, pid)
        say(control, {"type": "forked", "token": token, "pid": pid})

    as_preloader(answer)


def forks_a_worker_that_is_slow():
    """Its worker connects at once, and has a start-up of its own."""

    def answer(control, token):
        pid = fork(control)
        if pid == 0:
            os.environ["PASSENGER_TRIO_SPAWN_TOKEN"] = token
            lifeline, options = connect("worker")
            say(lifeline, {"type": "step", "name": "start_up", "state": "in_progress"})
            time.sleep(float(os.environ["DELAY"]))
            _, spec = listen(options)
            say(lifeline, {"type": "ready", "sockets": [spec]})
            wait_for_the_end(lifeline)
        say(control, {"type": "forked", "token": token, "pid": pid})

    as_preloader(answer)


def forks_a_worker_and_tells_late():
    """Its worker is ready before it says that it has forked: it says so when it is asked for the next."""
    untold = []

    def answer(control, token):
        say(control, *untold)
        pid = fork(control)
        if pid == 0:
            os.environ["PASSENGER_TRIO_SPAWN_TOKEN"] = token
            lifeline, options = connect("worker")
            listener, spec = listen(options)
            say(lifeline, {"type": "ready", "sockets": [spec]})
            while lifeline not in select.select([listener, lifeline], [], [])[0]:
                conn, _ = listener.accept()
                conn.recv(65536)
                response = [(b"R", b"200\0OK\0content-length\0005\0"), (b"D", b"hello"), (b"E", b"")]
                conn.sendall(b"".join(struct.pack(">cI", kind, len(payload)) + payload for kind, payload in response))
                conn.close()
            os._exit(0)
        untold[:] = [{"type": "forked", "token": token, "pid": pid}]

    as_preloader(answer)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
