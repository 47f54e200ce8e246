"""The channel of leases, with both its ends: encodes messages as packets, and decodes packets.

Laws:

* Sending never waits. Packets that the kernel does not take yet wait in the link, in order, with duplicates of their descriptors.
* A peer that does not read while ``_MOST`` packets wait has failed (``BrokenLink``).
* The owner accepts no descriptor from a front.
* A front that has no descriptor left leaves the owner's packets where they are: the kernel would drop the slot that comes with one.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable

import trio

from passenger_trio.codecs.front_messages import (
    OwnerReader,
    encode_from_front,
    encode_from_owner,
    read_from_front,
)
from passenger_trio.core.fronts.messages import FromFront, FromOwner
from passenger_trio.system.packets import Packets
from passenger_trio.system.raw_stream import RawStream

__all__ = ["BrokenLink", "FrontLink", "OwnerLink"]

_MOST = 20_000
"""Packets that wait for the peer."""
_PAUSE = 0.05
"""Seconds until the next look, when this process has no descriptor for what may come with a packet."""
_BURST = 64
"""Packets that are read before other tasks get their turn."""


class BrokenLink(Exception):
    """The peer has ended, or does not read."""


class _Link:
    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Packets, each with a descriptor of ours or -1."""
        self._more = trio.Event()
        self._broken = False

    def _put(self, packet: bytes, descriptor: int = -1) -> None:
        if self._broken:
            return
        if not self._waiting:
            try:
                if self._packets.send_nowait(packet, () if descriptor < 0 else (descriptor,)):
                    return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._give_up()
                return
        if len(self._waiting) >= _MOST:
            self._give_up()
            return
        self._waiting.append((packet, os.dup(descriptor) if descriptor >= 0 else -1))
        self._more.set()

    def _give_up(self) -> None:
        self._broken = True
        self._more.set()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            if self._broken:
                raise BrokenLink
            self._more = trio.Event()
            while self._waiting:
                await self._packets.wait_writable()
                packet, descriptor = self._waiting[0]
                try:
                    if not self._packets.send_nowait(packet, () if descriptor < 0 else (descriptor,)):
                        continue
                except trio.BrokenResourceError:
                    raise BrokenLink from None
                self._waiting.popleft()
                if descriptor >= 0:
                    os.close(descriptor)

    async def _read(self, take: Callable[[bytes, list[int]], None]) -> None:
        while True:
            await self._packets.wait_readable()
            for _ in range(_BURST):
                if not self._has_spare():
                    await trio.sleep(_PAUSE)
                    break
                try:
                    packet, descriptors = self._packets.receive_nowait()
                except trio.WouldBlock:
                    break
                except (trio.EndOfChannel, trio.BrokenResourceError):
                    raise BrokenLink from None
                take(packet, descriptors)

    def _has_spare(self) -> bool:
        """Whether a descriptor that comes with the next packet would be kept."""
        return True

    async def _run(self, take: Callable[[bytes, list[int]], None]) -> None:
        try:
            async with trio.open_nursery() as both:
                both.start_soon(self._write)
                await self._read(take)
        finally:
            self._broken = True
            self._packets.close()
            while self._waiting:
                _, descriptor = self._waiting.popleft()
                if descriptor >= 0:
                    os.close(descriptor)


class FrontLink(_Link):
    """A front's end."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(Packets(sock, takes_descriptors=1))

    def _has_spare(self) -> bool:
        try:
            self._packets.spare_descriptor()
        except OSError:
            return False  # a slot that came now would be lost, and the front with it
        return True

    def send(self, message: FromFront) -> None:
        """Send a message to the owner. Never waits, and raises nothing: if the owner is gone, ``run`` raises."""
        self._put(encode_from_front(message))

    async def run(self, receive: Callable[[FromOwner, RawStream | None], None]) -> None:
        """Pass on the owner's messages until cancelled.

        :param receive: gets each message, and the stream that came with it.
        :raises BrokenLink: the owner is gone. (The error may be in an exception group.)
        """
        reader = OwnerReader()

        def take(packet: bytes, descriptors: list[int]) -> None:
            stream = None
            for descriptor in descriptors:
                sock = socket.socket(fileno=descriptor)
                sock.setblocking(False)
                stream = RawStream(sock)
            message = reader.read(packet)
            if message is not None:
                receive(message, stream)

        await self._run(take)


class OwnerLink(_Link):
    """The owner's end, for one front."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(Packets(sock))

    def send(self, message: FromOwner, descriptor: int = -1) -> None:
        """Send a message to the front, with a copy of the descriptor. Never waits, and raises nothing: if the front is gone, ``run`` raises."""
        *first, last = encode_from_owner(message)
        for packet in first:
            self._put(packet)
        self._put(last, descriptor)

    async def run(self, receive: Callable[[FromFront], None]) -> None:
        """Pass on the front's messages until cancelled.

        :raises BrokenLink: the front is gone. (The error may be in an exception group.)
        :raises BadFrontMessage: a packet is no message of a front. (The error may be in an exception group.)
        """

        def take(packet: bytes, descriptors: list[int]) -> None:
            receive(read_from_front(packet))

        await self._run(take)
