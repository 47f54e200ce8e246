"""FR6: idle connections move from one front to another, by real packets with real descriptors. Both fronts are in this process."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from dummy_front import Client, World, get, respond, serving, simulated, whole

from passenger_trio.codecs.moved_connection import MovedConnection, encode_moved
from passenger_trio.core.accept_gate import Turn
from passenger_trio.core.fronts.active_fronts import CALM
from passenger_trio.fronts.balance import Balance
from passenger_trio.fronts.heartbeats import BEAT, FULL, STALE, Board, BoardGate, Hint
from passenger_trio.fronts.moving import Inbox, Moving
from passenger_trio.options import ServerOptions
from passenger_trio.system.packets import Packets, packet_pair

OPTIONS = ServerOptions(keep_alive_timeout=7.0, header_timeout=5.0, max_connection_age=50.0)


@attrs.define
class Pair:
    """Two fronts. The first one is active."""

    board: Board
    worlds: list[World]
    moving: list[Moving]
    inboxes: list[tuple[socket.socket, socket.socket]]
    moved_in: list[float] = attrs.field(factory=list)
    """When each connection came to another front."""

    def inbox(self, number: int) -> Inbox:
        """One more reader of a front's inbox."""
        sock = self.inboxes[number][0].dup()
        return Inbox(sock, self.worlds[number].front, self.board, number, self.moved_in.append)

    def beat(self) -> None:
        """Both fronts write their lines."""
        for number, world in enumerate(self.worlds):
            line = self.board.lines[number]
            line[Hint.HEARTBEAT] = max(1, int(1000 * trio.current_time()))
            line[Hint.CONNECTIONS] = len(world.front.connections)
            line[Hint.FULL] = int(FULL * world.front.fullness)
            line[Hint.MOST] = world.front.most_connections

    async def look(self, number: int) -> None:
        """A front looks what is to move, and everybody does what follows."""
        self.beat()
        self.moving[number].look(trio.current_time())
        await trio.testing.wait_all_tasks_blocked()

    def connections(self) -> list[int]:
        return [len(world.front.connections) for world in self.worlds]


@asynccontextmanager
async def two_fronts(options: ServerOptions = OPTIONS, *, reads: bool = True) -> AsyncIterator[Pair]:
    """:param reads: whether the inboxes are read."""
    board = Board.create(2)
    board.active = 1
    inboxes = [packet_pair() for _ in range(2)]
    async with (
        serving(respond(whole(b"first")), options=options) as first,
        serving(respond(whole(b"second")), options=options) as second,
        trio.open_nursery() as nursery,
    ):
        worlds = [first, second]
        moving = [
            Moving(board, number, world.front, [Packets(sock.dup()) for _, sock in inboxes])
            for number, world in enumerate(worlds)
        ]
        pair = Pair(board, worlds, moving, inboxes)
        pair.beat()
        await trio.sleep(1)
        readers = [pair.inbox(number) for number in range(2)]
        for reader in readers if reads else ():
            nursery.start_soon(reader.run, nursery)
        yield pair
        for world in worlds:
            for client in world.clients:
                client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        for part in (*readers, *moving):
            part.close()
    board.page.close()
    for sockets in inboxes:
        for sock in sockets:
            sock.close()


async def served(world: World, count: int) -> list[Client]:
    clients = [world.connect() for _ in range(count)]
    for client in clients:
        assert (await client.ask()).status == 200
    await trio.testing.wait_all_tasks_blocked()
    return clients


@simulated
async def test_a_front_that_is_not_active_gives_its_idle_connections_away() -> None:
    async with two_fronts() as pair:
        clients = await served(pair.worlds[1], 5)
        await pair.look(1)
        assert pair.connections() == [5, 0]
        assert pair.moved_in == [trio.current_time()] * 5, "the pool is told: they may count as waiters elsewhere"
        for client in clients:
            assert (await client.ask()).body == b"first"
            assert (await client.ask()).body == b"first"


@simulated
async def test_an_active_front_gives_half_to_one_that_has_become_active() -> None:
    async with two_fronts() as pair:
        clients = await served(pair.worlds[0], 12)
        await pair.look(0)
        assert pair.connections() == [12, 0]
        pair.board.active = 2
        await pair.look(0)
        assert pair.connections() == [6, 6]
        await pair.look(0)
        await pair.look(1)
        assert pair.connections() == [6, 6]
        assert sorted([(await client.ask()).body for client in clients]) == [b"first"] * 6 + [b"second"] * 6


