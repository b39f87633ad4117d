"""How fast market data is folded and published: ``python -m benchmarks.keeper [REDIS_URL]``; empties that Redis."""

from __future__ import annotations

import asyncio
import gc
import sys
import time

from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.storage.redis import connect
from tests.unit.market_events import HOME, EventRecord, engine_with, two_symbol_flow

COMMANDS = 100_000
# About what one fetch carries.
BATCH = 150


def fold(records: list[EventRecord]) -> float:
    """Events a second, with batches and checkpoints as in a worker."""
    state = MarketDataState(HOME)
    started = time.perf_counter()
    for at in range(0, len(records), BATCH):
        state.apply(records[at : at + BATCH])
        if at % (BATCH * 100) == 0:
            state.take_changes()
    return len(records) / (time.perf_counter() - started)


async def fold_and_publish(records: list[EventRecord], redis_url: str) -> tuple[float, int]:
    """Events a second until Redis has the last of them, and the changes they were merged to. Empties Redis."""
    redis = connect(redis_url)
    await redis.flushall()
    state = MarketDataState(HOME)
    async with RedisPublisher(connect(redis_url)) as publisher:
        started = time.perf_counter()
        for at in range(0, len(records), BATCH):
            publisher.publish(state.apply(records[at : at + BATCH]), state.books)
            await asyncio.sleep(0)
        for book in state.books.values():
            while int(await redis.hget(f"book:{book.id}:meta", "sequence") or 0) < book.published:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.001)
        seconds = time.perf_counter() - started
    changes = sum([await redis.xlen(f"book:{symbol_id}:changes") for symbol_id in state.books])
    await redis.aclose()
    return len(records) / seconds, changes


async def publish_latencies(records: list[EventRecord], redis_url: str) -> list[float]:
    """Seconds from one event to its change in the stream, one event at a time."""
    redis = connect(redis_url)
    await redis.flushall()
    state = MarketDataState(HOME)
    latencies = []
    async with RedisPublisher(connect(redis_url)) as publisher:
        for at, record in enumerate(records):
            changes = state.apply([record])
            publisher.publish(changes, state.books)
            if changes and at > 10:
                key = f"book:{changes[0].symbol_id}:changes"
                started = time.perf_counter()
                await redis.xread({key: f"{changes[0].sequence - 1}-0"}, block=1_000)
                latencies.append(time.perf_counter() - started)
    await redis.aclose()
    return sorted(latencies)


def main() -> None:
    """Run the benchmarks that the arguments allow."""
    # As in a worker.
    gc.set_threshold(100_000, 50, 100)
    records = engine_with(two_symbol_flow(COMMANDS))[1]
    print(f"fold: {fold(records):,.0f} events/s ({len(records):,} events)")
    for redis_url in sys.argv[1:]:
        rate, changes = asyncio.run(fold_and_publish(records, redis_url))
        print(f"fold and publish: {rate:,.0f} events/s, merged to at least {changes:,} changes")
        latencies = asyncio.run(publish_latencies(records[:2_000], redis_url))
        p50, p99 = (1_000 * latencies[len(latencies) * percent // 100] for percent in (50, 99))
        print(f"one event to its change in Redis: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


if __name__ == "__main__":
    main()
