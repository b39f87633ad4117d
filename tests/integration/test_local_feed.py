"""A stream goes on without a hole when its symbol is published by this process, by another, and by this one again."""

from __future__ import annotations

import pytest

from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.redis_reader import MarketDataReader
from tests.integration.market_data import Exchange, Keeper, rest_at, sides
from tests.support.flows import symbol_command
from tests.support.market_events import SYMBOL


@pytest.fixture
def feed() -> LocalFeed:
    """Of the process with the streams."""
    return LocalFeed()


class _RedisIsNotAskedError(Exception):
    """What was to come from this process was looked for in Redis."""


async def test_what_this_process_publishes_does_not_come_from_redis(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change comes, though nobody reads the stream in Redis."""
    await exchange.feed([symbol_command(SYMBOL), rest_at("9.50", 1)])

    async def wait_for_changes(*_: object) -> None:
        raise _RedisIsNotAskedError

    monkeypatch.setattr(MarketDataReader, "wait_for_changes", wait_for_changes)
    follower = await exchange.follow()
    await follower.next()
    for number in range(2, 20):
        await exchange.feed([rest_at(f"9.{number + 50}", number)])
        assert (await follower.next())["type"] == "change"
    assert follower.book() == sides(await exchange.get(f"/order-book/{SYMBOL}"))


async def test_a_symbol_that_goes_to_another_keeper_and_comes_back(
    exchange: Exchange, feed: LocalFeed, stack_env: dict[str, str]
) -> None:
    """Its client sees changes only, each of them once, and no new snapshot."""
    await exchange.feed([symbol_command(SYMBOL), rest_at("9.50", 1)])
    follower = await exchange.follow()
    assert (await follower.next())["type"] == "snapshot"
    await exchange.feed([rest_at("9.51", 2)])
    await follower.until(exchange.keeper.state.books[SYMBOL].published)

    # The other keeper has the books that this one had.
    here, exchange.keeper.publisher._books = exchange.keeper.publisher, {}
    here.own({}, 1)
    async with Keeper(stack_env["REDIS_URL"]) as elsewhere:
        elsewhere.engine, elsewhere.state = exchange.keeper.engine, exchange.keeper.state
        elsewhere._events = exchange.keeper._events
        for number in range(3, 10):
            elsewhere.feed([rest_at(f"9.{number + 50}", number)])
            await elsewhere.is_published(SYMBOL)
        await follower.until(elsewhere.state.books[SYMBOL].published)
        exchange.keeper._events = elsewhere._events
    assert not feed.publishes(SYMBOL)

    exchange.keeper.own()
    assert feed.publishes(SYMBOL)
    for number in range(10, 20):
        await exchange.feed([rest_at(f"9.{number + 50}", number)])
    await follower.until(exchange.keeper.state.books[SYMBOL].published)
    assert set(follower.kinds[1:]) == {"change"}
    assert follower.book() == sides(await exchange.get(f"/order-book/{SYMBOL}"))
