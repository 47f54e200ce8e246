"""Connections that move between fronts: idle ones, with ``SCM_RIGHTS`` (FR6). ``core/fronts/active_fronts.py`` decides where they go.

Each front has an *inbox*: a pair of sockets of the owner, whose reading end one front has and whose writing ends all have. The owner is not asked and reads
nothing. A request that the client has sent meanwhile lies unread in the connection, and the new front reads it.

Laws:

* A connection is served by one front: the old one stops to watch it in the step in which the packet has gone out. If the inbox takes no packet, it stays.
* It keeps its age, its count of requests, and the time for which it has been idle.
* A front trusts a packet as little as the owner does: one that is no message costs its connection only.
* Inboxes outlive their fronts: what a front has not read when it dies is read by its successor.
* A front that is full gets none; and before it closes an idle connection to make room, it gives it to a front that has room. One that has no descriptor for a connection leaves it in the inbox.
* When the server stops, each front says on the page when it moves nothing any more, and takes in what comes until all have said so.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import trio

from passenger_trio.codecs.moved_connection import MovedConnection, encode_moved, read_moved
from passenger_trio.core.fronts.active_fronts import moves
from passenger_trio.errors import BadFrontMessage
from passenger_trio.fronts.heartbeats import Board, Hint
from passenger_trio.server.front import Front, OpenConnection
from passenger_trio.server.http.connection import Connection
from passenger_trio.server.http.peer import Peer
from passenger_trio.system.packets import Packets
from passenger_trio.system.raw_stream import RawStream

__all__ = ["Inbox", "Moving"]

_BURST = 32
"""Connections that are taken in before other tasks get their turn."""
_LATE = 0.01
"""Seconds between two looks for what comes when the server stops."""
_PAUSE = 0.1
"""Seconds until the next attempt, when there is no descriptor for a connection."""


class Moving:
    """Gives idle connections of a front to others."""

    def __init__(self, board: Board, number: int, front: Front, inboxes: Sequence[Packets]) -> None:
        """:param number: of this front. :param inboxes: the writing ends, by the number of their front."""
        self._board = board
        self._number = number
        self._front = front
        self._inboxes = inboxes
        self._has_ended = False
        self._sent: dict[int, tuple[int, int, int]] = {}
        """Number of a front -> its heartbeat and its count on the page when it was last sent connections, and how many it has been sent since these
        changed. It may not have read them yet."""
        front.move_elsewhere = self._move_elsewhere

    def look(self, now: float) -> None:
        """Called several times a second: move what is to move."""
        board, front = self._board, self._front
        front.give_away = None
        if not self._moves or not front.connections:
            return
        is_active = board.is_active(self._number, now)
        places = self._places(now, is_active=is_active)
        moved = 0
        for number, connection in zip(places, _movable(front.connections) if places else (), strict=False):
            if not self._move(connection, number):
                break
            moved += 1
        if moved:  # the others decide by this before the next beat
            board.lines[self._number][Hint.CONNECTIONS] = len(front.connections) - moved
        if not is_active and moved < len(front.connections):
            # A client that asks again at once is idle for a moment only, which no look would meet. And the slot for each of its requests is at an active front.
            front.give_away = self._give_away

    @property
    def _moves(self) -> bool:
        """Whether anything moves at all now."""
        return not self._has_ended and self._board.active > 0 and not self._front.draining

    def _count(self, number: int) -> int:
        """How many connections another front has, or will have when it has read its inbox."""
        line = self._board.lines[number]
        beat, count, sent = self._sent.get(number, (0, 0, 0))
        now = int(line[Hint.CONNECTIONS])
        return now + sent if (beat, count) == (line[Hint.HEARTBEAT], now) else now

    def _places(self, now: float, *, is_active: bool) -> list[int]:
        board, front = self._board, self._front
        others = {
            number: self._count(number)
            for number in board.active_numbers(now)
            if number != self._number and not board.is_full(number)
        }
        return moves(
            len(front.connections),
            others,
            is_active=is_active,
            limits={number: board.lines[number][Hint.MOST] for number in others},
            givers=len(board.alive(now)),
        )

    def _give_away(self, connection: object) -> None:
        """A connection has become idle, and this front is not active: move it."""
        assert isinstance(connection, Connection)
        now = self._front.current_time()
        if not connection.is_movable or self._board.is_active(self._number, now):
            return
        places = self._places(now, is_active=False)
        if places and self._move(connection, places[0]):
            self._board.lines[self._number][Hint.CONNECTIONS] -= 1

    def _move_elsewhere(self, connection: object) -> bool:
        """A connection is idle, and would be closed because this front is full. Give it to a front that has room, if there is one; active or not."""
        assert isinstance(connection, Connection)
        if not self._moves or not connection.is_movable:
            return False
        board, now = self._board, self._front.current_time()
        active = board.active_numbers(now)
        places = [
            (number not in active, self._count(number), number)
            for number in board.alive(now)
            if number != self._number
            and not board.is_full(number)
            and self._count(number) < board.lines[number][Hint.MOST]
        ]
        return bool(places) and self._move(connection, min(places)[2])

    def end(self) -> None:
        """The server stops: move nothing from now on, and say so to the others."""
        self._front.give_away = None
        self._board.lines[self._number][Hint.STILL] = 1
        self._has_ended = True

    def close(self) -> None:
        """Close the writing ends."""
        for inbox in self._inboxes:
            inbox.close()

    def _move(self, connection: OpenConnection, number: int) -> bool:
        peer = connection.peer
        moved = MovedConnection(
            peer.address, peer.cgi_pairs, peer.user, connection.opened, connection.since, connection.served
        )
        try:
            if not self._inboxes[number].send_nowait(encode_moved(moved), (connection.stream.fd,)):
                return False
        except trio.BrokenResourceError as error:
            self._front.warn_rarely(f"cannot move a connection to another front: {error}")
            return False
        connection.hand_over()
        line = self._board.lines[number]
        count = int(line[Hint.CONNECTIONS])
        self._sent[number] = line[Hint.HEARTBEAT], count, self._count(number) - count + 1
        return True


def _movable(connections: set[OpenConnection]) -> list[OpenConnection]:
    """Those that can move, in the order in which they do: each second one of those that were used last, so that those in use spread, then the rest."""
    found = sorted((one for one in connections if one.is_movable), key=lambda one: one.since, reverse=True)
    return found[1::2] + found[::2]


class Inbox:
    """Takes in the connections that other fronts give to this one."""

    def __init__(
        self, sock: socket.socket, front: Front, board: Board, number: int, moved_in: Callable[[float], None]
    ) -> None:
        """:param number: of this front. :param moved_in: is told of each connection, with the time."""
        self._moved_in = moved_in
        self._board = board
        self._line = board.lines[number]
        self._packets = Packets(sock, takes_descriptors=1)
        self._front = front

    async def run(self, clients: trio.Nursery) -> None:
        """Take in connections until cancelled; they run in ``clients``."""
        while True:
            await self._packets.wait_readable()
            pause, begun = self._take(clients)
            self._line[Hint.CONNECTIONS] = len(self._front.connections)
            # After one checkpoint their tasks are in the queue, after the next one they have run: each is idle, or its request has come.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            for connection, moved in begun:
                connection.idle_as_before(moved.idle_since, moved.served)
                if self._front.draining and connection.is_idle:
                    connection.close_idle()
            if pause:
                await trio.sleep(pause)

    async def take_last(self, clients: trio.Nursery) -> None:
        """The server stops, and the front drains: take in what comes until no front moves anything any more."""
        while True:
            is_over = self._board.is_still(self._front.current_time())  # what was sent by then is in the inbox now
            while self._front.takes_connection and (begun := self._take(clients)[1]):
                for connection, _ in begun:
                    connection.close_idle()  # a request that has come is served
            if is_over:
                return
            await trio.sleep(_LATE)

    def _take(self, clients: trio.Nursery) -> tuple[float, list[tuple[Connection, MovedConnection]]]:
        """Take in those that have come. Returns seconds for which to take no others, and the new connections, each with what its packet said."""
        front = self._front
        begun: list[tuple[Connection, MovedConnection]] = []
        for turn in range(_BURST):
            # It is known that a connection waits only the first time, and one that was told to end stays open until its task has run.
            if not front.takes_connection and (turn or not front.make_room()):
                return 0.0 if turn else _PAUSE, begun
            try:
                self._packets.spare_descriptor()
                packet, descriptors = self._packets.receive_nowait()
            except trio.WouldBlock:
                break
            except OSError as error:
                if turn:
                    break
                front.short_of_descriptors(f"cannot take connections from other fronts: {error.strerror}")
                return _PAUSE, begun
            except (trio.BrokenResourceError, trio.EndOfChannel) as error:
                front.warn_rarely(f"cannot take a connection from another front: {error}")
                return _PAUSE, begun
            try:
                moved = read_moved(packet)
                (descriptor,) = descriptors
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
            except (BadFrontMessage, ValueError, OSError) as error:
                for descriptor in descriptors:
                    os.close(descriptor)
                front.warn_rarely(f"a connection of another front is closed: {error}")
                continue
            connection = self._connection(moved, sock)
            front.connections.add(connection)  # it counts from now on, and not when its task first runs
            clients.start_soon(connection.run)
            self._moved_in(front.current_time())
            begun.append((connection, moved))
        return 0.0, begun

    def _connection(self, moved: MovedConnection, sock: socket.socket) -> Connection:
        front = self._front
        trusted = front.trusted
        is_trusted = trusted.trusts(moved.address) if moved.user is None else trusted.trusts_user(moved.user)
        peer = Peer(moved.address, is_trusted, moved.cgi_pairs, moved.user)
        connection = Connection(front, RawStream(sock), peer)
        connection.opened, connection.served = moved.opened, moved.served
        return connection

    def close(self) -> None:
        """Close the reading end. What is in it stays for a successor."""
        self._packets.close()
