"""Small writes wait for the end of the loop's turn, and nothing overtakes them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from coalmine_sidecar.relay.outbox import QUIET, Outbox


@pytest.fixture
async def wire():
    """A transport, and the other end of it."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    yield transport, theirs
    transport.abort()
    theirs.close()
    await asyncio.sleep(0)


def received(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(1000)
    except BlockingIOError:
        return b""


async def test_messages_of_a_turn_go_at_its_end_in_order(wire):
    transport, theirs = wire
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(transport, b"a")
    outbox.write(transport, b"b")
    assert received(theirs) == b""
    await asyncio.sleep(0)
    assert received(theirs) == b"ab"
    await asyncio.sleep(0)
    assert received(theirs) == b""


async def test_who_flushes_first_writes_after_them(wire):
    transport, theirs = wire
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(transport, b"a")
    outbox.flush()
    transport.write(b"b")
    outbox.write(transport, b"c")
    await asyncio.sleep(0)
    assert received(theirs) == b"abc"


async def test_what_was_closed_meanwhile_gets_nothing_and_harms_nobody(wire):
    transport, theirs = wire
    gone, other_end = socket.socketpair()
    closed, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=gone)
    outbox = Outbox(asyncio.get_running_loop())
    outbox.write(closed, b"x")
    outbox.write(transport, b"a")
    closed.abort()
    await asyncio.sleep(0)
    assert received(theirs) == b"a"
    other_end.close()


async def test_what_comes_after_sees_the_messages_sent(wire):
    transport, theirs = wire
    outbox = Outbox(asyncio.get_running_loop())
    seen: list[bytes] = []
    outbox.after(lambda: seen.append(received(theirs)))
    outbox.write(transport, b"a")
    await asyncio.sleep(0)
    assert seen == [b"a"]


async def test_after_many_turns_with_one_message_each_it_does_not_wait(wire):
    transport, theirs = wire
    outbox = Outbox(asyncio.get_running_loop())
    for _ in range(QUIET):
        outbox.write(transport, b"a")
        assert received(theirs) == b""
        await asyncio.sleep(0)
        assert received(theirs) == b"a"
    outbox.write(transport, b"b")
    outbox.write(transport, b"c")
    await asyncio.sleep(0)
    assert received(theirs) == b"bc"
    # Two in a turn: from now on they are sent together again.
    outbox.write(transport, b"d")
    assert received(theirs) == b""
    await asyncio.sleep(0)
    assert received(theirs) == b"d"
