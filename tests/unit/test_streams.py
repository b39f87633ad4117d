"""What a stream sends to its client, and what it does not keep."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from forkast_streams.limits import STREAM_BYTES_WAITING_MAX
from forkast_streams.market_data.hub import Subscription, Update
from forkast_streams.market_data.stored_book import Position
from web import streams
from web.streams import OrderBookStream


class Client:
    """A client that takes everything."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, frames: list[bytes]) -> None:
        """Take ``frames``."""
        self.sent += frames

    async def may_go_on(self) -> bool:
        """Always."""
        return True


def _change(sequence: int, previous: int | None, *, born: int = 1) -> Update:
    return Update(Position(born, sequence), previous, b"%d" % sequence)


class Stream:
    """The pump of a client that has the book at sequence 10 of log 1."""

    def __init__(self) -> None:
        self.client = Client()
        self.subscription = Subscription(7, 100, lambda: None)
        self.frames = [b"snapshot"]
        stream = OrderBookStream(cast("Any", None), cast("Any", None), cast("Any", None), heartbeat_s=60)
        pump = stream._pump(cast("Any", self.client), Position(1, 10), self.frames, self.subscription)
        self.task = asyncio.create_task(pump)

    async def settle(self) -> None:
        """Let it send what it can."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    """A stream that has sent what it begins with."""
    stream = Stream()
    await stream.settle()
    yield stream
    stream.subscription.close()
    await asyncio.wait_for(stream.task, 10)


async def test_a_quiet_stream_keeps_nothing_of_what_it_has_sent(stream: Stream) -> None:
    """Snapshots of long books are megabytes, and a stream may stay open for a day."""
    assert stream.client.sent == [b"snapshot"]
    assert stream.frames == []
    frame = b"another snapshot"
    stream.subscription.put(Update(Position(2, 3), None, frame))
    await stream.settle()
    assert stream.client.sent == [b"snapshot", frame]
    stream.client.sent.clear()
    # The test's code, its variable and the argument of this call.
    assert sys.getrefcount(frame) == 3


async def test_changes_that_the_snapshot_has_are_not_sent(stream: Stream) -> None:
    """One that begins before it and ends behind it is; nor is a book that is not newer."""
    for update in (_change(9, None), _change(9, 8), _change(10, 9), _change(12, 9), _change(13, 12)):
        stream.subscription.put(update)
    await stream.settle()
    assert stream.client.sent == [b"snapshot", b"12", b"13"]
    assert not stream.task.done()


@pytest.mark.parametrize("update", [_change(12, 11), _change(12, 9, born=2), _change(5, 4, born=2)])
async def test_a_stream_ends_where_the_changes_do_not_go_on(stream: Stream, update: Update) -> None:
    """A hole, or a change of another log: the client comes back for a book it can follow."""
    stream.subscription.put(update)
    await asyncio.wait_for(stream.task, 10)
    assert stream.client.sent == [b"snapshot"]


async def test_a_whole_book_replaces_what_waits(stream: Stream) -> None:
    """And is followed by the changes of its own log."""
    stream.subscription.put(_change(11, 10))
    stream.subscription.put(_change(3, None, born=2))
    stream.subscription.put(_change(4, 3, born=2))
    await stream.settle()
    assert stream.client.sent == [b"snapshot", b"3", b"4"]


def test_pieces_are_short_and_copy_no_long_frame() -> None:
    """Short frames go together; a long one is cut into views of itself."""
    most = streams._PIECE_BYTES
    frames = [b"a", b"b" * 10, b"c" * (3 * most + 5), b"d" * most, b"e", b"f" * (most - 1), b"g" * 2]
    pieces = list(streams._pieces(frames))
    assert b"".join(pieces) == b"".join(sorted(frames, key=lambda frame: frame[0]))
    assert all(0 < len(piece) <= most for piece in pieces)
    assert all(piece.obj is frames[2] for piece in pieces if isinstance(piece, memoryview))
    assert len(pieces) == 8
    assert list(streams._pieces([])) == []


async def test_a_client_is_cut_when_too_many_bytes_of_changes_wait() -> None:
    """However few they are; a snapshot, which all share, is none of them."""
    cuts: list[str] = []
    subscription = Subscription(7, 1_000, lambda: cuts.append("cut"))
    half = b"x" * (STREAM_BYTES_WAITING_MAX // 2)
    for born in (1, 2):
        subscription.put(Update(Position(born, 1), None, half * 3))
        subscription.put(Update(Position(born, 2), 1, half))
        subscription.put(Update(Position(born, 3), 2, half))
    assert len(await subscription.take(10) or ()) == 3
    subscription.put(Update(Position(2, 4), 3, half))
    subscription.put(Update(Position(2, 5), 4, half))
    assert not cuts
    subscription.put(Update(Position(2, 6), 5, b"x"))
    assert cuts == ["cut"]
    assert await subscription.take(10) is None