@simulated
async def test_those_that_were_used_last_are_shared() -> None:
    """Two busy connections among idle ones: one of them moves."""
    async with two_fronts() as pair:
        clients = await served(pair.worlds[0], 20)
        await trio.sleep(1)
        busy = clients[3], clients[4]
        for client in busy:
            await client.ask()
        pair.board.active = 2
        await pair.look(0)
        assert {(await client.ask()).body for client in busy} == {b"first", b"second"}


@simulated
async def test_with_balance_by_count_nothing_moves() -> None:
    async with two_fronts() as pair:
        await served(pair.worlds[0], 12)
        pair.board.active = 0
        await pair.look(0)
        await pair.look(1)
        assert pair.connections() == [12, 0]


@simulated
async def test_a_request_that_lies_unread_moves_with_its_connection() -> None:
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        client.send(get("/unread"))  # in this step nobody reads it
        pair.beat()
        pair.moving[1].look(trio.current_time())
        assert client.connection.stream.registration is None, "nor does anybody from now on"
        assert (await client.answer()).body == b"first"
        assert pair.connections() == [1, 0]


@simulated
async def test_a_connection_that_is_in_use_at_each_look_moves_when_it_is_idle_for_a_moment() -> None:
    """Whatever its client has sent behind the request is served here, too."""
    async with two_fronts() as pair:
        client, pipelining, other = await served(pair.worlds[1], 3)
        client.send(get("/half")[:9])
        pipelining.send(get("/half")[:9])
        await trio.testing.wait_all_tasks_blocked()
        await pair.look(1)
        assert pair.connections() == [1, 2]
        client.send(get("/half")[9:] + get("/one")[:5])
        pipelining.send(get("/half")[9:] + get("/two"))
        await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [2, 1], "one of them has a part of a head here"
        client.send(get("/one")[5:])
        assert [(await one.answer()).body for one in (client, client, pipelining, pipelining)] == [b"second"] * 4
        assert pair.connections() == [3, 0]
        assert [(await one.ask()).body for one in (client, pipelining, other)] == [b"first"] * 3


@pytest.mark.parametrize("ends", ["active", "drains", "the server stops", "the other is full"])
@simulated
async def test_it_stays_if_it_is_not_to_move_any_more(ends: str) -> None:
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        client.send(get("/half")[:9])
        await trio.testing.wait_all_tasks_blocked()
        await pair.look(1)
        if ends == "active":
            pair.board.active = 2
        elif ends == "drains":
            pair.worlds[1].front.draining = True
        elif ends == "the server stops":
            pair.moving[1].end()
        else:
            pair.board.lines[0][Hint.FULL] = FULL
        client.send(get("/half")[9:])
        assert (await client.answer()).body == b"second"
        await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [0, 0 if ends == "drains" else 1]


@simulated
async def test_a_connection_with_a_request_in_hand_or_a_part_of_a_head_stays() -> None:
    async with two_fronts() as pair:
        half, new, closing = (*await served(pair.worlds[1], 1), pair.worlds[1].connect(), pair.worlds[1].connect())
        assert (await closing.ask()).status == 200
        half.send(get("/half")[:9])
        await trio.testing.wait_all_tasks_blocked()
        closing.connection.close_idle()
        pair.beat()
        pair.moving[1].look(trio.current_time())
        assert not half.ended.is_set()
        half.send(get("/half")[9:])
        assert (await half.answer()).body == b"second"
        assert await closing.at_end(), "it had been told to end, and ends"
        assert (await new.ask()).body == b"first", "one that has sent nothing yet moves as well"


@simulated
async def test_R27_the_time_to_be_idle_goes_on() -> None:
    """It is neither shorter nor longer because the connection moves."""
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        begun = trio.current_time()
        await trio.sleep(6)
        await pair.look(1)
        assert pair.connections() == [1, 0]
        assert await client.at_end()
        assert trio.current_time() - begun == pytest.approx(7.13, abs=0.14)


@simulated
async def test_R27_a_request_that_was_answered_at_once_begins_a_new_time_to_be_idle() -> None:
    """It may come and be answered in the very step in which the connection arrives."""
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        idle_since, served_before = client.connection.since, client.connection.served
        await trio.sleep(6)
        await client.ask()
        client.connection.idle_as_before(idle_since, served_before)
        begun = trio.current_time()
        assert await client.at_end()
        assert trio.current_time() - begun == pytest.approx(7.13, abs=0.14)


