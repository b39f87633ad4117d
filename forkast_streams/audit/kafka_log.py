"""Reads topics from Kafka one range after the other, without a consumer group."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from forkast_streams.audit.evidence import ORDERS_NEW, TOPICS
from forkast_streams.audit.records import Record
from forkast_streams.errors import SetupError
from forkast_streams.kafka_client import RawTopics, read_raw
from forkast_streams.kafka_security import Brokers, kafka_arguments, unreachable
from forkast_streams.records import TransactionMark

ResultT = TypeVar("ResultT")

_FETCH_BYTES = 4 << 20
_PATIENCE_S = 30


def for_other_processes(brokers: list[str]) -> list[str]:
    """The brokers as a process that reads beside this one can be handed them: without the key, which signs."""
    if not isinstance(brokers, Brokers):
        return brokers
    # A TLS context cannot be handed over; a copy has none yet and makes its own of the same files.
    return Brokers(brokers, dataclasses.replace(brokers.security))


class KafkaLog:
    """The exchange's topics; to be used by one thread that has no event loop of its own running.

    Raises:
        SetupError: Kafka is out of reach or lacks a topic.
    """

    def __init__(self, brokers: list[str]) -> None:
        self._brokers = brokers
        self._loop = asyncio.new_event_loop()
        self._consumers: dict[str, AIOKafkaConsumer] = {}
        try:
            self.partitions = self._run(self._partition_count())
        except SetupError:
            self.close()
            raise

    def close(self) -> None:
        """Stop the consumers."""
        for consumer in self._consumers.values():
            self._loop.run_until_complete(consumer.stop())
        self._consumers.clear()
        self._loop.close()

    def ends(self, topic: str) -> dict[int, int]:
        """The end offset of each partition.

        Raises:
            SetupError: a partition does not begin at offset 0, so that its history cannot be replayed.
        """
        return self._run(self._ends(topic))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """What a group has committed, by partition; 0 where it has committed nothing."""
        return self._run(self._committed(group, topic))

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        """The records from ``start`` to before ``end``; only one range of a topic can be read at a time."""
        if start >= end:
            return
        tp = TopicPartition(topic, partition)
        consumer = self._run(self._consumer_at(tp, start))
        waited_s = 0
        while start < end:
            fetched = self._run(consumer.getmany(tp, timeout_ms=1_000)).get(tp, [])
            waited_s = 0 if fetched else waited_s + 1
            if waited_s > _PATIENCE_S:
                raise SetupError(f"{topic}-{partition} gives nothing at offset {start}; check the brokers.")
            for record in fetched:
                if record.offset >= end:
                    return
                yield _record(record)
                start = record.offset + 1

    def _run(self, waiting: Coroutine[Any, Any, ResultT]) -> ResultT:
        try:
            return self._loop.run_until_complete(waiting)
        except KafkaConnectionError as exc:
            raise unreachable(self._brokers) from exc
        except (KafkaError, OSError) as exc:
            raise SetupError(
                f"Kafka cannot be read at {','.join(self._brokers)} ({exc!r}); check the brokers, and that this user "
                "may read what docs/security.md says of the audit."
            ) from exc

    async def _consumer(self, topic: str) -> AIOKafkaConsumer:
        consumer = self._consumers.get(topic)
        if consumer is None:
            consumer = AIOKafkaConsumer(
                **kafka_arguments(self._brokers), max_partition_fetch_bytes=_FETCH_BYTES, enable_auto_commit=False
            )
            # Others are not shown the marks of transactions, which take offsets, and names of headers must be UTF-8.
            read_raw(consumer, RawTopics({topic}))
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumers[topic] = consumer
        return consumer

    async def _consumer_at(self, tp: TopicPartition, offset: int) -> AIOKafkaConsumer:
        consumer = await self._consumer(tp.topic)
        consumer.assign([tp])
        consumer.seek(tp, offset)
        return consumer

    async def _partition_count(self) -> int:
        admin = AIOKafkaAdminClient(**kafka_arguments(self._brokers))
        try:
            await admin.start()
            missing = set(TOPICS) - set(await admin.list_topics())
            if missing:
                raise SetupError(f"topics are missing ({', '.join(sorted(missing))}); there is nothing to audit yet.")
            [described] = await admin.describe_topics([ORDERS_NEW])
            return len(described["partitions"])
        finally:
            await admin.close()

    async def _ends(self, topic: str) -> dict[int, int]:
        consumer = await self._consumer(topic)
        tps = [TopicPartition(topic, partition) for partition in range(self.partitions)]
        for tp, begin in (await consumer.beginning_offsets(tps)).items():
            if begin:
                raise SetupError(
                    f"{topic}-{tp.partition} begins at offset {begin}; an audit needs the log from its beginning."
                )
        return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}

    async def _committed(self, group: str, topic: str) -> dict[int, int]:
        admin = AIOKafkaAdminClient(**kafka_arguments(self._brokers))
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        committed = dict.fromkeys(range(self.partitions), 0)
        for tp, found in offsets.items():
            if tp.topic == topic:
                committed[tp.partition] = max(0, found.offset)
        return committed


def _record(fetched: Any) -> Record:
    if isinstance(fetched, TransactionMark):
        return Record(fetched.offset, 0, None, None, is_control=True)
    headers = tuple((name, value or b"") for name, value in fetched.headers)
    return Record(fetched.offset, fetched.timestamp, fetched.key, fetched.value, headers)
