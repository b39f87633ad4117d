"""A log that has lost its end: nothing that is acknowledged afterwards is passed over in silence."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.failfast import EXIT_STATUS
from forkast_streams.storage.postgres import prepare_database
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.integration.exchange import PARTITIONS, Worker, are_commands_answered, fresh_stack, produce, wait_until
from tests.support.flows import order_command, records_of, symbol_command

SYMBOL = 1


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    """Servers of this test's own, because a topic is deleted."""
    with fresh_stack() as stack:
        env = stack.env()
        asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
        yield env


def commands(orders: int) -> list[tuple[int, bytes]]:
    """The symbol's definition and some orders."""
    made = [symbol_command(SYMBOL), *(order_command(id=str(uuid.uuid4())) for _ in range(orders))]
    return [(SYMBOL, json.dumps(command).encode()) for command in made]


async def make_anew(env: dict[str, str], topic: str) -> None:
    """Delete a topic and create it, empty."""
    brokers = env["KAFKA_BROKERS"].split(",")
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.delete_topics([topic])

        @retry(retry=retry_if_result(lambda is_there: is_there), stop=stop_after_delay(30), wait=wait_fixed(0.05))
        async def is_there() -> bool:
            return topic in await admin.list_topics()

        await is_there()
    finally:
        await admin.close()
    await ensure_topics(brokers, partitions=PARTITIONS)


@pytest.mark.parametrize("more", [0, 3])
def test_an_engine_does_not_go_on_behind_what_another_log_holds(env: dict[str, str], tmp_path: Path, more: int) -> None:
    """Made anew, the topic has as many records as were processed, or some more: those behind its place look new."""
    engine = Worker("engine", env, tmp_path / "engine")
    try:
        asyncio.run(produce(env, ORDERS_NEW, commands(5)))
        engine.start().wait_ready()
        wait_until(lambda: asyncio.run(are_commands_answered(env)), "answers to all commands")
        assert engine.terminate() == 0
        asyncio.run(make_anew(env, ORDERS_NEW))
        asyncio.run(produce(env, ORDERS_NEW, commands(5 + more)))
        engine.start()
        wait_until(lambda: engine.exit_status() is not None, "the engine's end")
        assert engine.exit_status() == EXIT_STATUS
        assert "has lost its end: at offset 5 is not what was read there" in engine.log.read_text()
    finally:
        engine.end()


def events(orders: int) -> list[tuple[int, bytes]]:
    """What an engine makes of the symbol's definition and some orders."""
    made = [symbol_command(SYMBOL), *(order_command(id=str(uuid.uuid4())) for _ in range(orders))]
    outputs = EnginePartition(partition_for(SYMBOL, PARTITIONS), PARTITIONS).process(records_of(made))
    return [(SYMBOL, event.value or b"") for event in outputs.events]


def has_written(env: dict[str, str], count: int) -> bool:
    """Whether the sink has written so many events."""
    with closing(psycopg2.connect(env["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute('SELECT max("nextOffset") FROM "SinkProgress"')
        return bool(cursor.fetchall() == [(count,)])


@pytest.mark.parametrize("role", ["keeper", "sink"])
def test_no_reader_goes_on_behind_what_another_log_holds(env: dict[str, str], tmp_path: Path, role: str) -> None:
    """The sequences behind its place go on where it has stopped, and what is before would be missing for ever."""
    asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=False))
    reader = Worker(role, env, tmp_path / role)
    try:
        asyncio.run(produce(env, ORDERS_EXCHANGE, events(5)))
        reader.start().wait_ready()
        if role == "sink":
            wait_until(lambda: has_written(env, 6), "the events in the tables")
        assert reader.terminate() == 0
        asyncio.run(make_anew(env, ORDERS_EXCHANGE))
        asyncio.run(produce(env, ORDERS_EXCHANGE, events(8)))
        reader.start()
        wait_until(lambda: reader.exit_status() is not None, "the reader's end")
        assert reader.exit_status() == EXIT_STATUS
        assert "has lost its end: at offset 5 is not what was read there" in reader.log.read_text()
    finally:
        reader.end()