@simulated
async def test_its_requests_and_its_age_go_on() -> None:
    async with two_fronts(ServerOptions(max_requests_per_connection=3, max_connection_age=0)) as pair:
        (client,) = await served(pair.worlds[1], 1)
        await pair.look(1)
        assert "connection" not in (await client.ask()).headers
        assert (await client.ask()).headers["connection"] == "close"
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        for _ in range(9):
            await trio.sleep(5)
            await client.ask()
        await pair.look(1)
        await trio.sleep(6)
        assert (await client.ask()).headers["connection"] == "close", "51 seconds, and 50 are allowed"


@simulated
async def test_who_is_trusted_is_decided_by_the_front_that_serves() -> None:
    """A packet cannot make a client trusted; nor does a client lose its trust."""
    for trusts in (False, True):
        options = ServerOptions(trusted_proxies=("127.0.0.1",) if trusts else ("192.0.2.1",))
        async with two_fronts(options) as pair:
            pair.worlds[1].connect(trusted=not trusts)
            await trio.testing.wait_all_tasks_blocked()
            await pair.look(1)
            (connection,) = pair.worlds[0].front.connections
            assert connection.peer.trusted is trusts


@simulated
async def test_while_a_front_drains_nothing_moves() -> None:
    async with two_fronts() as pair:
        clients = await served(pair.worlds[1], 2)
        pair.worlds[1].front.draining = True
        await pair.look(1)
        assert pair.connections() == [0, 2]
        assert (await clients[0].ask()).headers["connection"] == "close"


@simulated
async def test_an_inbox_that_is_full_leaves_the_rest_where_it_is() -> None:
    async with two_fronts(reads=False) as pair:
        clients = await served(pair.worlds[1], 3)
        with pair.inboxes[0][1].dup() as sock:
            writing = Packets(sock)
            while writing.send_nowait(b"x" * 60000):
                pass
        await pair.look(1)
        assert pair.connections() == [0, 3]
        assert {(await client.ask()).body for client in clients} == {b"second"}


@simulated
async def test_what_a_front_has_not_read_is_read_by_its_successor() -> None:
    async with two_fronts(reads=False) as pair, trio.open_nursery() as nursery:
        (client,) = await served(pair.worlds[1], 1)
        await pair.look(1)
        assert pair.connections() == [0, 0]
        client.send(get("/while-nobody-reads"))
        await trio.sleep(3)
        successor = pair.inbox(0)
        nursery.start_soon(successor.run, nursery)
        assert (await client.answer()).body == b"first"
        client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        successor.close()


@simulated
async def test_a_packet_that_is_none_costs_its_connection_only() -> None:
    async with two_fronts() as pair:
        ours, theirs = socket.socketpair()
        with ours, theirs, pair.inboxes[0][1].dup() as sock:
            writing = Packets(sock)
            assert writing.send_nowait(b"no such packet", (ours.fileno(),))
            ours.close()
            await trio.testing.wait_all_tasks_blocked()
            assert theirs.recv(1) == b"", "its descriptor is closed"
            assert writing.send_nowait(encode_moved(MovedConnection("192.0.2.7", b"", None, 1.0, 1.0, 0)))
        (client,) = await served(pair.worlds[1], 1)
        await pair.look(1)
        assert (await client.ask()).body == b"first"
        assert pair.connections() == [1, 0]


@simulated
async def test_a_descriptor_of_something_else_costs_its_packet_only() -> None:
    """A front trusts no other front: a file is no connection, an empty packet is none, and a socket that blocks does not stop the front."""
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        packet = encode_moved(MovedConnection("192.0.2.7", b"", None, 1.0, 1.0, 0))
        file, other = os.pipe()
        blocking, far = socket.socketpair()
        with pair.inboxes[0][1].dup() as sock, far:
            socket.send_fds(sock, [packet], [file])
            socket.send_fds(sock, [b""], [file])
            socket.send_fds(sock, [packet], [blocking.fileno()])
            os.close(file)
            await pair.look(1)
            assert (await client.ask()).body == b"first", "the inbox is read all the same"
            with pytest.raises(BrokenPipeError):
                os.write(other, b"x")
            assert not blocking.getblocking() or not os.get_blocking(blocking.fileno())
            os.close(other)
            blocking.close()
            await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [1, 0]


