"""A producer with transactions writes to a real log: its marks take offsets, and nothing is missed behind them."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer import message_accumulator, producer, sender

from forkast_streams.audit.kafka_log import KafkaLog
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.kafka_client import RawTopics, read_raw
from forkast_streams.topics import ensure_topics
from tests.support.flows import order_command, symbol_command


@pytest.fixture
def transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers are aiokafka's own: this project's have no transactions."""
    monkeypatch.setattr(producer, "Sender", sender.Sender)
    monkeypatch.setattr(producer, "MessageAccumulator", message_accumulator.MessageAccumulator)


async def make_topic(brokers: str) -> str:
    """A topic with one partition and a name of its own."""
    topic = f"transactions-{uuid.uuid4()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    return topic


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
    brokers = stack_env["KAFKA_BROKERS"]
    topic = await make_topic(brokers)
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


async def write_two_transactions(brokers: str) -> str:
    """Two records and a mark, one record and a mark; return their topic."""
    topic = await make_topic(brokers)
    async with AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=topic) as client:
        for values in ((b"0", b"1"), (b"3",)):
            async with client.transaction():
                for value in values:
                    await client.send_and_wait(topic, value, partition=0)
    return topic


@pytest.mark.usefixtures("transactions")
def test_marks_of_transactions_are_told_from_holes(stack_env: dict[str, str]) -> None:
    """What a transactional producer leaves in a log is no record for the audit, and nothing is missing there."""
    brokers = stack_env["KAFKA_BROKERS"]
    asyncio.run(ensure_topics(brokers.split(",")))
    topic = asyncio.run(write_two_transactions(brokers))
    log = KafkaLog(brokers.split(","))
    try:
        found = [(record.offset, record.value, record.is_control) for record in log.records(topic, 0, 0, 5)]
    finally:
        log.close()
    mark = (None, True)
    assert found == [(0, b"0", False), (1, b"1", False), (2, *mark), (3, b"3", False), (4, *mark)]
