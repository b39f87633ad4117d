"""What a client that comes back is sent of what it has missed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from forkast_streams.market_data import redis_reader
from forkast_streams.market_data.keys import SymbolKeys
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.market_data.stored_book import Position
from forkast_streams.storage.redis import RedisClient, connect

SYMBOL = 9_701
BORN = 5


@pytest.fixture
async def redis(stack_env: dict[str, str]) -> AsyncIterator[RedisClient]:
    """An empty Redis."""
    client = connect(stack_env["REDIS_URL"])
    await client.flushall()
    yield client
    await client.aclose()


async def fill(redis: RedisClient, count: int, size: int) -> None:
    """Write so many changes of so many bytes, behind the book at sequence 1."""
    keys = SymbolKeys.of(SYMBOL)
    await redis.hset(keys.meta, mapping={"born": BORN, "sequence": count + 1, "timestamp": 1})
    for sequence in range(2, count + 2):
        change = {"born": BORN, "previous": sequence - 1, "json": b"x" * size}
        await redis.xadd(keys.changes, change, id=f"{sequence}-0")


async def test_short_changes_are_all_sent_however_many(redis: RedisClient) -> None:
    """In the order in which they came, each once."""
    count = 2 * redis_reader._MISSED_AT_ONCE
    await fill(redis, count, 100)
    reader = MarketDataReader(redis)
    for reached in (1, 2, count // 2 + 1, count, count + 1):
        missed = await reader.changes_since(SYMBOL, Position(BORN, reached))
        assert missed is not None
        assert [change.sequence for change in missed] == list(range(reached + 1, count + 2))


async def test_of_more_than_the_bound_the_book_is_sent(redis: RedisClient) -> None:
    """That is one for all clients, where what each has missed is its own."""
    size = 8 * 1024
    fitting = redis_reader._MISSED_BYTES_MAX // size
    await fill(redis, 2 * fitting, size)
    reader = MarketDataReader(redis)
    assert await reader.changes_since(SYMBOL, Position(BORN, fitting)) is None
    assert len(await reader.changes_since(SYMBOL, Position(BORN, fitting + 1)) or ()) == fitting