@simulated
async def test_R36_without_a_descriptor_a_connection_waits_in_the_inbox() -> None:
    """What the kernel cannot give to the program, it would drop."""
    async with two_fronts(reads=False) as pair, trio.open_nursery() as nursery:
        (client,) = await served(pair.worlds[1], 1)
        await pair.look(1)
        client.send(get("/waits"))
        inbox = pair.inbox(0)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            nursery.start_soon(inbox.run, nursery)
            await trio.testing.wait_all_tasks_blocked()
            assert pair.connections() == [0, 0]
            assert pair.worlds[0].front.fullness == 1.0, "others are active then, and nothing more moves here"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (await client.answer()).body == b"first"
        client.close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        inbox.close()


@simulated
async def test_nothing_moves_to_a_front_that_is_full() -> None:
    async with two_fronts() as pair:
        (client,) = await served(pair.worlds[1], 1)
        pair.beat()
        pair.board.lines[0][Hint.FULL] = FULL
        pair.moving[1].look(trio.current_time())
        await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [0, 1]
        assert (await client.ask()).body == b"second"


@simulated
async def test_R36_no_connection_is_closed_for_one_that_moves() -> None:
    """Others may move some at the same time, or clients come: each front leaves room for them."""
    async with two_fronts(ServerOptions(max_connections=10, keep_alive_timeout=100)) as pair:
        await served(pair.worlds[0], 4)
        await served(pair.worlds[1], 9)
        await trio.sleep(2)
        await pair.look(1)
        assert pair.connections() == [7, 6]
        assert [line[Hint.CONNECTIONS] for line in pair.board.lines] == [7, 6], "it is told at once"


@simulated
async def test_what_moves_to_a_front_that_drains_ends_or_is_served() -> None:
    """Also a connection that has not sent any request: there is no use in waiting for its first one."""
    async with two_fronts(reads=False) as pair, trio.open_nursery() as nursery:
        old, asking = await served(pair.worlds[1], 2)
        new = pair.worlds[1].connect()
        await trio.testing.wait_all_tasks_blocked()
        await pair.look(1)
        asking.send(get("/sent-in-good-faith"))
        pair.worlds[0].front.drain()
        inbox = pair.inbox(0)
        nursery.start_soon(inbox.run, nursery)
        await trio.testing.wait_all_tasks_blocked()
        begun = trio.current_time()
        answer = await asking.answer()
        assert (answer.body, answer.headers["connection"]) == (b"first", "close")
        assert await old.at_end()
        assert await new.at_end()
        assert trio.current_time() == begun
        nursery.cancel_scope.cancel()
        inbox.close()


@simulated
async def test_what_comes_to_the_inbox_while_the_server_stops_is_served() -> None:
    """Fronts get to know it one after the other. Each waits until none moves anything any more."""
    async with two_fronts(reads=False) as pair, trio.open_nursery() as nursery:
        clients = await served(pair.worlds[1], 90)
        await pair.look(1)
        for client in clients:
            client.send(get("/sent-before"))
        inbox = pair.inbox(0)
        pair.moving[0].end()
        pair.worlds[0].front.drain()
        ended = trio.Event()

        async def take() -> None:
            await inbox.take_last(nursery)
            ended.set()

        nursery.start_soon(take)
        pair.beat()
        pair.moving[1].look(trio.current_time())
        pair.moving[1].end()
        await ended.wait()
        for client in clients:
            await client.answer()
        new = pair.worlds[1].connect()
        await pair.look(1)
        assert pair.connections() == [0, 1], "it moves nothing any more"
        assert (await new.ask()).body == b"second"
        inbox.close()


@simulated
async def test_at_the_stop_nobody_waits_for_a_front_that_stands_still() -> None:
    async with two_fronts(reads=False) as pair, trio.open_nursery() as nursery:
        pair.beat()
        inbox = pair.inbox(0)
        pair.moving[0].end()
        await inbox.take_last(nursery)
        assert not pair.board.alive(trio.current_time())
        inbox.close()


@simulated
async def test_a_front_that_is_full_closes_idle_ones_or_waits() -> None:
    """R36: as for a connection that it accepts."""
    async with two_fronts(ServerOptions(max_connections=2, keep_alive_timeout=100)) as pair:
        old = await served(pair.worlds[0], 2)
        (client,) = await served(pair.worlds[1], 1)
        await trio.sleep(2)
        pair.beat()
        pair.board.lines[0][Hint.CONNECTIONS] = pair.board.lines[0][Hint.FULL] = 0  # two have come since
        pair.moving[1].look(trio.current_time())
        pair.board.lines[1][Hint.FULL] = FULL
        assert (await client.ask()).body == b"first"
        assert sum([(await one.at_end()) for one in old if one.ended.is_set()]) == 1


