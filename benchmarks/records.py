"""Records as the engine and a keeper read them, and how many of them a fetch brings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forkast_streams.limits import FETCH_BYTES_MAX
from forkast_streams.records import Headers
from forkast_streams.topics import partition_for

# A symbol's id and a record's value.
SymbolRecord = tuple[int, bytes]

START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """What the engine reads of a consumed record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


def batches(records: Iterable[SymbolRecord], offsets: list[int]) -> Iterator[tuple[int, list[Record]]]:
    """Records as fetches deliver them: a partition's, as many as fit into one fetch; the rest at the end."""
    waiting: list[list[Record]] = [[] for _ in offsets]
    sizes, offsets = [0] * len(offsets), list(offsets)
    for symbol_id, value in records:
        partition = partition_for(symbol_id, len(offsets))
        record = Record(offsets[partition], START_MS + offsets[partition], str(symbol_id).encode(), value)
        offsets[partition] += 1
        waiting[partition].append(record)
        sizes[partition] += len(value) + 10
        if sizes[partition] >= FETCH_BYTES_MAX:
            yield partition, waiting[partition]
            waiting[partition], sizes[partition] = [], 0
    yield from ((partition, batch) for partition, batch in enumerate(waiting) if batch)
