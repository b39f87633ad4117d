"""The keeper worker on a real Kafka and Redis: whatever happens to it, Redis has the books of a clean replay."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import Unavailable
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.storage.redis import connect
from forkast_streams.topics import ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, is_settled, produce, read_topic, wait_until
from tests.support.flows import home_of, mixed_flow
from tests.support.market_events import Depth, depth_of_engine

# Symbols that no other test uses.
SYMBOLS = range(9_500, 9_504)


@pytest.fixture
def topics(stack_env: dict[str, str]) -> dict[str, str]:
    """The servers' environment, with all topics made."""
    asyncio.run(ensure_topics(stack_env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    return stack_env


@pytest.fixture
def workers(topics: dict[str, str], tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    """An engine and a keeper, both ready."""
    pair = Worker("engine", topics, tmp_path / "engine"), Worker("keeper", topics, tmp_path / "keeper")
    for worker in pair:
        worker.start()
    try:
        for worker in pair:
            worker.wait_ready()
        yield pair
    finally:
        for worker in pair:
            worker.end()


def send(env: dict[str, str], count: int, *, seed: int) -> None:
    """Send ``count`` mixed commands of all symbols."""
    records = [
        (symbol_id, json.dumps(command).encode())
        for symbol_id in SYMBOLS
        for command in mixed_flow(count // len(SYMBOLS), seed=seed + symbol_id, symbol_id=symbol_id)
    ]
    asyncio.run(produce(env, ORDERS_NEW, records))


def replayed(env: dict[str, str]) -> dict[int, tuple[int, Depth]]:
    """Sequence and depth of each symbol after a clean replay of all orders."""
    inputs = asyncio.run(read_topic(env, ORDERS_NEW))
    books = {}
    for symbol_id in SYMBOLS:
        engine = EnginePartition(home_of(symbol_id), PARTITIONS)
        engine.process(inputs[engine.partition])
        books[symbol_id] = (engine.engine.markets[symbol_id].symbol.sequence, depth_of_engine(engine, symbol_id))
    return books


def stored(env: dict[str, str]) -> dict[int, Depth]:
    """Depth of each symbol in Redis; of none while the keeper has not put back what was flushed."""

    async def read() -> dict[int, Depth]:
        reader = MarketDataReader(connect(env["REDIS_URL"]))
        try:
            return {
                symbol_id: {
                    name: {level["price"]: (level["quantity"], level["orders"]) for level in json.loads(side.json())}
                    for name, side in (("BUY", book.buy), ("SELL", book.sell))
                }
                for symbol_id in SYMBOLS
                if (book := await reader.book(symbol_id)) is not None
            }
        finally:
            await reader.close()

    try:
        return asyncio.run(read())
    except Unavailable:
        return {}


def wait_for_replayed_books(env: dict[str, str]) -> None:
    """Return when Redis has the books of a clean replay and nothing more comes by itself."""

    def is_there() -> bool:
        expected = {symbol_id: depth for symbol_id, (_, depth) in replayed(env).items()}
        assert all(depth["BUY"] and depth["SELL"] for depth in expected.values())
        return stored(env) == expected and asyncio.run(is_settled(env))

    wait_until(is_there, "Redis having the books of a clean replay")


def test_kills_lost_disks_and_a_flushed_redis(workers: tuple[Worker, Worker], topics: dict[str, str]) -> None:
    """Killed while it works, with its disk lost, with Redis flushed: the books in Redis are those of a clean replay."""
    _, keeper = workers
    send(topics, 4_000, seed=1)
    wait_for_replayed_books(topics)
    for round_number in range(3):
        send(topics, 8_000, seed=100 * (round_number + 2))
        keeper.kill()
        if round_number == 1:
            keeper.lose_disk()
        if round_number == 2:
            flush(topics)
        keeper.start().wait_ready()
    wait_for_replayed_books(topics)
    flush(topics)
    wait_for_replayed_books(topics)


def test_stop_is_prompt_with_open_streams_and_costs_no_replay(
    workers: tuple[Worker, Worker], topics: dict[str, str]
) -> None:
    """SIGTERM ends open streams at once; the next start goes on from the last checkpoint."""
    _, keeper = workers
    send(topics, 2_000, seed=7)
    wait_for_replayed_books(topics)
    asyncio.run(prepare_database(topics["DATABASE_URL"], demo_users=True))
    request = urllib.request.Request(f"http://127.0.0.1:{keeper.port}/order-book/{SYMBOLS[0]}/stream")
    credentials = base64.b64encode(b"alice@example.com:alice@example.com").decode()
    request.add_header("Authorization", f"Basic {credentials}")
    stream: Any = urllib.request.urlopen(request, timeout=10)
    first = stream.readline() + stream.readline()
    assert b'"type":"snapshot"' in first
    started = time.monotonic()
    keeper.terminate()
    assert time.monotonic() - started < 10
    stream.close()
    flush(topics)
    keeper.start().wait_ready()
    wait_for_replayed_books(topics)


def flush(env: dict[str, str]) -> None:
    """Empty Redis."""

    async def flush_all() -> None:
        redis = connect(env["REDIS_URL"])
        await redis.flushall()
        await redis.aclose()

    asyncio.run(flush_all())