@simulated
async def test_R36_a_front_that_is_full_closes_no_idle_connection_while_another_has_room() -> None:
    """Connections may have come to it while one was under way to it. The limit is that of all fronts together."""
    async with two_fronts(ServerOptions(max_connections=4, keep_alive_timeout=100)) as pair:
        old = await served(pair.worlds[0], 4)
        await trio.sleep(1)  # so they are idle longest
        moving = await served(pair.worlds[1], 2)
        await trio.sleep(2)
        pair.beat()
        pair.board.lines[0][Hint.CONNECTIONS] = pair.board.lines[0][Hint.FULL] = 0  # four have come since
        pair.moving[1].look(trio.current_time())
        assert [(await client.ask()).body for client in moving] == [b"first"] * 2
        assert sorted([(await client.ask()).body for client in old]) == [b"first"] * 2 + [b"second"] * 2
        assert pair.connections() == [4, 2]
        pair.board.active = 0
        assert pair.worlds[0].front.make_room() == 1
        await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [3, 2], "nothing moves at all: one is closed"


@simulated
async def test_R36_what_is_under_way_to_a_front_takes_its_room() -> None:
    """A front that reads nothing for a while was sent more and more, by the count on its line."""
    async with two_fronts(ServerOptions(max_connections=9, keep_alive_timeout=100), reads=False) as pair:
        clients = await served(pair.worlds[1], 9)
        pair.beat()
        for _ in range(9):
            pair.moving[1].look(trio.current_time())
            await trio.testing.wait_all_tasks_blocked()
        assert pair.connections() == [0, 1], "the last one leaves room for who connects there"
        for client in clients:
            client.close()


@simulated
async def test_R36_a_front_tells_at_once_that_a_connection_has_ended() -> None:
    """Else the others believe for a beat that all are full, and close idle connections for new ones."""
    async with two_fronts(ServerOptions(max_connections=2, keep_alive_timeout=100)) as pair:
        for number, world in enumerate(pair.worlds):
            front = world.front
            front.gate = BoardGate(
                pair.board,
                number,
                lambda front=front: len(front.connections),
                lambda front=front: front.fullness >= 1.0,
                front.current_time,
            )
        await served(pair.worlds[0], 2)
        first, _ = await served(pair.worlds[1], 2)
        pair.board.active = 2
        pair.beat()
        gate = pair.worlds[0].front.gate
        assert gate is not None
        assert gate.turn() is Turn.TAKE, "all are full"
        first.close()
        await trio.testing.wait_all_tasks_blocked()
        assert gate.turn() is Turn.LEAVE


# -- who accepts ------------------------------------------------------------------------------------------------------


def gates(board: Board, full: list[bool], fronts: int) -> list[BoardGate]:
    return [
        BoardGate(
            board,
            number,
            lambda number=number: board.lines[number][Hint.CONNECTIONS],
            lambda number=number: full[number],
            trio.current_time,
        )
        for number in range(fronts)
    ]


@simulated
async def test_the_active_fronts_are_the_first_that_show_life() -> None:
    board, full = Board.create(3), [False] * 3
    at = gates(board, full, 3)
    for line in board.lines:
        line[Hint.HEARTBEAT], line[Hint.MOST] = int(1000 * trio.current_time()) or 1, 100
    board.active = 2
    assert [gate.turn() for gate in at] == [Turn.TAKE, Turn.TAKE, Turn.LEAVE]
    await trio.sleep(STALE + 0.01)
    for line in board.lines[1:]:
        line[Hint.HEARTBEAT] = int(1000 * trio.current_time())
    assert [gate.is_open for gate in at[1:]] == [True, True], "the first one is silent"
    board.lines[0][Hint.HEARTBEAT] = int(1000 * trio.current_time())
    full[0] = True
    board.lines[0][Hint.CONNECTIONS] = 5
    board.lines[1][Hint.CONNECTIONS] = 5
    assert at[0].turn() is Turn.LEAVE, "the third one has room, and will be active"
    board.active = 0
    assert [gate.turn() for gate in at[1:]] == [Turn.LEAVE, Turn.TAKE]
    board.page.close()


