"""What the producer asks a real Kafka besides sending."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import suppress

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord


async def test_records_since_a_moment_are_counted(stack_env: dict[str, str]) -> None:
    """By the log's own time, whatever times the records come with; none is no error."""
    brokers, topic = stack_env["KAFKA_BROKERS"], f"counted-{uuid.uuid4().hex}"
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1, topic_configs={"message.timestamp.type": "LogAppendTime"})])
    await admin.close()
    async with EventProducer(brokers.split(",")) as producer:
        assert await producer.partition_count(topic) == 2

        async def send(count: int) -> None:
            records = [OutputRecord(b"1", b"value", 0) for _ in range(count)]
            for batch in await producer.send_batch(topic, 1, records):
                await batch.acknowledged

        async with asyncio.timeout(20):
            # A topic has its leaders a moment after it was made.
            while True:
                with suppress(KafkaError):
                    assert [await producer.count_since(topic, number, 0) for number in (0, 1)] == [0, 0]
                    break
        await send(30)
        await asyncio.sleep(0.5)
        between_ms = int(time.time() * 1000) - 250
        assert await producer.count_since(topic, 1, between_ms) == 0
        await send(12)
        assert await producer.count_since(topic, 1, between_ms) == 12
        assert await producer.count_since(topic, 1, 0) == 42
        assert await producer.count_since(topic, 0, 0) == 0
