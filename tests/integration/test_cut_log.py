"""A log that has lost its end: nothing that is acknowledged afterwards is passed over in silence."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from forkast_streams.failfast import EXIT_STATUS
from forkast_streams.topics import ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, are_commands_answered, fresh_stack, produce, wait_until
from tests.support.flows import order_command, symbol_command

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
