"""A Faust table that holds checkpoint rows: written to the changelog first, then to RocksDB in one step.

Assignment, replay of the changelog and standbys are Faust's. Writing is ours: Faust would write RocksDB at once and
the changelog some time later, so that a crash in between leaves a local store the changelog knows nothing of.
"""

from __future__ import annotations

import logging
import shutil
from typing import Any

import faust
import rocksdict
from faust.types import TP

from forkast_streams.checkpoint import Rows
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord

log = logging.getLogger(__name__)

# Faust's defaults reserve gigabytes a partition. Rows are written once, and read when a worker starts.
_ROCKSDB_OPTIONS = {"block_cache_size": 4 << 20, "write_buffer_size": 4 << 20, "max_write_buffer_number": 2}


class SegmentTable(faust.Table):
    """Checkpoint rows by key, one RocksDB a partition."""

    def __init__(self, app: Any, name: str, **kwargs: Any) -> None:
        super().__init__(app, name=name, key_type=bytes, value_type=bytes, options=dict(_ROCKSDB_OPTIONS), **kwargs)
        self._expected: dict[int, int] = {}
        self._disputed: set[int] = set()

    def read(self, partition: int) -> dict[bytes, bytes]:
        """All rows of ``partition``; call after recovery, before the first ``append``."""
        store = self.data
        database = store._db_for_partition(partition)
        persisted = store.persisted_offset(self._changelog_tp(partition))
        self._expected[partition] = 0 if persisted is None else persisted + 1
        self._disputed.discard(partition)
        return {key: value for key, value in database.items() if key != store.offset_key}

    def forget(self, partition: int) -> None:
        """Delete the local store of ``partition``: after a restart Faust reads the whole changelog into a new one."""
        store = self.data
        store._dbs.pop(partition).close()
        shutil.rmtree(store.partition_path(partition))

    def is_as_left(self, partition: int) -> bool:
        """Whether the changelog ends where this table's own last write ended; call after recovery."""
        highwater = self.app.tables.recovery.active_highwaters.get(self._changelog_tp(partition))
        is_ours = partition in self._expected and partition not in self._disputed
        return is_ours and highwater is not None and highwater + 1 == self._expected[partition]

    async def append(self, partition: int, rows: Rows, producer: EventProducer) -> None:
        """Write ``rows``; return when the changelog has acknowledged them and RocksDB has them.

        The changelog offset kept in RocksDB tells Faust from where to replay. It only advances while no other
        worker has written in between: else rows of the other would be skipped for good.
        """
        records = [OutputRecord(key, None, 0) for key in rows.drops]
        records += [OutputRecord(key, value, 0) for key, value in rows.puts]
        topic = self._changelog_tp(partition).topic
        for batch in await producer.send_batch(topic, partition, records):
            first = (await batch.acknowledged).offset
            if first != self._expected[partition] and partition not in self._disputed:
                log.warning("%s-%d: another worker wrote to the changelog at offset %d", topic, partition, first - 1)
                self._disputed.add(partition)
            self._expected[partition] = first + batch.count
        self._write_locally(partition, rows)

    def _write_locally(self, partition: int, rows: Rows) -> None:
        store = self.data
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key in rows.drops:
            batch.delete(key)
        for key, value in rows.puts:
            batch.put(key, value)
        if partition not in self._disputed:
            batch.put(store.offset_key, str(self._expected[partition] - 1).encode())
        store._db_for_partition(partition).write(batch)

    def _changelog_tp(self, partition: int) -> TP:
        return TP(self.changelog_topic.get_topic_name(), partition)
