"""The simulated log: partitions of records, producers whose messages are under way, compaction, damage on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from aiokafka.structs import TopicPartition

from forkast_streams.producer import EventProducer
from forkast_streams.records import Headers
from forkast_streams.topics import ORDERS_NEW
from tests.simulation.world import START_MS, Channel, Process, World

# A broker's limit of a record is far away; these cut a batch of outputs between the events of one command.
BUILDER_RECORDS_MAX = 3


class Sent(NamedTuple):
    """A record on its way."""

    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as a consumer sees it; ``timestamp`` in milliseconds."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_type: int = 1


class Metadata(NamedTuple):
    """What an acknowledgement tells of the first record of a batch."""

    partition: int
    offset: int
    timestamp: int


class PartitionLog:
    """The records of a partition by offset; compaction takes records away and leaves their offsets."""

    def __init__(self) -> None:
        self.records: dict[int, LogRecord] = {}
        self.end = 0
        self.keys: set[bytes | None] = set()

    def read(self, position: int, most: int, *, before: int | None = None) -> list[LogRecord]:
        """Up to ``most`` records from ``position`` on, below ``before``."""
        found = []
        end = self.end if before is None else before
        while position < end and len(found) < most:
            record = self.records.get(position)
            if record is not None:
                found.append(record)
            position += 1
        return found

    def table(self, *, before: int | None = None) -> dict[bytes, bytes]:
        """The last value of each key that has one, as of the offset ``before``."""
        rows: dict[bytes, bytes] = {}
        for record in self.records.values():
            if before is not None and record.offset >= before:
                break
            assert record.key is not None
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
        return rows

    def compact(self, below: int, tombstones_below: int) -> int:
        """Drop records under a key that comes again before ``below``, and old tombstones; return how many went."""
        newest = {record.key: offset for offset, record in self.records.items() if offset < below}
        gone = [
            offset
            for offset, record in self.records.items()
            if offset < below and (newest[record.key] != offset or (record.value is None and offset < tombstones_below))
        ]
        for offset in gone:
            del self.records[offset]
        return len(gone)


class SimLog:
    """All topics. ``on_append`` is called with every record that is in the log from now on."""

    def __init__(self, world: World, partitions: int) -> None:
        self.world = world
        self.partitions = partitions
        self.skew_ms = 0
        self.on_append: Callable[[str, int, LogRecord], None] = lambda *_: None
        self._logs: dict[tuple[str, int], PartitionLog] = {}

    def of(self, topic: str, partition: int) -> PartitionLog:
        """The partition's log."""
        log = self._logs.get((topic, partition))
        if log is None:
            log = self._logs[topic, partition] = PartitionLog()
        return log

    def append(self, topic: str, partition: int, records: Iterable[Sent]) -> Metadata:
        """Put a batch into the log, whole."""
        log = self.of(topic, partition)
        now_ms = START_MS + self.skew_ms + int(self.world.now * 1000)
        first, timestamp = log.end, now_ms
        for sent in records:
            timestamp = now_ms if topic == ORDERS_NEW else sent.timestamp
            record = LogRecord(log.end, timestamp, sent.key, sent.value, sent.headers)
            log.records[log.end] = record
            log.end += 1
            log.keys.add(record.key)
            self.on_append(topic, partition, record)
        return Metadata(partition, first, timestamp)


class Builder:
    """A batch that is being filled, as aiokafka's `BatchBuilder` and the builder within it at once."""

    def __init__(self) -> None:
        self.records: list[Sent] = []
        self._builder = self
        self._relative_offset = 0

    def append(
        self, offset: int, timestamp: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> object | None:
        """Take a record; None when the batch is full."""
        assert offset == len(self.records), "each record has the next offset"
        if len(self.records) >= BUILDER_RECORDS_MAX:
            return None
        self.records.append(Sent(key, value, timestamp, tuple(headers)))
        return self


class SimKafkaProducer:
    """An idempotent producer's connection: each batch arrives once, in order; when, and when the answer, is chance.

    A lost acknowledgement is a late one here: the client repeats the batch and the broker knows it.
    """

    def __init__(self, process: Process, log: SimLog) -> None:
        self._process = process
        self._log = log
        self._channels: dict[tuple[str, int], tuple[Channel, Channel]] = {}
        self._sender = self

    async def until_free(self, _tp: TopicPartition) -> None:
        """Wait for a request that may be under way."""
        if self._process.world.rng.random() < 0.2:
            await asyncio.sleep(0)

    def create_batch(self) -> Builder:
        """An empty batch."""
        return Builder()

    async def partitions_for(self, _topic: str) -> set[int]:
        """The partitions, the same of every topic."""
        return set(range(self._log.partitions))

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> asyncio.Future[Metadata]:
        """Hand a batch over; the future resolves with its acknowledgement."""
        kind = self._process.kind
        self._process.world.point(f"{kind}: before produce to {_short(topic)}", self._process)
        if self._process.world.rng.random() < 0.2:
            await asyncio.sleep(0)
        assert builder._relative_offset == len(builder.records), "the client counts by itself"
        return self._send(builder.records, topic, partition)

    async def send_and_wait(
        self, topic: str, *, key: bytes | None, value: bytes | None, partition: int, headers: Headers = ()
    ) -> Metadata:
        """Send one record and wait until it is acknowledged."""
        self._process.world.point(f"{self._process.kind}: before produce to {_short(topic)}", self._process)
        future = self._send([Sent(key, value, 0, tuple(headers))], topic, partition)
        metadata = await asyncio.shield(future)
        self._process.world.point(f"{self._process.kind}: acknowledged, not answered", self._process)
        return metadata

    def _send(self, records: list[Sent], topic: str, partition: int) -> asyncio.Future[Metadata]:
        process, world = self._process, self._process.world
        channels = self._channels.get((topic, partition))
        if channels is None:
            channels = self._channels[topic, partition] = (process.channel(), process.channel())

        def arrive() -> Metadata:
            metadata = self._log.append(topic, partition, records)
            if process.alive:
                world.point(f"{process.kind}: {_short(topic)} has it, not acknowledged", process)
            else:
                world.counts["late batches of the dead"] += 1
            return metadata

        return world.request(process, *channels, arrive)


class SimEventProducer(EventProducer):
    """The product's producer on a simulated connection."""

    def __init__(self, process: Process, log: SimLog) -> None:
        super().__init__(["simulated"])
        self._producer = SimKafkaProducer(process, log)  # type: ignore[assignment]
        self._log = log

    async def count_since(self, topic: str, partition: int, _since_ms: int) -> int:
        """All that a partition has taken: nobody is away for long here."""
        return self._log.of(topic, partition).end


def _short(topic: str) -> str:
    return "the changelog" if topic.endswith("-changelog") else topic


def flipped(value: bytes, at: int) -> bytes:
    """``value`` with one bit of byte ``at`` flipped."""
    damaged = bytearray(value)
    damaged[at] ^= 1 << (at % 8)
    return bytes(damaged)


def replaced(record: LogRecord, value: bytes) -> LogRecord:
    """``record`` with another value, as a damaged disk gives it."""
    return LogRecord(record.offset, record.timestamp, record.key, value, record.headers)
