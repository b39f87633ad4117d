"""Streams that open at the same time, while Redis hangs, and while the process stops."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from forkast_streams.errors import Unavailable
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.hub import Hubs
from forkast_streams.market_data.stored_book import Position, StoredChange


class Reader:
    """A Redis that hangs until it is let go.

    Attributes:
        asked: the symbols whose positions were asked for.
    """

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.away = False
        self.asked: list[int] = []

    async def position(self, symbol_id: int) -> Position | None:
        """Where the symbol is; those above 100 are unknown."""
        self.asked.append(symbol_id)
        await self.answers.wait()
        if self.away:
            raise Unavailable("Redis does not answer")
        return Position(1, 1) if symbol_id <= 100 else None

    async def wait_for_changes(self, _symbol_id: int, _sequence: int) -> list[StoredChange]:
        """None ever comes."""
        await asyncio.Event().wait()
        return []


class World:
    """Hubs on that Redis."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.feed = LocalFeed()
        self.hubs = Hubs(cast("Any", self.reader), self.feed, size_max=10)

    async def opening(self, *symbol_ids: int) -> list[asyncio.Task[Any]]:
        """Streams that wait for Redis."""
        tasks = [asyncio.create_task(self.hubs.subscribe(symbol_id, lambda: None)) for symbol_id in symbol_ids]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks

    @property
    def is_left(self) -> bool:
        """Whether nothing is kept of anybody."""
        hubs = self.hubs
        return not (hubs.followed or hubs._opening or hubs._subscribing or self.feed._followers)


async def test_streams_wait_for_redis_together() -> None:
    """Those of one symbol for the same answer, and none for that of another symbol."""
    world = World()
    tasks = await world.opening(1, 2, 3, 1, 1, 101)
    assert world.reader.asked == [1, 2, 3, 101]
    world.reader.answers.set()
    subscriptions = await asyncio.gather(*tasks)
    assert world.hubs.followed == {1: 3, 2: 1, 3: 1}
    assert subscriptions.pop() is None
    for subscription in subscriptions:
        world.hubs.unsubscribe(subscription)
    assert world.is_left


async def test_all_are_told_that_redis_does_not_answer() -> None:
    """At once, and nothing is left of them."""
    world = World()
    tasks = await world.opening(1, 2, 1)
    world.reader.away = True
    world.reader.answers.set()
    for task in tasks:
        with pytest.raises(Unavailable):
            await task
    assert world.is_left


async def test_a_stream_that_opens_while_the_process_stops_is_refused() -> None:
    """What opened behind the close would be followed for ever."""
    world = World()
    tasks = await world.opening(1, 1)
    closing = asyncio.create_task(world.hubs.close())
    await asyncio.sleep(0)
    world.reader.answers.set()
    await closing
    for task in tasks:
        with pytest.raises(Unavailable):
            await task
    assert world.is_left


@pytest.mark.parametrize("answers_first", [False, True])
async def test_nothing_is_followed_for_clients_that_went_before_it_was_open(*, answers_first: bool) -> None:
    """Whether Redis answers before they go or behind that."""
    world = World()
    tasks = await world.opening(1, 1)
    if answers_first:
        world.reader.answers.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    world.reader.answers.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert world.is_left
