"""Publishing to a real Redis: it is at the keeper's books whatever it went through, and never goes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.redis import Redis as RedisServer
from forkast_streams.market_data import redis_publisher
from forkast_streams.market_data.changes import BookChange
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.redis_reader import MarketDataReader
from tests.integration.market_data import Keeper, eventually, rest_at
from tests.support.flows import home_of, order_command, symbol_command
from tests.support.market_events import HOME, NEIGHBOUR, SYMBOL, depth_of, depth_of_engine, two_symbol_flow


@pytest.fixture
async def keeper(stack_env: dict[str, str]) -> AsyncIterator[Keeper]:
    """A keeper on an empty Redis."""
    async with Keeper(stack_env["REDIS_URL"]) as keeper:
        await keeper.redis.flushall()
        yield keeper


async def has_books(keeper: Keeper) -> bool:
    """Whether Redis has depth and tape of both symbols as the keeper has them."""
    for symbol_id, book in keeper.state.books.items():
        tape = [int(entry_id.split(b"-")[0]) for entry_id, _ in await keeper.redis.xrange(f"trades:{symbol_id}")]
        if tape[-1000:] != [trade.sequence for trade in book.tape()]:
            return False
        if await keeper.stored_depth(symbol_id) != depth_of(book):
            return False
    return True


async def why_not_ready(keeper: Keeper) -> str | None:
    """A sentence while Redis does not hold the keeper's books."""
    return keeper.publisher.why_not_ready()


async def test_redis_has_the_engines_books(keeper: Keeper) -> None:
    """After a thousand commands in small batches depth and tape in Redis are those of the engine."""
    commands = two_symbol_flow(1_000)
    for at in range(0, len(commands), 20):
        keeper.feed(commands[at : at + 20])
        await keeper.is_published(SYMBOL)
    for symbol_id in (SYMBOL, NEIGHBOUR):
        await keeper.is_published(symbol_id)
        assert await keeper.stored_depth(symbol_id) == depth_of_engine(keeper.engine, symbol_id)
    assert await has_books(keeper)


async def test_lost_quiet_symbol_is_found_while_another_trades(keeper: Keeper) -> None:
    """Redis is flushed, one symbol changes without end, the other not at all: it is back all the same."""
    keeper.feed([symbol_command(SYMBOL), symbol_command(NEIGHBOUR)])
    await keeper.is_published(SYMBOL)
    await keeper.is_published(NEIGHBOUR)
    await keeper.redis.flushall()
    number = 0

    async def is_back() -> bool:
        nonlocal number
        number += 1
        keeper.feed([order_command(SYMBOL, id=f"00000000-0000-4000-8000-{number:012d}")])
        return bool(await keeper.redis.exists(f"book:{NEIGHBOUR}:meta"))

    await eventually(is_back, "the quiet symbol's book in Redis")


@pytest.mark.parametrize("key", ["meta", "buy", "changes"])
async def test_key_of_another_kind_is_replaced_and_stops_no_other_symbol(keeper: Keeper, key: str) -> None:
    """The symbol is written whole again, and the others go on meanwhile."""
    keeper.feed([symbol_command(SYMBOL), symbol_command(NEIGHBOUR)])
    await keeper.is_published(SYMBOL)
    await keeper.is_published(NEIGHBOUR)
    async with keeper.redis.pipeline() as pipeline:
        pipeline.delete(f"book:{SYMBOL}:{key}")
        pipeline.set(f"book:{SYMBOL}:{key}", "something else")
        await pipeline.execute()
    for number, symbol_id in enumerate((SYMBOL, NEIGHBOUR)):
        keeper.feed([order_command(symbol_id, id=f"00000000-0000-4000-8000-{number:012d}")])
        await keeper.is_published(NEIGHBOUR)
    # A key of another kind is read as an error until then.
    await eventually(lambda: _is_kind(keeper, key), "the key of ours")
    await keeper.is_published(SYMBOL)
    assert await has_books(keeper)
    await eventually(lambda: _is_ready(keeper), "a publisher that is ready")


async def _is_kind(keeper: Keeper, key: str) -> bool:
    return await keeper.redis.type(f"book:{SYMBOL}:{key}") != b"string"


async def _is_ready(keeper: Keeper) -> bool:
    return keeper.publisher.why_not_ready() is None


