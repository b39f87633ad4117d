"""The idempotent Kafka producer of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import LeaderNotAvailableError, for_code
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy
from aiokafka.structs import RecordMetadata, TopicPartition
from mode import Service

from forkast_streams.failfast import fail_fast
from forkast_streams.kafka_client import GATHER_TURNS
from forkast_streams.kafka_client.leaders import has_leader
from forkast_streams.kafka_security import Brokers, kafka_arguments
from forkast_streams.limits import BATCH_BYTES, COMMAND_SEND_S_MAX
from forkast_streams.record_signatures import Signer
from forkast_streams.records import Headers, OutputRecord
from forkast_streams.topics import ORDERS_NEW

# A broker takes records of up to 1 MiB by default.
_REQUEST_BYTES_MAX = 1024 * 1024
# aiokafka's default.
_EVENTS_REQUEST_S_MAX = 40.0
_NO_HEADERS: list[tuple[str, bytes]] = []


@dataclass(frozen=True, slots=True)
class SentBatch:
    """Records on their way to one partition.

    Attributes:
        acknowledged: resolves to the metadata of the batch's *first* record, or raises.
        count: number of records.
    """

    acknowledged: asyncio.Future[RecordMetadata]
    count: int


class EventProducer(Service):
    """Sends records so that each is in the log once, acknowledged by all in-sync replicas.

    Records of ``orders.new`` are signed when ``brokers`` come with a signer.

    Args:
        brokers: their addresses.
        client_id: what the brokers call it in their logs.
        gather_turns: of the event loop that a request waits for one more batch. The default is for a worker, which
            makes them one after the other; 1 is for who asks ``until_free`` and hands all of them over then.
        keeps_order: whether nothing of a partition may be in the log behind a batch that is not, as behind an event the
            next ones: the process ends when a batch fails for good. Else the others are sent all the same, and a batch
            is given up after `COMMAND_SEND_S_MAX`.
    """

    def __init__(
        self,
        brokers: list[str],
        *,
        client_id: str = "forkast",
        gather_turns: int = GATHER_TURNS,
        keeps_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._brokers = brokers
        self._signer = brokers.signer if isinstance(brokers, Brokers) else None
        self._client_id = client_id
        self._gather_turns = gather_turns
        self._keeps_order = keeps_order
        self._producer: AIOKafkaProducer | None = None

    async def on_start(self) -> None:
        """Connect to the brokers."""
        producer = AIOKafkaProducer(
            **kafka_arguments(self._brokers),
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_REQUEST_BYTES_MAX,
            max_request_size=_REQUEST_BYTES_MAX,
            request_timeout_ms=int(1000 * (_EVENTS_REQUEST_S_MAX if self._keeps_order else COMMAND_SEND_S_MAX)),
            metadata_max_age_ms=10_000,
            connections_max_idle_ms=86_400_000,
        )
        await producer.start()
        producer._sender.gather_turns = self._gather_turns  # noqa: SLF001 - is ours
        producer._message_accumulator.keeps_order = self._keeps_order  # noqa: SLF001 - is ours
        # aiokafka logs an unexpected error in its sender and then refuses everything; only a new producer helps.
        self._producer = producer
        producer._sender.sender_task.add_done_callback(self._sender_ended)  # noqa: SLF001 - has no public name

    def _sender_ended(self, task: asyncio.Task[None]) -> None:
        is_stopping = self._producer is None
        if not is_stopping and not task.cancelled() and (exc := task.exception()) is not None:
            fail_fast("the Kafka producer's sender", exc)

    async def on_stop(self) -> None:
        """Send what is still buffered and disconnect."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    def why_not_ready(self) -> str | None:
        """A sentence while Kafka takes nothing of a partition that is written to; None while it does."""
        if self._producer is None:
            return None
        held_up = sorted(self._producer._message_accumulator.held_up())  # noqa: SLF001 - is ours
        if not held_up:
            return None
        names = ", ".join(f"{tp.topic}-{tp.partition}" for tp in held_up)
        return f"no broker takes what is written to {names}: is its leader away?"

    async def partition_count(self, topic: str) -> int:
        """Number of partitions of ``topic``."""
        return len(await self._connected().partitions_for(topic))

    async def reaches_brokers(self) -> bool:
        """Ask a broker who leads the partitions; return whether one has answered."""
        return bool(await self._connected().client.force_metadata_update())

    async def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> RecordMetadata:
        """Send one record and return its metadata once the brokers have acknowledged it."""
        if self._signer is not None and topic == ORDERS_NEW:
            headers = [*headers, self._signer.header(topic, key, value, headers)]
        return await self._connected().send_and_wait(
            topic, key=key, value=value, partition=partition, headers=list(headers)
        )

    async def count_since(self, topic: str, partition: int, since_ms: int) -> int:
        """How many records the log has taken for a partition since a moment of its own time; never too few.

        Raises:
            KafkaError: the partition's leader does not answer, or is not known.
        """
        first = await self._offset_at(topic, partition, since_ms)
        end = await self._offset_at(topic, partition, OffsetResetStrategy.LATEST)
        # Without a record that young there is no first one.
        return end - first if first >= 0 else 0

    async def _offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        client = self._connected().client
        tp = TopicPartition(topic, partition)
        if not has_leader(client.cluster, tp):
            raise LeaderNotAvailableError
        request = OffsetRequest(-1, 0, [(topic, [(partition, timestamp_ms)])])
        response = await client.send(client.cluster.leader_for_partition(tp), request)
        [(_, [(_, error_code, _, offset)])] = response.topics
        if error_code:
            raise for_code(error_code)
        return int(offset)

    async def until_free(self, topic: str, partition: int) -> None:
        """Wait while what is handed over for the partition would wait for a request that is under way."""
        if self._producer is not None:
            await self._producer._sender.until_free(TopicPartition(topic, partition))  # noqa: SLF001 - is ours

    async def send_batch(self, topic: str, partition: int, records: Iterable[OutputRecord]) -> list[SentBatch]:
        """Hand over ``records`` to be sent to one partition in this order; the acknowledgements come later."""
        producer = self._connected()
        if self._signer is not None and topic == ORDERS_NEW:
            records = _signed(records, topic, self._signer)
        sent: list[SentBatch] = []
        batch, size = _Batch(producer), 0
        for record in records:
            if size >= BATCH_BYTES or not batch.append(record):
                sent.append(await self._send(batch, topic, partition))
                batch, size = _Batch(producer), 0
                # A batch takes its first record however large it is; nobody makes one that a broker would refuse.
                batch.append(record)
            size += len(record.value or b"")
        if batch.count:
            sent.append(await self._send(batch, topic, partition))
        return sent

    async def _send(self, batch: _Batch, topic: str, partition: int) -> SentBatch:
        acknowledged = await self._connected().send_batch(batch.finish(), topic, partition=partition)
        return SentBatch(acknowledged, batch.count)

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise RuntimeError("the producer is not started or already stopped")
        return self._producer


def _signed(records: Iterable[OutputRecord], topic: str, signer: Signer) -> Iterator[OutputRecord]:
    for record in records:
        signature = signer.header(topic, record.key, record.value, record.headers)
        yield OutputRecord(record.key, record.value, record.timestamp, (*record.headers, signature))


class _Batch:
    """Records of one request; put in past aiokafka's builder, whose look at each of them takes longer than that."""

    __slots__ = ("_append", "_builder", "count")

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._builder = producer.create_batch()
        self._append = self._builder._builder.append  # noqa: SLF001 - has no public name
        self.count = 0

    def append(self, record: OutputRecord) -> bool:
        """Add ``record``; return whether there was room for it."""
        headers = list(record.headers) if record.headers else _NO_HEADERS
        if self._append(self.count, record.timestamp, record.key, record.value, headers) is None:
            return False
        self.count += 1
        return True

    def finish(self) -> Any:
        """The builder with what was put in."""
        self._builder._relative_offset = self.count  # noqa: SLF001 - what its own method would have counted
        return self._builder
