"""The partitions of an engine worker, without Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterable

from benchmarks.records import Record, SymbolRecord, batches
from forkast_streams.checkpoint import Checkpointer
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.topics import PARTITIONS_DEFAULT

# A second's worth of records of one partition, when ten take some 60,000 commands a second.
_RECORDS_BETWEEN_CUTS = 6_000


class Partitions:
    """The partitions of one worker, with their checkpoints, which go nowhere."""

    def __init__(self) -> None:
        self.engines = [EnginePartition(partition, PARTITIONS_DEFAULT) for partition in range(PARTITIONS_DEFAULT)]
        self._checkpointers = [Checkpointer(partition, 1) for partition in range(PARTITIONS_DEFAULT)]
        self._since_cut = [0] * PARTITIONS_DEFAULT
        self.cut_ms: list[float] = []

    def process(self, partition: int, records: list[Record]) -> None:
        """One batch; then a checkpoint of that partition, if one is due."""
        self.engines[partition].process(records)
        self._since_cut[partition] += len(records)
        if self._since_cut[partition] >= _RECORDS_BETWEEN_CUTS:
            started = time.process_time()
            self._checkpointers[partition].cut(self.engines[partition])
            self.cut_ms.append((time.process_time() - started) * 1e3)
            self._since_cut[partition] = 0

    def load(self, records: Iterable[SymbolRecord]) -> None:
        """Process records that are made meanwhile."""
        for partition, batch in batches(records, [engine.next_offset for engine in self.engines]):
            self.process(partition, batch)

    def resting(self) -> int:
        """How many orders rest."""
        return sum(engine.engine.open_orders.count for engine in self.engines)
