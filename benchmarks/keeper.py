"""How fast market data is kept and published: the keeper worker behind a backlog, and its parts without Kafka."""

from __future__ import annotations

import asyncio
import time

from benchmarks.flows import event_records
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.passages import Passage, forget, watch
from benchmarks.servers import Servers, send, servers, worker
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.storage.redis import connect
from forkast_streams.topics import KEEPER_CHANGELOG, ORDERS_EXCHANGE
from tests.integration.exchange import Worker
from tests.support.market_events import HOME, EventRecord, engine_with, two_symbol_flow

_EVENTS = 1_000_000
_COMMANDS_IN_MEMORY = 100_000
_LATENCIES = 2_000
# About what one fetch carries.
_BATCH = 150
_UNIT = "events/s"


@benchmark(
    "keeper",
    "How many events a second does the keeper turn into published market data?",
    [Goal("worker: events to Redis", ">=", 60_000)],
)
def keeper(run: Run) -> None:
    """The worker over a backlog; then folding, publishing and the delay of one event without Kafka."""
    with servers(run) as at:
        count = run.scaled(_EVENTS)
        with run.step(f"Making {count:,} events"):
            asyncio.run(send(at, ORDERS_EXCHANGE, event_records(count)))
        for _ in run.rounds(3):
            _pass(run, at, count)
        records = engine_with(two_symbol_flow(run.scaled(_COMMANDS_IN_MEMORY)))[1]
        url = at.env["REDIS_URL"]
        for _ in run.rounds(3):
            with run.step("Folding and publishing without Kafka"):
                run.record("fold alone", _fold_speed(records), _UNIT)
                run.record("fold and publish", asyncio.run(_publish_speed(records, url)), _UNIT)
                latencies = asyncio.run(_publish_latencies(records[:_LATENCIES], url))
            for percent in (50, 99):
                value = latencies[len(latencies) * percent // 100]
                run.record(f"one event to its change in Redis, {percent} %", 1_000 * value, "ms")
    run.note(f"{count:,} events of the mixed commands in ten partitions; while Redis is busy, changes are merged.")


def _pass(run: Run, at: Servers, count: int) -> None:
    asyncio.run(_flush(at))
    with worker(at, "keeper") as one:
        one.start()
        found = asyncio.run(_watch_books(run, at, one, count))
        one.terminate()
    one.lose_disk()
    asyncio.run(forget(at, [KEEPER_CHANGELOG]))
    run.record("worker: events to Redis", found.outputs / found.seconds, _UNIT)
    run.record("worker: CPU", found.cpu_s / found.outputs * 1e6, "µs/event")


async def _flush(at: Servers) -> None:
    redis = connect(at.env["REDIS_URL"])
    await redis.flushall()
    await redis.aclose()


async def _watch_books(run: Run, at: Servers, one: Worker, count: int) -> Passage:
    """Count the events that the published books have in them, by their sequences."""
    redis = connect(at.env["REDIS_URL"])

    async def published() -> int:
        keys = [key async for key in redis.scan_iter("book:*:meta")]
        return sum([int(await redis.hget(key, "sequence") or 0) for key in keys])

    found = await watch(run, published, [one], what="books", expected=count)
    await redis.aclose()
    # The last events of a symbol may change nothing that is published.
    assert found.outputs > count * 0.99, f"{found.outputs:,} of {count:,} events were published"
    return found


def _fold_speed(records: list[EventRecord]) -> float:
    """With batches and checkpoints as in a worker."""
    state = MarketDataState(HOME)
    started = time.process_time()
    for at in range(0, len(records), _BATCH):
        state.apply(records[at : at + _BATCH])
        if at % (_BATCH * 100) == 0:
            state.drain_changes()
    return len(records) / (time.process_time() - started)


async def _publish_speed(records: list[EventRecord], url: str) -> float:
    """Until Redis has the last change. Empties Redis."""
    redis = connect(url)
    await redis.flushall()
    state = MarketDataState(HOME)
    async with RedisPublisher(url, LocalFeed()) as publisher:
        started = time.perf_counter()
        for at in range(0, len(records), _BATCH):
            publisher.publish(state.apply(records[at : at + _BATCH]), state.books)
            await asyncio.sleep(0)
        for book in state.books.values():
            while int(await redis.hget(f"book:{book.id}:meta", "sequence") or 0) < book.published:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.001)
        seconds = time.perf_counter() - started
    await redis.aclose()
    return len(records) / seconds


async def _publish_latencies(records: list[EventRecord], url: str) -> list[float]:
    """Seconds from one event to its change in the stream, one event at a time, sorted. Empties Redis."""
    redis = connect(url)
    await redis.flushall()
    state = MarketDataState(HOME)
    latencies = []
    async with RedisPublisher(url, LocalFeed()) as publisher:
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
