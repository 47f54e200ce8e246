"""Whole messages between two processes, and descriptors with them."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from passenger_trio.system.packets import MAX_PACKET, Packets, packet_pair


def opened() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def test_messages_arrive_whole_and_in_order() -> None:
    ours, theirs = (Packets(sock) for sock in packet_pair())
    for message in (b"a", b"b" * MAX_PACKET, b"c"):
        assert ours.send_nowait(message)
    await theirs.wait_readable()
    assert [theirs.receive_nowait()[0] for _ in range(3)] == [b"a", b"b" * MAX_PACKET, b"c"]
    with pytest.raises(trio.WouldBlock):
        theirs.receive_nowait()
    ours.close()
    ours.close()
    with pytest.raises(trio.EndOfChannel):
        theirs.receive_nowait()
    with pytest.raises(trio.BrokenResourceError):
        theirs.send_nowait(b"d")
    theirs.close()
    with pytest.raises(trio.ClosedResourceError):
        theirs.send_nowait(b"d")


async def test_a_descriptor_comes_with_its_message() -> None:
    one, other = packet_pair()
    ours, theirs = Packets(one), Packets(other, takes_descriptors=1)
    end, far = socket.socketpair()
    with end, far:
        assert ours.send_nowait(b"here", [far.fileno()])
        message, (descriptor,) = theirs.receive_nowait()
        with socket.socket(fileno=descriptor) as copy:
            assert message == b"here"
            assert not os.get_inheritable(descriptor)
            end.send(b"through")
            assert copy.recv(10) == b"through"
    ours.close()
    theirs.close()


async def test_a_receiver_that_wants_no_descriptors_gets_none() -> None:
    """The owner does not take what a front may send."""
    ours, theirs = (Packets(sock) for sock in packet_pair())
    before = opened()
    with open("/dev/null") as null:
        assert ours.send_nowait(b"here", [null.fileno()])
    assert theirs.receive_nowait() == (b"here", [])
    assert opened() == before
    ours.close()
    theirs.close()


async def test_more_descriptors_than_wanted_break_the_channel_and_stay_nowhere() -> None:
    one, other = packet_pair()
    ours, theirs = Packets(one), Packets(other, takes_descriptors=1)
    before = opened()
    with open("/dev/null") as null:
        assert ours.send_nowait(b"here", [null.fileno()] * 5)
    with pytest.raises(trio.BrokenResourceError):
        theirs.receive_nowait()
    assert opened() == before
    ours.close()
    theirs.close()


async def test_a_message_that_the_kernel_does_not_take_is_left_to_the_sender() -> None:
    ours, theirs = (Packets(sock) for sock in packet_pair())
    sent = 0
    while ours.send_nowait(b"x" * 20000):
        sent += 1
    assert sent
    for _ in range(sent):
        theirs.receive_nowait()
    await ours.wait_writable()
    assert ours.send_nowait(b"x" * 20000)
    ours.close()
    theirs.close()