@simulated
async def test_R36_a_front_that_is_full_holds_back_no_other() -> None:
    """It may be full with few connections: its descriptors are the files of buffers, or somebody else's."""
    board, full = Board.create(3), [True, False, False]
    at = gates(board, full, 3)
    for line, count in zip(board.lines, (2, 40, 40), strict=True):
        line[Hint.HEARTBEAT], line[Hint.MOST] = int(1000 * trio.current_time()) or 1, 100
        line[Hint.CONNECTIONS] = count
    board.active = 2
    assert at[1].turn() is Turn.LEAVE
    board.lines[0][Hint.FULL] = 1000
    assert at[1].turn() is Turn.TAKE
    board.active = 0
    for line in board.lines:
        line[Hint.FULL] = 1000
    assert at[0].turn() is Turn.TAKE, "all are full: one of them makes room"
    board.page.close()


@simulated
async def test_R36_no_front_makes_room_while_another_has_some() -> None:
    """Five connections that three fronts share: two, two and one."""
    board, full = Board.create(3), [False, True, True]
    at = gates(board, full, 3)
    for line, count, most in zip(board.lines, (1, 2, 1), (2, 2, 1), strict=True):
        line[Hint.HEARTBEAT] = int(1000 * trio.current_time()) or 1
        line[Hint.CONNECTIONS], line[Hint.MOST] = count, most
    assert [gate.turn() for gate in at] == [Turn.TAKE, Turn.LEAVE, Turn.LEAVE]
    board.lines[0][Hint.CONNECTIONS], full[0] = 2, True
    assert [gate.turn() for gate in at] == [Turn.LAST, Turn.LAST, Turn.TAKE]
    board.page.close()


@simulated
async def test_a_front_that_is_not_active_waits_until_it_is() -> None:
    board = Board.create(2)
    (_, gate) = gates(board, [False] * 2, 2)
    for line in board.lines:
        line[Hint.HEARTBEAT], line[Hint.MOST] = int(1000 * trio.current_time()) or 1, 100
    board.active = 1
    waited = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await gate.wait_open()
            waited.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        gate.look()
        await trio.testing.wait_all_tasks_blocked()
        assert not waited.is_set()
        board.active = 2
        gate.look()
        await waited.wait()
    board.page.close()


# -- the owner --------------------------------------------------------------------------------------------------------


@simulated
async def test_the_owner_says_how_many_are_active() -> None:
    """By the processor time that the fronts write, while cores are idle; a front that was started again begins at zero."""
    board = Board.create(4)
    idle, others = [0.0], [0.0]

    def idle_time() -> float | None:
        return idle[0]

    balance = Balance(board, 4, idle_time)
    assert board.active == 1
    used = [0.0] * 4

    async def fronts() -> None:
        while True:
            for line, cpu in zip(board.lines, used, strict=True):
                line[Hint.CPU] += int(cpu * BEAT * 1e6)
                line[Hint.USED] += int(cpu * BEAT * 1e6)
                line[Hint.HEARTBEAT], line[Hint.MOST] = int(1000 * trio.current_time()) or 1, 100
            idle[0] += BEAT * ((os.cpu_count() or 1) - sum(used) - others[0])
            await trio.sleep(BEAT)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fronts)
        nursery.start_soon(balance.run)
        await trio.sleep(5.02)
        assert board.active == 1
        used[0] = 0.95
        await trio.sleep(9 * BEAT)
        assert board.active == 1, "it has no client: that is no load"
        board.lines[0][Hint.CONNECTIONS] = 9
        await trio.sleep(9 * BEAT)
        assert board.active == 1, "there is no slot for a second one"
        board.lines[0][Hint.LEASED] = 2
        others[0] = (os.cpu_count() or 1) - 1.3
        await trio.sleep(99 * BEAT)
        assert board.active == 1, "the processes need the other cores"
        others[0] = 0.0
        await trio.sleep(20 * BEAT)
        assert board.active == min(2, os.cpu_count() or 1)
        used[0] = 0.0
        await trio.sleep(CALM + 9 * BEAT)
        assert board.active == 1
        board.lines[0][Hint.CPU] = 0
        await trio.sleep(9 * BEAT)
        assert board.active == 1
        board.lines[2][Hint.FULL] = 900
        await trio.sleep(9 * BEAT)
        assert board.active == 2
        balance.end()
        assert board.active == 0, "the server stops: nothing moves"
        await trio.sleep(9 * BEAT)
        assert board.active == 0
        nursery.cancel_scope.cancel()
    board.page.close()
