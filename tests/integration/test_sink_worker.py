"""The sink worker on real servers: killed, paused, cut off from Postgres, its tables end as the replayed log."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn

from forkast_streams.devstack import Stack
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.integration.exchange import (
    PARTITIONS,
    Worker,
    end_offsets,
    last_records,
    produce,
    read_topic,
    wait_until,
)
from tests.integration.history import Tables, replayed, stored
from tests.support.flows import mixed_flow

# Symbols that no other test uses.
SYMBOLS = range(7_000, 7_008)


@pytest.fixture
def env(stack_env: dict[str, str]) -> Iterator[dict[str, str]]:
    """The servers' environment, with all topics, and a prepared database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    env = stack_env | {"DATABASE_URL": make_dsn(stack_env["DATABASE_URL"], dbname=name)}
    asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=False))
    yield env
    asyncio.run(_drop(stack_env["DATABASE_URL"], name))


async def _drop(database_url: str, name: str) -> None:
    async with Postgres(make_dsn(database_url, dbname="postgres")) as admin:
        await admin.fetch(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(env: dict[str, str], tmp_path: Path) -> Iterator[Worker]:
    """A running engine."""
    worker = Worker("engine", env, tmp_path / "engine")
    worker.start().wait_ready()
    yield worker
    worker.end()


@pytest.fixture
def sinks(env: dict[str, str], tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    """Two sinks, not started yet."""
    workers = tuple(Worker("sink", env, tmp_path / f"sink-{n}", instance=str(n)) for n in (1, 2))
    yield workers[0], workers[1]
    for worker in workers:
        worker.end()


def trade(env: dict[str, str], *, seed: int, commands: int = 6_000) -> None:
    """Send a mixed flow for eight symbols to the engine."""
    flow = [
        (symbol_id, json.dumps(command).encode())
        for symbol_id in SYMBOLS
        for command in mixed_flow(commands // len(SYMBOLS), seed=seed + symbol_id, symbol_id=symbol_id)
    ]
    asyncio.run(produce(env, ORDERS_NEW, flow))


def places(env: dict[str, str]) -> dict[int, int]:
    """How far the tables are in each partition."""

    async def read() -> dict[int, int]:
        async with Postgres(env["DATABASE_URL"]) as postgres:
            return dict(await postgres.fetch('SELECT partition, "nextOffset" FROM "SinkProgress"'))

    return asyncio.run(read())


def has_all(env: dict[str, str], *running: Worker) -> bool:
    """Whether the tables are at the end of the log, and the log answers every command sent."""
    for worker in running:
        worker.check()
    ends = asyncio.run(end_offsets(env, ORDERS_EXCHANGE))
    return places(env) == ends and _answers_all(env)


def _answers_all(env: dict[str, str]) -> bool:
    """Whether each partition's last command is answered to its last event."""
    events = asyncio.run(last_records(env, ORDERS_EXCHANGE))
    commands = asyncio.run(last_records(env, ORDERS_NEW))
    sources = {partition: json.loads(record.value)["source"] for partition, record in events.items()}
    return all(
        partition in sources
        and sources[partition]["offset"] >= commands[partition].offset
        and sources[partition]["index"] == sources[partition]["count"] - 1
        for partition in {partition_for(symbol_id, PARTITIONS) for symbol_id in SYMBOLS}
    )


def assert_the_tables_are_the_log(env: dict[str, str]) -> None:
    """Compare every row of orders and trades with a plain replay up to the place of the tables, whose sink has ended.

    The log may go on by itself: orders of other tests expire.
    """

    async def read() -> tuple[dict[int, list[Any]], Tables]:
        async with Postgres(env["DATABASE_URL"]) as postgres:
            return await read_topic(env, ORDERS_EXCHANGE), await stored(postgres)

    at = places(env)
    log, tables = asyncio.run(read())
    persisted = [record for partition, records in log.items() for record in records if record.offset < at[partition]]
    expected = replayed(record.value for record in persisted)
    assert len(expected[1]) > 100
    for found, wanted in zip(tables, expected, strict=True):
        assert set(found) == set(wanted)
        assert [row for row in wanted if found[row] != wanted[row]] == []


def test_kills_lose_and_double_nothing(env: dict[str, str], engine: Worker, sinks: tuple[Worker, Worker]) -> None:
    """Killed again and again while it writes, the sink ends with each event in the tables once."""
    sink = sinks[0]
    for round_number in range(4):
        trade(env, seed=round_number)
        before = places(env)
        sink.start()
        wait_until(lambda: places(env) != before, "the first new row", within_s=30)  # noqa: B023
        sink.kill()
    sink.start().wait_ready()
    wait_until(lambda: has_all(env, engine, sink), "the end of the log")
    assert sink.terminate() == 0
    assert_the_tables_are_the_log(env)


def test_an_outage_of_postgres_is_survived(
    env: dict[str, str], engine: Worker, sinks: tuple[Worker, Worker], stack: Stack
) -> None:
    """Without Postgres the sink is up but not ready, and goes on by itself when Postgres is back."""
    sink = sinks[0].start().wait_ready()
    postgres = stack.server("postgres")
    postgres.stop()
    try:
        trade(env, seed=50)
        wait_until(lambda: not sink.is_ready(), "the sink seeing the outage")
    finally:
        postgres.start()
    wait_until(lambda: has_all(env, engine, sink), "the end of the log")
    sink.wait_ready()
    assert sink.terminate() == 0
    assert_the_tables_are_the_log(env)


def test_a_paused_sink_that_wakes_does_no_harm(
    env: dict[str, str], engine: Worker, sinks: tuple[Worker, Worker]
) -> None:
    """Two sinks share the work; one sleeps through a rebalance and wakes: still each event is there once."""
    first, second = sinks
    first.start().wait_ready()
    trade(env, seed=100)
    first.signal(signal.SIGSTOP)
    second.start()
    trade(env, seed=200)
    wait_until(lambda: has_all(env, engine, second), "the second sink taking over")
    first.signal(signal.SIGCONT)
    trade(env, seed=300)
    wait_until(lambda: has_all(env, engine), "the end of the log")
    assert second.terminate() == 0
    assert_the_tables_are_the_log(env)