async def test_replay_changes_nothing(keeper: Keeper, stack_env: dict[str, str]) -> None:
    """A second keeper that starts from the beginning, or a zombie, writes nothing over what is there."""
    commands = two_symbol_flow(200)
    keeper.feed(commands)
    await keeper.is_published(SYMBOL)
    await keeper.is_published(NEIGHBOUR)
    changes = await keeper.redis.xlen(f"book:{SYMBOL}:changes")
    async with Keeper(stack_env["REDIS_URL"]) as zombie:
        for at in range(0, len(commands) - 50, 10):
            zombie.feed(commands[at : at + 10])
            zombie.own()
            await zombie.is_published(SYMBOL)
        await zombie.publisher.stop()
        assert zombie.state.books[SYMBOL].published < keeper.state.books[SYMBOL].published
    assert await keeper.redis.xlen(f"book:{SYMBOL}:changes") == changes
    assert await has_books(keeper)


async def test_change_applies_in_the_middle_of_its_span(keeper: Keeper, stack_env: dict[str, str]) -> None:
    """A restarted keeper cuts its batches elsewhere; its first change is applied without writing the book anew."""
    commands = two_symbol_flow(200)
    keeper.feed(commands[:120])
    await keeper.is_published(SYMBOL)
    async with Keeper(stack_env["REDIS_URL"]) as second:
        second.feed(commands[:100])
        second.feed(commands[100:])
        await second.is_published(SYMBOL)
        assert await has_books(second)
    entries = await keeper.redis.xrange(f"book:{SYMBOL}:changes")
    assert sum(b"reset" in fields for _, fields in entries) == 1


async def test_new_log_replaces_the_old_one(keeper: Keeper, stack_env: dict[str, str]) -> None:
    """Books of a Kafka that was thrown away do not stay, although their sequences are higher."""
    keeper.feed(two_symbol_flow(200))
    await keeper.is_published(SYMBOL)
    async with Keeper(stack_env["REDIS_URL"]) as later:
        # The clock of the log has gone on.
        later.engine.clock = keeper.engine.clock + 1
        later.feed([symbol_command(SYMBOL), order_command(SYMBOL)])

        async def is_replaced() -> bool:
            return await later.stored_depth(SYMBOL) == {"BUY": {"100.00": ("10", 1)}, "SELL": {}}

        await eventually(is_replaced, "the new log's book in Redis")


async def test_flushed_redis_is_repaired_without_a_new_event(keeper: Keeper) -> None:
    """FLUSHALL, and SCRIPT FLUSH with it, are made good while nothing is traded."""
    keeper.feed(two_symbol_flow(300))
    await eventually(lambda: has_books(keeper), "books in Redis")
    await keeper.redis.flushall()
    await keeper.redis.script_flush()
    await eventually(lambda: has_books(keeper), "books back in Redis", within_s=2)


async def test_lost_tail_is_repaired(keeper: Keeper) -> None:
    """A Redis that has come back without its last second is behind, and is brought forward."""
    keeper.feed(two_symbol_flow(300))
    await eventually(lambda: has_books(keeper), "books in Redis")
    await keeper.redis.hset(f"book:{SYMBOL}:meta", "sequence", 5)
    await keeper.redis.delete(f"book:{SYMBOL}:buy")
    await eventually(lambda: has_books(keeper), "books back in Redis", within_s=2)


async def test_redis_away_stops_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """While Redis is down the keeper goes on and says why it is not ready; after an empty start Redis has all."""
    server = RedisServer(tmp_path, free_ports(1)[0])
    commands = two_symbol_flow(600)
    async with Keeper(f"redis://127.0.0.1:{server.port}") as keeper:
        keeper.feed(commands[:100])

        assert "Redis is out of reach" in str(await eventually(lambda: why_not_ready(keeper), "a reason"))
        server.start()
        try:
            await eventually(lambda: has_books(keeper), "books in Redis")
            server.stop()
            for at in range(100, 600, 10):
                keeper.feed(commands[at : at + 10])
            await eventually(lambda: why_not_ready(keeper), "a reason")
            server.start()
            await eventually(lambda: has_books(keeper), "books in Redis")
            assert keeper.publisher.why_not_ready() is None
        finally:
            await keeper.publisher.stop()
            server.stop()


