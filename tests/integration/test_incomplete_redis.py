"""A symbol that Redis does not have is unknown only when Redis has all books."""

from __future__ import annotations

import pytest

from forkast_streams.errors import Unavailable
from forkast_streams.market_data.keys import COMPLETE
from forkast_streams.market_data.redis_reader import MarketDataReader
from tests.integration.market_data import Keeper, eventually, rest_at
from tests.support.flows import symbol_command
from tests.support.market_events import HOME, NEIGHBOUR, SYMBOL

UNKNOWN = 12_345


async def test_a_symbol_is_never_unknown_while_books_are_written_back(stack_env: dict[str, str]) -> None:
    """Another one of the partition is back at once, as it trades; this one is waited for."""
    async with Keeper(stack_env["REDIS_URL"]) as keeper:
        await keeper.redis.flushall()
        reader = MarketDataReader(keeper.redis)
        keeper.feed([symbol_command(SYMBOL), symbol_command(NEIGHBOUR)])
        await keeper.is_complete()
        assert await reader.book(UNKNOWN) is None
        for number in range(5):
            await keeper.redis.flushall()
            keeper.feed([rest_at(f"{10 + number}.00", number)])
            refused = 0

            async def is_back() -> bool:
                nonlocal refused
                try:
                    assert await reader.trades(NEIGHBOUR, 1) == []
                except Unavailable:
                    refused += 1
                    return False
                return True

            await eventually(is_back, "the quiet symbol")
            assert refused
        await keeper.is_complete()
        assert await reader.book(UNKNOWN) is None


async def test_a_symbol_is_unknown_only_if_all_partitions_are_complete(stack_env: dict[str, str]) -> None:
    """One whose log is not read to its end may have it, or one that no keeper has."""
    async with Keeper(stack_env["REDIS_URL"]) as keeper:
        reader = MarketDataReader(keeper.redis)
        await keeper.redis.flushall()
        keeper.publisher.own({HOME: keeper.state.books, HOME + 1: {}}, 3)
        keeper.publisher.caught_up(HOME)

        async def is_marked() -> bool:
            return bool(await keeper.redis.hget(COMPLETE, str(HOME)) == b"3")

        await eventually(is_marked, "a mark")
        with pytest.raises(Unavailable):
            await reader.book(UNKNOWN)
        keeper.publisher.caught_up(HOME + 1)
        await eventually(lambda: keeper.redis.hget(COMPLETE, str(HOME + 1)), "another mark")
        with pytest.raises(Unavailable):
            await reader.trades(UNKNOWN, 1)
        await keeper.redis.hset(COMPLETE, str(HOME + 2), 3)

        async def is_unknown() -> bool:
            try:
                return await reader.book(UNKNOWN) is None
            except Unavailable:
                return False

        await eventually(is_unknown, "all marks")
