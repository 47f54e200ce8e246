"""RawStream keeps its contract on every path, and what we listen on is ours, free, or left alone."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
from needs import needs
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from passenger_trio.system.listen import MAX_UNIX_PATH, holder_of_port, listen_tcp, listen_unix
from passenger_trio.system.raw_stream import RawStream
from passenger_trio.system.unix_peers import PeerCredentials, connect_unix_nowait, peer_credentials

pytestmark = pytest.mark.usefixtures("nothing_left")

Pair = tuple[RawStream, RawStream]
BIG = bytes(range(256)) * 16384


@pytest.fixture
async def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    streams = RawStream(one), RawStream(other)
    yield streams
    for stream in streams:
        stream.close()


@pytest.fixture
async def tcp_pair() -> Iterator[Pair]:
    (listener,) = listen_tcp("127.0.0.1", 0, 5)
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    listener.close()
    client.setblocking(False)
    server.setblocking(False)
    streams = RawStream(client), RawStream(server)
    yield streams
    for stream in streams:
        stream.close()


def broken(stream: RawStream, other: RawStream) -> None:
    """Make the connection break: the peer closes with bytes unread."""
    stream.send_nowait(b"never read")
    other.close()


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_recv_waits_and_then_reads_what_is_there(pair: Pair) -> None:
    ours, theirs = pair
    got: list[bytes] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def reader() -> None:
            got.append(await ours.recv())

        await wait_all_tasks_blocked()
        assert not got
        theirs.send_nowait(b"hello")
    assert got == [b"hello"]


async def test_recv_is_a_checkpoint_also_when_bytes_are_there(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send_nowait(b"abc")
    with assert_checkpoints():
        assert await ours.recv(2) == b"ab"
    buffer = bytearray(10)
    with assert_checkpoints():
        assert await ours.recv_into(buffer) == 1
    assert buffer[:1] == b"c"


async def test_the_end_is_empty_and_stays_empty(pair: Pair) -> None:
    ours, theirs = pair
    theirs.send_nowait(b"x")
    theirs.send_eof()
    assert await ours.recv() == b"x"
    for _ in range(2):
        assert await ours.recv() == b""
        assert await ours.recv_into(bytearray(1)) == 0
        assert ours.recv_nowait() == b""
    ours.send_nowait(b"the other way is open")
    assert await theirs.recv() == b"the other way is open"


async def test_recv_nowait_says_that_nothing_is_there(pair: Pair) -> None:
    ours, theirs = pair
    with pytest.raises(trio.WouldBlock):
        ours.recv_nowait()
    theirs.send_nowait(b"x")
    assert ours.recv_nowait() == b"x"


async def test_a_broken_connection_is_a_broken_resource_everywhere(pair: Pair) -> None:
    ours, theirs = pair
    broken(ours, theirs)
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await ours.recv()
    with pytest.raises(trio.BrokenResourceError, match="pipe"):
        ours.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError, match="pipe"):
        ours.sendmsg_nowait([b"x"])
    with pytest.raises(trio.BrokenResourceError, match="pipe"):
        await ours.send_all(b"x")


@pytest.mark.parametrize("read", [lambda s: s.recv_into(bytearray(1)), lambda s: s.recv()], ids=["recv_into", "recv"])
async def test_a_reset_is_told_by_each_way_to_read(pair: Pair, read: Callable[[RawStream], Awaitable[object]]) -> None:
    broken(*pair)
    with pytest.raises(trio.BrokenResourceError):
        await read(pair[0])


async def test_a_reset_is_told_by_recv_nowait(pair: Pair) -> None:
    broken(*pair)
    with pytest.raises(trio.BrokenResourceError):
        pair[0].recv_nowait()


async def test_a_read_that_is_cancelled_loses_no_byte(pair: Pair) -> None:
    ours, theirs = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.recv()
    theirs.send_nowait(b"x")
    with trio.CancelScope() as scope:
        scope.cancel()
        await ours.recv()
    assert scope.cancelled_caught
    assert await ours.recv() == b"x"


async def test_a_scope_that_is_cancelled_as_the_bytes_come_is_heard_before_they_are_read(pair: Pair) -> None:
    ours, theirs = pair

    class Owner:
        cut = False

    owner = Owner()

    def cut_off() -> None:
        owner.cut = True
        scope.cancel()

    with trio.CancelScope() as scope:
        before_step(cut_off)
        theirs.send_nowait(b"x")
        await ours.recv(10, owner)
    assert scope.cancelled_caught
    assert await ours.recv() == b"x"


def before_step(act: Callable[[], object]) -> None:
    """Act in the moment between "this task can go on" and its going on."""
    me = trio.lowlevel.current_task()

    class Between(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            if task is me:
                trio.lowlevel.remove_instrument(self)
                act()

    trio.lowlevel.add_instrument(Between())


# --- writing ----------------------------------------------------------------------------------------------------------


async def test_send_nowait_takes_what_the_kernel_takes(pair: Pair) -> None:
    ours, theirs = pair
    sent = ours.send_nowait(BIG)
    assert 0 < sent < len(BIG)
    assert ours.send_nowait(memoryview(BIG)[sent:]) == 0
    assert ours.sendmsg_nowait([b"x", b"y"]) == 0
    got = b""
    while len(got) < sent:
        got += await theirs.recv()
    assert got == BIG[:sent]


async def test_takes_more_says_whether_a_wait_would_end_at_once(pair: Pair) -> None:
    stream, other = pair
    assert stream.takes_more
    while stream.send_nowait(b"x" * 65536):
        pass
    assert not stream.takes_more
    other.close()
    assert stream.takes_more  # a write would tell
    stream.close()
    assert not stream.takes_more


async def test_sendmsg_nowait_takes_pieces_as_one(pair: Pair) -> None:
    ours, theirs = pair
    assert ours.sendmsg_nowait([b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
    assert await theirs.recv() == b"abcdef"


async def test_send_all_sends_all_to_a_slow_reader(pair: Pair) -> None:
    ours, theirs = pair
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, BIG)
        await wait_all_tasks_blocked()
        got = bytearray()
        while len(got) < len(BIG):
            got += await theirs.recv(10_000)
    assert got == BIG


async def test_send_all_is_a_checkpoint_also_when_there_is_room(pair: Pair) -> None:
    ours, theirs = pair
    for data in (b"x", b""):
        with assert_checkpoints():
            await ours.send_all(data)
    assert await theirs.recv() == b"x"


async def test_a_send_that_is_cancelled_has_sent_a_beginning(pair: Pair) -> None:
    ours, theirs = pair
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, BIG)
            await wait_all_tasks_blocked()
            scope.cancel()
    ours.send_eof()
    got = bytearray()
    while data := await theirs.recv():
        got += data
    assert 0 < len(got) < len(BIG)
    assert got == BIG[: len(got)]


# --- closing ----------------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[RawStream], Awaitable[object]]] = {
    "recv": lambda stream: stream.recv(),
    "recv_into": lambda stream: stream.recv_into(bytearray(1)),
    "send_all": lambda stream: stream.send_all(BIG),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_close_wakes_whoever_waits_and_later_calls_fail(
    pair: Pair, way: Callable[[RawStream], Awaitable[object]]
) -> None:
    ours, _ = pair
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def waiter() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await way(ours)

        await wait_all_tasks_blocked()
        ours.close()
    with pytest.raises(trio.ClosedResourceError):
        await way(ours)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
async def test_closed_in_the_moment_in_which_it_could_go_on(
    pair: Pair, way: Callable[[RawStream], Awaitable[object]]
) -> None:
    ours, theirs = pair
    theirs.send_nowait(b"x")
    before_step(ours.close)
    with pytest.raises(trio.ClosedResourceError):
        await way(ours)


async def test_after_close_nothing_moves_and_close_is_idempotent(pair: Pair) -> None:
    ours, theirs = pair
    ours.close()
    ours.close()
    assert ours.fd == -1
    for call in (ours.recv_nowait, lambda: ours.send_nowait(b"x"), lambda: ours.sendmsg_nowait([b"x"])):
        with pytest.raises(trio.ClosedResourceError):
            call()
    ours.send_eof()
    ours.reset_on_close()
    assert await theirs.recv() == b""


async def test_close_may_send_a_reset(tcp_pair: Pair) -> None:
    client, server = tcp_pair
    server.send_nowait(b"half of a response")
    server.reset_on_close()
    server.close()
    with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
        while await client.recv():
            pass


async def test_a_unix_socket_knows_no_reset(pair: Pair) -> None:
    ours, theirs = pair
    ours.reset_on_close()
    ours.close()
    assert await theirs.recv() == b""


async def test_half_closing_a_connection_that_is_gone_is_no_error(tcp_pair: Pair) -> None:
    client, server = tcp_pair
    server.reset_on_close()
    server.close()
    await trio.lowlevel.wait_readable(client.fd)
    client.send_eof()


# --- Unix sockets -----------------------------------------------------------------------------------------------------


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


async def test_R47_who_listens_is_asked_before_anything_is_sent(nothing_left: Path) -> None:
    """KE5, fault 13: a path says nothing of who has bound it."""
    path = nothing_left / "sock"
    asked: list[tuple[int, int, int]] = []

    def believe(answer: bool) -> Callable[[PeerCredentials], bool]:
        def it(listener: PeerCredentials) -> bool:
            asked.append((listener.pid, listener.uid, listener.gid))
            return answer

        return it

    with listen_unix(str(path), 5) as listener:
        connect_unix_nowait(str(path), believe(True)).close()
        with pytest.raises(PermissionError, match=f"pid {os.getpid()} listens on its socket"):
            connect_unix_nowait(str(path), believe(False))
        assert asked == [(os.getpid(), os.getuid(), os.getgid())] * 2
        for _ in range(2):
            with listener.accept()[0] as server:
                assert server.recv(1) == b""
    path.unlink()


async def test_a_listener_whose_process_has_ended_is_nobody_whoever_has_its_pid_now(nothing_left: Path) -> None:
    """KE5: a process of the same user that once had a worker's pid, and whose socket another one keeps. The pid alone says that it is the worker."""
    path = nothing_left / "sock"
    program = (
        "import os, socket, sys, time\nlistener = socket.socket(socket.AF_UNIX)\nlistener.bind(sys.argv[1])\nlistener.listen()\n"
        "kept = os.fork()\nprint(kept or '', end='', flush=True)\n"
        "sys.stdin.read() if kept else time.sleep(600)\n"
    )
    told: list[int] = []

    def believe(listener: PeerCredentials) -> bool:
        told.append(listener.pid)
        return listener.pid == process.pid

    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        keeper = int(os.read(process.stdout.fileno(), 20))
        try:
            connect_unix_nowait(str(path), believe).close()
            process.kill()
            process.wait()
            with pytest.raises(PermissionError, match=f"pid {process.pid} listens"):
                connect_unix_nowait(str(path), believe)
        finally:
            os.kill(keeper, 9)
    assert told == [process.pid] * 2
    path.unlink()


