"""What a process publishes reaches its own followers in order, and one that does not take it finds a hole."""

from __future__ import annotations

import asyncio

from forkast_streams.market_data import feed as feed_module
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.stored_book import Position, StoredChange


def _change(sequence: int) -> StoredChange:
    return StoredChange(1, sequence, sequence - 1, b"{}")


async def test_a_follower_gets_what_is_published_after_it_came() -> None:
    """All that waits at once, oldest first, and of its symbol only."""
    feed = LocalFeed()
    feed.publish(7, _change(1))
    follower = feed.follow(7)
    feed.publish(7, _change(2))
    feed.publish(8, _change(9))
    feed.publish(7, _change(3))
    assert await follower.take(10) == [_change(2), _change(3)]
    feed.leave(follower)
    feed.publish(7, _change(4))
    assert await follower.take(0.001) == []


async def test_a_wait_ends_with_a_change_and_when_the_symbol_goes() -> None:
    """Long before its time is over."""
    feed = LocalFeed()
    follower = feed.follow(7)
    for end in (lambda: feed.publish(7, _change(1)), lambda: feed.own([])):
        waiting = asyncio.create_task(follower.take(600))
        await asyncio.sleep(0)
        assert not waiting.done()
        end()
        assert await asyncio.wait_for(waiting, 5) in ([_change(1)], [])
    assert not feed.publishes(7)


async def test_of_too_many_changes_the_last_one_is_left() -> None:
    """It does not go on from what the follower has, who reads the whole book then."""
    feed = LocalFeed()
    follower = feed.follow(7)
    for sequence in range(1, feed_module._WAITING_MAX + 2):
        feed.publish(7, _change(sequence))
    (left,) = await follower.take(10)
    assert left == _change(feed_module._WAITING_MAX + 1)
    assert not left.continues(Position(1, 0))


async def test_of_too_many_bytes_the_last_change_is_left() -> None:
    """A change of a large book may be a megabyte."""
    feed = LocalFeed()
    follower = feed.follow(7)
    json = b"x" * (feed_module._WAITING_BYTES_MAX // 4)
    for sequence in range(1, 5):
        feed.publish(7, StoredChange(1, sequence, sequence - 1, json))
    assert len(await follower.take(10)) == 4
    for sequence in range(5, 10):
        feed.publish(7, StoredChange(1, sequence, sequence - 1, json))
    (left,) = await follower.take(10)
    assert left.sequence == 9
