"""What a fetch has brought, record by record or, of raw topics, all at once."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy

from forkast_streams.records import TransactionMark

# What every batch begins with: the offset of its first record, and how many bytes follow.
_BATCH_PREFIX = struct.Struct(">qi")
# And what comes next: the epoch of the leader that has taken it, and the format. Before format 2 there was no epoch.
_LEADER_EPOCH = struct.Struct(">ib")
_FORMAT_WITH_EPOCH = 2


def leader_epoch_of(fetched: bytes) -> int:
    """How often the partition had got a leader when its log took the first batch of ``fetched``; 0: unknown."""
    epoch, batch_format = _LEADER_EPOCH.unpack_from(fetched, _BATCH_PREFIX.size)
    return int(epoch) if batch_format >= _FORMAT_WITH_EPOCH else 0


class RawTopics(set[str]):
    """The topics whose records a consumer hands over as its parser made them; set in place of a deserializer."""

    def __call__(self, value: bytes | None) -> bytes | None:
        """Deserialize nothing."""
        return value


def read_raw(consumer: AIOKafkaConsumer, topics: RawTopics) -> None:
    """Have a consumer, before it starts, hand over the records of ``topics`` as its parser makes them."""
    consumer._value_deserializer = topics  # noqa: SLF001 - has no public name


class _LenientBytes(bytearray):
    """Text that is no UTF-8 is read with replacement characters."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _LenientBytes(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The text."""
        return super().decode(encoding, errors)


class _LenientBatch(_DefaultRecordBatchPy):
    """Reads the names of headers whatever bytes they have, as brokers take them; aiokafka's quick parser refuses."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class PartitionRecords(fetcher.PartitionRecords):
    """Leaves out aiokafka's ``ConsumerRecord`` for raw topics, which takes a third of the time of reading a record.

    A record of the parser has ``offset, timestamp, timestamp_type, key, value, headers``.

    Args:
        fetched: the bytes of all batches, which the parser among the other arguments hides.
        accept: is given all records of a raw topic, those before the first one that was asked for among them.
    """

    next_fetch_offset: int

    def __init__(self, *args: Any, fetched: bytes = b"", accept: Callable[[list[Any]], None] | None = None) -> None:
        super().__init__(*args)
        self._fetched = fetched
        self._accept = accept

    @property
    def is_raw(self) -> bool:
        """Whether the records are handed over as the parser made them, all those that the log has among them."""
        topics = self._value_deserializer
        return isinstance(topics, RawTopics) and self._tp.topic in topics and self._isolation_level == READ_UNCOMMITTED

    def all(self) -> list[Any]:
        """The records of a raw topic at once; one by one each would pass three generators.

        Raises:
            CorruptRecordException: a batch is not as it was written.
            CorruptLog: the log has another record before them than it had.
        """
        first, found = self.next_fetch_offset, list[Any]()
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            records = self._records_of(batch)
            if batch.is_control_batch:
                # They take offsets that would else be missing.
                records = [TransactionMark(mark.offset, mark.timestamp, mark.timestamp_type) for mark in records]
            found += records
            # More than the last record's own: that may have been compacted away.
            self.next_fetch_offset = batch.next_offset
        if self._accept is not None:
            self._accept(found)
        if found and found[0].offset < first:
            # The broker sends whole batches.
            found = [record for record in found if record.offset >= first]
        return found

    def _records_of(self, batch: Any) -> list[Any]:
        try:
            return list(batch)
        except UnicodeDecodeError:
            at = 0
            while True:
                first, size = _BATCH_PREFIX.unpack_from(self._fetched, at)
                end = at + _BATCH_PREFIX.size + size
                if first == batch.base_offset:
                    return list(_LenientBatch(self._fetched[at:end]))
                at = end


class FetchResult(fetcher.FetchResult):
    """What one fetch has brought of a partition, until somebody takes it."""

    _partition_records: PartitionRecords | None

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Take all records; of others than raw topics at most ``max_records``."""
        records = self._partition_records
        if max_records is not None or records is None or not records.is_raw:
            return super().getall(max_records)  # type: ignore[no-any-return]
        if not self.check_assignment(self._topic_partition):
            return []
        found: list[Any] = records.all()
        self._update_position()
        self._partition_records = None
        return found