async def test_ready_while_a_change_is_on_its_way(keeper: Keeper) -> None:
    """A round trip is no reason to be taken out of service."""
    keeper.feed([symbol_command(SYMBOL)])
    await keeper.is_published(SYMBOL)
    await keeper.redis.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        keeper.feed([order_command(SYMBOL)])

        async def is_on_its_way() -> bool:
            return not keeper.publisher._changes

        await eventually(is_on_its_way, "the round trip")
        assert keeper.publisher.why_not_ready() is None
    finally:
        await keeper.redis.execute_command("CLIENT", "UNPAUSE")
    await keeper.is_published(SYMBOL)


async def test_a_slow_write_is_waited_for(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    """Longer than a read would: a Redis that is busy is not given up, with all its books to be written again."""
    keeper.feed([symbol_command(SYMBOL)])
    await keeper.is_published(SYMBOL)
    await keeper.redis.execute_command("CLIENT", "PAUSE", 3_000, "WRITE")
    keeper.feed([order_command(SYMBOL)])
    await keeper.is_published(SYMBOL)
    assert not caplog.records


async def test_stop_does_not_wait_for_a_redis_that_hangs(tmp_path: Path) -> None:
    """The time of the whole process's stop is short, and the next start brings what Redis lacks."""
    server = RedisServer(tmp_path, free_ports(1)[0])
    server.start()
    try:
        async with Keeper(f"redis://127.0.0.1:{server.port}") as keeper:
            keeper.feed([symbol_command(SYMBOL)])
            await keeper.is_published(SYMBOL)
            await keeper.redis.execute_command("CLIENT", "PAUSE", 60_000, "ALL")
            keeper.feed([order_command(SYMBOL)])
            async with asyncio.timeout(3):
                await keeper.publisher.stop()
    finally:
        server.stop()


async def test_changes_that_wait_for_redis_do_not_grow_above_the_book(tmp_path: Path) -> None:
    """Orders come and go at ever other prices while Redis is away: what is kept is to write the book anew."""
    server = RedisServer(tmp_path, free_ports(1)[0])
    async with Keeper(f"redis://127.0.0.1:{server.port}") as keeper:
        keeper.feed([symbol_command(SYMBOL)])

        await eventually(lambda: why_not_ready(keeper), "Redis being away")
        for number in range(1, 3_001):
            order_id = f"00000000-0000-4000-8000-{number:012d}"
            keeper.feed([order_command(SYMBOL, id=order_id, price=f"{number}")])
            if number > 10:
                keeper.feed([{"command": "CANCEL", "symbolId": SYMBOL, "orderId": order_id, "userId": 1}])
            waiting = keeper.publisher._changes.get(SYMBOL)
            assert waiting is None or len(waiting.buy) < 1_100
        server.start()
        try:
            await eventually(lambda: has_books(keeper), "books in Redis")
            await keeper.is_published(SYMBOL)
        finally:
            await keeper.publisher.stop()
            server.stop()


async def test_keeper_of_an_older_log_says_so(keeper: Keeper, stack_env: dict[str, str]) -> None:
    """It writes nothing over a newer one, and is not taken for one whose books are served, until Redis is flushed."""
    keeper.engine.clock = 1_800_000_000_000
    keeper.feed([symbol_command(SYMBOL)])
    await keeper.is_published(SYMBOL)
    async with Keeper(stack_env["REDIS_URL"]) as older:
        older.feed([symbol_command(SYMBOL), order_command(SYMBOL)])

        assert "flush this one" in str(await eventually(lambda: why_not_ready(older), "a reason"))
        assert await keeper.stored_depth(SYMBOL) == {"BUY": {}, "SELL": {}}
        keeper.publisher.own({}, 1)
        await keeper.redis.flushall()

        async def is_ready() -> bool:
            return older.publisher.why_not_ready() is None and bool(await keeper.redis.exists(f"book:{SYMBOL}:meta"))

        await eventually(is_ready, "the older log's book in Redis")


async def test_books_of_a_log_that_lost_its_end_are_written_anew(keeper: Keeper, stack_env: dict[str, str]) -> None:
    """Redis is ahead, with levels that the log does not have any more; readers see another log."""
    keeper.feed([symbol_command(SYMBOL), *(rest_at(f"{10 + number}.00", number) for number in range(30))])
    await keeper.is_published(SYMBOL)
    reader = MarketDataReader(keeper.redis)
    before = await reader.position(SYMBOL)
    async with Keeper(stack_env["REDIS_URL"]) as later:
        later.feed([symbol_command(SYMBOL), *(rest_at(f"{10 + number}.00", number) for number in range(10))])

        async def is_ahead() -> bool:
            return later.publisher.ahead() == {SYMBOL}

        await eventually(is_ahead, "seeing that Redis is ahead")
        later.publisher.write_anew([SYMBOL])
        await eventually(lambda: has_books(later), "the shorter log's book in Redis")
        assert not later.publisher.ahead()
        later.feed([rest_at(f"{500 + number}.00", 100 + number) for number in range(40)])
        await later.is_published(SYMBOL)
        assert await has_books(later)
        after = await reader.position(SYMBOL)
        assert before is not None
        assert after is not None
        assert after.sequence > before.sequence
        assert not after.continues(before)
        assert await reader.changes_since(SYMBOL, before) is None


async def test_kept_changes_are_bounded_in_bytes(keeper: Keeper) -> None:
    """Of changes of a megabyte there are sixteen."""
    keeper.feed([symbol_command(SYMBOL)])
    await keeper.is_published(SYMBOL)
    book = keeper.state.books[SYMBOL]
    for number in range(1, 41):
        levels = {f"{price}": (f"{number}", 1) for price in range(1_000_000, 1_023_000)}
        last = book.published
        book.published = book.sequence = last + 1
        change = BookChange(SYMBOL, book.born, last, last + 1, book.timestamp, levels, {}, [])
        keeper.publisher.publish([change], keeper.state.books)
        await keeper.is_published(SYMBOL)
    entries = await keeper.redis.xrange(f"book:{SYMBOL}:changes")
    assert 10 <= len(entries) <= 17
    assert len(entries[-1][1][b"json"]) > 1_000_000


async def test_publisher_that_stops_sends_what_is_left(stack_env: dict[str, str]) -> None:
    """The last changes are in Redis when the worker has stopped."""
    async with Keeper(stack_env["REDIS_URL"]) as keeper:
        await keeper.redis.flushall()
        keeper.feed(two_symbol_flow(300))
        await keeper.publisher.stop()
        assert await has_books(keeper)


def test_publisher_can_be_made_without_redis() -> None:
    """Nothing is connected before it is needed, so that a worker starts while Redis is away."""
    assert RedisPublisher("redis://127.0.0.1:1", LocalFeed()).why_not_ready() is None


async def test_every_book_is_looked_at_twice_a_second(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many go into one look."""
    monkeypatch.setattr(redis_publisher, "PROBED_SYMBOLS_MAX", 5)
    symbols = [symbol_id for symbol_id in range(1, 2_000) if home_of(symbol_id) == HOME][:50]
    keeper.feed([symbol_command(symbol_id) for symbol_id in symbols])

    async def are_back() -> bool:
        return await keeper.redis.exists(*(f"book:{symbol_id}:meta" for symbol_id in symbols)) == len(symbols)

    await eventually(are_back, "all books in Redis")
    await keeper.redis.flushall()
    await eventually(are_back, "all books back in Redis", within_s=2)


@pytest.mark.parametrize("side", ["buy", "sell"])
async def test_a_side_that_is_lost_alone_is_written_back(keeper: Keeper, side: str) -> None:
    """Redis was told to throw away what it takes for old, and the rest of the book is where it should be."""
    keeper.feed(two_symbol_flow(300))
    await eventually(lambda: has_books(keeper), "books in Redis")
    assert await keeper.redis.delete(f"book:{SYMBOL}:{side}") == 1
    await eventually(lambda: has_books(keeper), "books back in Redis", within_s=2)


async def test_a_redis_that_throws_away_is_told_of(keeper: Keeper, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever else it throws away, nobody sees."""
    before = await keeper.redis.config_get("maxmemory*")
    try:
        for policy in ("volatile-ttl", "noeviction", "allkeys-lru", "allkeys-lru"):
            assert not caplog.records or policy == "allkeys-lru"
            await keeper.redis.config_set("maxmemory", "512mb")
            await keeper.redis.config_set("maxmemory-policy", policy)
            await keeper.publisher._tell_of_eviction()
    finally:
        for name in ("maxmemory", "maxmemory-policy"):
            await keeper.redis.config_set(name, before[name])
    (record,) = caplog.records
    assert "allkeys-lru" in record.getMessage()
