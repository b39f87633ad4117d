"""A producer with transactions writes to a real log: its marks take offsets, and nothing is missed behind them."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer import message_accumulator, producer, sender

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.kafka_client import RawTopics, read_raw
from tests.unit.flows import order_command, symbol_command


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers are aiokafka's own: this project's have no transactions."""
    monkeypatch.setattr(producer, "Sender", sender.Sender)
    monkeypatch.setattr(producer, "MessageAccumulator", message_accumulator.MessageAccumulator)


async def read(consumer: AIOKafkaConsumer, tp: TopicPartition, engine: EnginePartition, until: int) -> list[str]:
    """Let the engine process the log up to an offset; return its events' types."""
    events = []
    async with asyncio.timeout(30):
        while engine.next_offset < until:
            for records in (await consumer.getmany(tp, timeout_ms=500)).values():
                events += [json.loads(event.value or b"")["type"] for event in engine.process(records).events]
    return events


@pytest.mark.usefixtures("transactions")
async def test_the_engine_goes_on_behind_the_marks_of_transactions(stack_env: dict[str, str]) -> None:
    """It stands at the log's end when nothing but a mark comes, too; records are taken as they come, as docs say."""
    brokers, topic = stack_env["KAFKA_BROKERS"], f"transactions-{uuid.uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    tp, engine = TopicPartition(topic, 0), EnginePartition(0, 1)
    client = AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=topic)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest")
    read_raw(consumer, RawTopics({topic}))
    await consumer.start()
    consumer.assign([tp])
    try:
        async with client:
            async with client.transaction():
                await client.send(topic, json.dumps(symbol_command(1)).encode(), b"1")
            assert await read(consumer, tp, engine, until=2) == ["SYMBOL"]
            await client.begin_transaction()
            await client.send(topic, json.dumps(order_command(id=str(uuid.uuid4()))).encode(), b"1")
            await client.abort_transaction()
            # A command, a mark, a command, a mark.
            assert await read(consumer, tp, engine, until=4) == ["ORDER"]
        assert engine.next_offset == 4
    finally:
        await consumer.stop()