async def test_listen_unix_and_connect(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    with listen_unix(str(path), 5, mode=0o600) as listener:
        assert not listener.getblocking()
        assert path.stat().st_mode & 0o7777 == 0o600
        stream = connect_unix_nowait(str(path))
        server, _ = listener.accept()
        with server:
            credentials = peer_credentials(server)
            assert (credentials.pid, credentials.uid, credentials.gid) == (os.getpid(), os.getuid(), os.getgid())
        assert await stream.recv() == b""
        stream.close()
    path.unlink()


def test_the_umask_is_as_it_was(nothing_left: Path) -> None:
    before = os.umask(0o027)
    try:
        with listen_unix(str(nothing_left / "sock"), 5):
            assert (nothing_left / "sock").stat().st_mode & 0o777 == 0o666
        with pytest.raises(FileNotFoundError):
            listen_unix(str(nothing_left / "missing" / "sock"), 5)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
        (nothing_left / "sock").unlink()


def test_nobody_may_connect_before_the_mode_is_set(nothing_left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R47: between ``bind`` and ``chmod`` the socket is its owner's alone, whatever mode it is to have."""
    path = nothing_left / "sock"
    seen: list[int] = []

    set_mode = os.chmod

    def chmod(name: str, mode: int) -> None:
        seen.append(os.stat(name).st_mode & 0o777)
        set_mode(name, mode)

    before = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr("passenger_trio.system.listen.os.chmod", chmod)
            listen_unix(str(path), 5).close()
    finally:
        os.umask(before)
        path.unlink()
    assert seen == [0o600]


def test_a_live_socket_is_left_alone(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    with listen_unix(str(path), 5):
        with pytest.raises(OSError, match="somebody listens") as caught:
            listen_unix(str(path), 5)
        assert caught.value.errno == errno.EADDRINUSE
        connect(path).close()
    path.unlink()


def test_a_live_socket_whose_queue_is_full_is_left_alone(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    with listen_unix(str(path), 0):
        with connect(path):
            with pytest.raises(OSError, match="somebody listens") as caught:
                listen_unix(str(path), 5)
            assert caught.value.errno == errno.EADDRINUSE
    path.unlink()


def test_a_stale_socket_is_replaced(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    listen_unix(str(path), 5).close()
    assert path.is_socket()
    with listen_unix(str(path), 5):
        connect(path).close()
    path.unlink()


def test_a_file_that_is_no_socket_is_left_alone(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        listen_unix(str(path), 5)
    assert path.read_text() == "precious"
    path.unlink()


def test_a_link_is_not_followed(nothing_left: Path) -> None:
    target, link = nothing_left / "target", nothing_left / "link"
    listen_unix(str(target), 5).close()
    link.symlink_to(target)
    with pytest.raises(FileExistsError):
        listen_unix(str(link), 5)
    assert target.is_socket()
    target.unlink()
    link.unlink()


def test_the_longest_path_and_one_byte_more(nothing_left: Path) -> None:
    room = MAX_UNIX_PATH - len(str(nothing_left)) - 1
    path = nothing_left / ("x" * room)
    with listen_unix(str(path), 5):
        connect(path).close()
    path.unlink()
    with pytest.raises(OSError, match="107 bytes") as caught:
        listen_unix(str(nothing_left / ("é" * (room // 2 + 1))), 5)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_what_cannot_be_listened_on_leaves_no_file(nothing_left: Path) -> None:
    """The file is there after bind; a listen that fails must not leave it."""
    path = nothing_left / "sock"
    with pytest.raises(OverflowError):
        listen_unix(str(path), 2**40)
    assert not path.exists()


async def test_connecting_where_nobody_listens(nothing_left: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_unix_nowait(str(nothing_left / "sock"))
    listen_unix(str(nothing_left / "sock"), 5).close()
    with pytest.raises(ConnectionRefusedError):
        connect_unix_nowait(str(nothing_left / "sock"))
    (nothing_left / "sock").unlink()


async def test_connecting_to_a_full_queue_does_not_wait(nothing_left: Path) -> None:
    path = nothing_left / "sock"
    with listen_unix(str(path), 0):
        # PyPy takes no shorter queue than one.
        accepted = [connect_unix_nowait(str(path)) for _ in range(2 if sys.implementation.name == "pypy" else 1)]
        with pytest.raises(BlockingIOError):
            connect_unix_nowait(str(path))
        for stream in accepted:
            stream.close()
    path.unlink()


# --- TCP --------------------------------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            return True
    except OSError:
        return False


def test_listen_tcp_takes_a_free_port() -> None:
    (listener,) = listen_tcp("127.0.0.1", 0, 5)
    with listener:
        assert not listener.getblocking()
        assert listener.getsockname()[1] > 0
        socket.create_connection(listener.getsockname()).close()


def test_port_0_is_one_port_for_all_families() -> None:
    needs(has_ipv6(), "IPv6 on the loopback interface")
    listeners = listen_tcp("", 0, 5)
    try:
        assert {listener.family for listener in listeners} == {socket.AF_INET, socket.AF_INET6}
        (port,) = {listener.getsockname()[1] for listener in listeners}
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port)).close()
    finally:
        for listener in listeners:
            listener.close()


def test_a_port_that_one_family_does_not_have_is_not_taken_on_the_other() -> None:
    needs(has_ipv6(), "IPv6 on the loopback interface")
    with socket.socket(socket.AF_INET) as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught:
            listen_tcp("", port, 5)
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_INET6) as free:
            free.bind(("::1", port))  # nothing stayed open


@pytest.mark.os
def test_port_0_is_found_although_the_first_free_port_is_taken_in_another_family() -> None:
    """In a network where two ports may be given out, and IPv6 has lost one or the other of them."""
    needs(has_ipv6(), "IPv6 on the loopback interface")
    for held in (40000, 40001):
        result = subprocess.run(
            [sys.executable, "-c", TWO_PORTS, str(held)], capture_output=True, text=True, timeout=10
        )
        needs(result.returncode != 77, "a network of its own (unshare, as root or where a user may make namespaces)")
        assert (result.stdout, result.stderr) == (f"{40000 + 40001 - held} {40000 + 40001 - held}\n", "")


TWO_PORTS = """
import ctypes, fcntl, socket, struct, sys
from passenger_trio.system.listen import listen_tcp
libc = ctypes.CDLL(None)
if libc.unshare(0x40000000) != 0 and libc.unshare(0x50000000) != 0:  # CLONE_NEWNET; with CLONE_NEWUSER
    sys.exit(77)
with socket.socket() as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write("40000 40001")
with socket.socket(socket.AF_INET6) as holder:
    holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    holder.bind(("::", int(sys.argv[1])))
    holder.listen()
    print(*(listener.getsockname()[1] for listener in listen_tcp("", 0, 5)))
"""


def test_a_port_in_use_is_told_with_its_holder() -> None:
    (listener,) = listen_tcp("127.0.0.1", 0, 5)
    with listener:
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            listen_tcp("127.0.0.1", port, 5)
        assert holder_of_port(port).endswith(f"(pid {os.getpid()})")
    assert holder_of_port(port) == ""


def test_an_address_that_is_not_ours_or_does_not_exist() -> None:
    for host in ("203.0.113.7", "no such host"):
        with pytest.raises(OSError, match=r"Cannot assign|known|resol|associated"):
            listen_tcp(host, 0, 5)


def test_fault_31_what_a_peer_did_not_get_is_known_also_when_it_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            server.setblocking(False)
            stream = RawStream(server)
            sent = 0
            while count := stream.send_nowait(b"x" * 65536):
                sent += count
            assert 0 < stream.undelivered < sent
            undelivered = stream.undelivered
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            assert select.select([server], [], [], 10)[0]
            assert stream.undelivered == undelivered
