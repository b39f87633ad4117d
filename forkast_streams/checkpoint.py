"""Checkpoints of a partition's state as immutable rows of a changelog-backed table.

A checkpoint is a *segment*: what changed since the segment before it. Each segment also carries a slice of all entries
as they are now, the rolling base; when a rotation through all entries is complete, the chain to recover starts at the
segment with which that rotation began, and older rows can go. A segment names the one before it, so a hole in the
chain is always seen, and an older complete chain is used instead.

Rows are never overwritten: their keys hold the input offset they reach and a number of their writer. A worker that
was paused and wakes after its partition moved can only add rows that are right, because the state at an offset is the
same whoever computed it.

This module has no I/O: states and rows in, rows and states out.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import msgspec

from forkast_streams.limits import BASE_SLICE_MIN, BASE_SLICES_MAX, CHECKPOINT_CHUNK_BYTES, JOURNAL_ROWS_MAX

Key = int | str
Journal = list[tuple[int, bytes]]

FORMAT_VERSION = 3
# version, chunk, chunks, checksum of the segment's name and whole body
_ROW_HEADER = struct.Struct(">BHHI")
_JOURNAL_HEADER = struct.Struct(">II")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Checkpointed(Protocol):
    """A state that can be checkpointed: a small head, entries by key, and a journal that only grows.

    Keys and values are what msgpack can carry. The journal is for facts that are added and never change; it is
    grouped into generations, which are forgotten as a whole.
    """

    next_offset: int

    def head(self) -> Any:
        """The small part of the state, whole."""

    def drain_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """Entries that changed and keys that went since the last call."""

    def sweep(self) -> tuple[int, Iterator[tuple[Key, Any]]]:
        """The number of entries and all of them: each as it is when its turn comes, those that are gone left out."""

    def drain_journal(self) -> Journal:
        """What was added to the journal since the last call, by generation."""

    def oldest_generation(self) -> int:
        """The oldest generation of the journal that still matters."""

    @classmethod
    def restore(
        cls, partition: int, next_offset: int, head: Any, entries: Iterable[tuple[Key, Any]], journal: Journal
    ) -> Self:
        """Rebuild the state; raise CorruptLog when the parts contradict each other."""


@dataclass(frozen=True, slots=True, order=True)
class SegmentId:
    """A segment: the input offset it reaches (exclusive) and the number of its writer."""

    reached: int
    writer: int


@dataclass(frozen=True, slots=True)
class Rows:
    """What one checkpoint writes: first the keys to drop, then rows to put, in this order."""

    drops: list[bytes]
    puts: list[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Segment:
    """The decoded body of a complete segment."""

    previous: SegmentId | None
    chain_start: SegmentId
    head: Any
    live: list[tuple[Key, Any]]
    dead: list[Key]


@dataclass(slots=True)
class Recovered:
    """What the rows of a partition hold.

    Attributes:
        newest: the segment the state is at; None when no chain is complete: the state is that of an unread input.
        row_keys: the keys of all rows, whether of use or not.
    """

    newest: SegmentId | None
    chain_start: SegmentId | None
    head: Any
    entries: dict[Key, Any]
    journal: Journal
    row_keys: list[bytes]


@dataclass(slots=True)
class _OpenBlock:
    """The newest ids of the journal's current generation, which small rows and at times a merged row hold."""

    generation: int
    content: bytearray = field(default_factory=bytearray)
    row_keys: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class Checkpointer:
    """Cuts the segments of one partition, from the moment its state was restored.

    Attributes:
        newest: the last segment that was cut.
        chain_start: the segment with which the chain to recover begins.
    """

    partition: int
    writer: int
    newest: SegmentId | None = None
    chain_start: SegmentId | None = None
    _keep_from: int = 0
    # Rows that nothing needs once the chain before the newest one starts behind the offset beside them.
    _droppable: deque[tuple[int, bytes]] = field(default_factory=deque)
    _journal_keys: dict[int, list[bytes]] = field(default_factory=dict)
    _block: _OpenBlock = field(default_factory=lambda: _OpenBlock(0))
    _rotation: Iterator[tuple[Key, Any]] | None = None
    _rotation_start: SegmentId | None = None
    _slice_size: int = BASE_SLICE_MIN

    @classmethod
    def resume(cls, partition: int, writer: int, recovered: Recovered) -> Checkpointer:
        """Go on behind what was recovered."""
        checkpointer = cls(partition, writer, newest=recovered.newest, chain_start=recovered.chain_start)
        for key in sorted(recovered.row_keys, key=_reached_of):
            generation = _generation_of(key)
            if generation is None:
                checkpointer._droppable.append((_reached_of(key), key))
            else:
                checkpointer._journal_keys.setdefault(generation, []).append(key)
        return checkpointer

    def cut(self, state: Checkpointed) -> Rows:
        """Return the rows that bring the table to ``state``.

        The drops concern only rows that neither the newest durable chain nor the one before it needs. The journal
        stands before the segment, so that a complete segment is never without its journal. Between two cuts the
        state must have got further: a segment at the same offset would have the key of the one before it.
        """
        this = SegmentId(state.next_offset, self.writer)
        assert self.newest is None or self.newest < this, f"nothing was processed since {self.newest}"
        drops = self._drain_droppable()
        live, dead = state.drain_changes()
        self._add_base_slice(state, this, live)
        chain_start = self.chain_start = self.chain_start or this
        previous = None if self.newest is None else [self.newest.reached, self.newest.writer]
        body = _encode([previous, [chain_start.reached, chain_start.writer], state.head(), live, dead])
        puts = [*self._journal_rows(state, this), *self._segment_rows(this, body)]
        self._forget_generations(state.oldest_generation(), this)
        self.newest = this
        return Rows(drops, puts)

    def _add_base_slice(self, state: Checkpointed, this: SegmentId, live: list[tuple[Key, Any]]) -> None:
        """Add the next entries of the rotation to ``live``; begin and end rotations."""
        if self._rotation is None:
            count, self._rotation = state.sweep()
            self._rotation_start = this
            self._slice_size = max(BASE_SLICE_MIN, count // BASE_SLICES_MAX)
        written = {key for key, _ in live}
        for taken, entry in enumerate(self._rotation, start=1):
            if entry[0] not in written:
                live.append(entry)
            if taken == self._slice_size:
                return
        if self.chain_start is not None:
            self._keep_from = self.chain_start.reached
        self.chain_start = self._rotation_start
        self._rotation = None

    def _drain_droppable(self) -> list[bytes]:
        drops = []
        while self._droppable and self._droppable[0][0] < self._keep_from:
            drops.append(self._droppable.popleft()[1])
        return drops

    def _journal_rows(self, state: Checkpointed, this: SegmentId) -> list[tuple[bytes, bytes]]:
        """Rows for what is new in the journal; many small rows of a block become one, as large as a row may be."""
        rows: list[tuple[bytes, bytes]] = []
        for generation, added in state.drain_journal():
            if generation != self._block.generation:
                self._block = _OpenBlock(generation)
            for part in _chunks(added):
                if len(self._block.content) + len(part) > CHECKPOINT_CHUNK_BYTES:
                    if len(self._block.row_keys) > 1:
                        self._add_merged_row(rows, this)
                    self._block = _OpenBlock(generation)
                self._block.content += part
                if len(self._block.row_keys) >= JOURNAL_ROWS_MAX:
                    self._add_merged_row(rows, this)
                else:
                    self._add_journal_row(rows, this, part)
        return rows

    def _add_merged_row(self, rows: list[tuple[bytes, bytes]], this: SegmentId) -> None:
        """Add a row with all of the block, instead of the rows that it has."""
        block, keys = self._block, self._journal_keys[self._block.generation]
        superseded = set(block.row_keys)
        self._droppable.extend((this.reached, old) for old in block.row_keys)
        keys[:] = [old for old in keys if old not in superseded]
        block.row_keys.clear()
        self._add_journal_row(rows, this, bytes(block.content))

    def _add_journal_row(self, rows: list[tuple[bytes, bytes]], this: SegmentId, blob: bytes) -> None:
        block = self._block
        key = self._journal_key(this, block.generation, len(rows))
        rows.append((key, _JOURNAL_HEADER.pack(block.generation, zlib.crc32(blob)) + blob))
        self._journal_keys.setdefault(block.generation, []).append(key)
        block.row_keys.append(key)

    def _journal_key(self, this: SegmentId, generation: int, number: int) -> bytes:
        return b"%03d.j.%020d.%08x.%010d.%04d" % (
            self.partition,
            this.reached,
            this.writer,
            generation,
            number,
        )

    def _forget_generations(self, oldest: int, this: SegmentId) -> None:
        for generation in [known for known in self._journal_keys if known < oldest]:
            self._droppable.extend((this.reached, key) for key in self._journal_keys.pop(generation))

    def _segment_rows(self, this: SegmentId, body: bytes) -> list[tuple[bytes, bytes]]:
        parts = _chunks(body)
        checksum = _checksum(this, body)
        rows = [
            (
                b"%03d.s.%020d.%08x.%04d" % (self.partition, this.reached, this.writer, chunk),
                _ROW_HEADER.pack(FORMAT_VERSION, chunk, len(parts), checksum) + part,
            )
            for chunk, part in enumerate(parts)
        ]
        self._droppable.extend((this.reached, key) for key, _ in rows)
        return rows


def recover(rows: Mapping[bytes, bytes]) -> Recovered:
    """Find the newest complete chain among ``rows`` (all of one partition) and put it together."""
    segments = _complete_segments(rows)
    for newest in sorted(segments, reverse=True):
        chain = _chain_to(newest, segments)
        if chain is not None:
            entries: dict[Key, Any] = {}
            for segment in reversed(chain):
                for key in segment.dead:
                    entries.pop(key, None)
                entries.update(segment.live)
            return Recovered(
                newest,
                chain[0].chain_start,
                chain[0].head,
                entries,
                _journal_up_to(newest.reached, rows),
                list(rows),
            )
    return Recovered(None, None, None, {}, [], list(rows))


def _complete_segments(rows: Mapping[bytes, bytes]) -> dict[SegmentId, _Segment]:
    """Decode the segments of which all chunks are there and whole."""
    chunks: dict[SegmentId, dict[int, bytes]] = {}
    for key in rows:
        fields = key.split(b".")
        if fields[1] == b"s":
            chunks.setdefault(SegmentId(int(fields[2]), int(fields[3], 16)), {})[int(fields[4])] = rows[key]
    segments = {}
    for segment_id, parts in chunks.items():
        body = _body_of(segment_id, parts)
        if body is not None:
            previous, chain_start, head, live, dead = _decode(body)
            segments[segment_id] = _Segment(
                None if previous is None else SegmentId(*previous), SegmentId(*chain_start), head, live, dead
            )
    return segments


def _checksum(segment_id: SegmentId, body: bytes) -> int:
    """Of the name as well: a whole body under the name of a later segment would make a worker skip input."""
    return zlib.crc32(body, zlib.crc32(b"%020d.%08x" % (segment_id.reached, segment_id.writer)))


def _body_of(segment_id: SegmentId, parts: dict[int, bytes]) -> bytes | None:
    """The body that ``parts`` make up, None when a part is missing or damaged."""
    headers = set()
    for part in parts.values():
        if len(part) < _ROW_HEADER.size:
            return None
        version, _, count, checksum = _ROW_HEADER.unpack_from(part)
        headers.add((version, count, checksum))
    if len(headers) != 1:
        return None
    version, count, checksum = headers.pop()
    if version != FORMAT_VERSION or set(parts) != set(range(count)):
        return None
    body = b"".join(parts[chunk][_ROW_HEADER.size :] for chunk in range(count))
    return body if _checksum(segment_id, body) == checksum else None


def _chain_to(newest: SegmentId, segments: dict[SegmentId, _Segment]) -> list[_Segment] | None:
    """The segments from ``newest`` back to its chain's start; None when one is missing."""
    start = segments[newest].chain_start
    chain = []
    at: SegmentId | None = newest
    while at is not None:
        segment = segments.get(at)
        if segment is None:
            return None
        chain.append(segment)
        if at == start:
            return chain
        # A chain leads back to earlier input; one that does not would never end.
        if segment.previous is not None and segment.previous.reached >= at.reached:
            return None
        at = segment.previous
    return None


def _journal_up_to(reached: int, rows: Mapping[bytes, bytes]) -> Journal:
    """The journal's rows of segments up to ``reached``; those of later ones are of a future the state is not at."""
    journal = []
    for key in sorted(rows):
        fields = key.split(b".")
        if fields[1] == b"j" and int(fields[2]) <= reached:
            row = rows[key]
            # What is damaged is left out; the state knows how many ids it must find, and stops without them.
            if len(row) < _JOURNAL_HEADER.size:
                continue
            generation, checksum = _JOURNAL_HEADER.unpack_from(row)
            blob = row[_JOURNAL_HEADER.size :]
            if zlib.crc32(blob) == checksum:
                journal.append((generation, blob))
    return journal


def _chunks(body: bytes) -> list[bytes]:
    return [body[at : at + CHECKPOINT_CHUNK_BYTES] for at in range(0, len(body), CHECKPOINT_CHUNK_BYTES)] or [b""]


def _reached_of(key: bytes) -> int:
    return int(key.split(b".")[2])


def _generation_of(key: bytes) -> int | None:
    fields = key.split(b".")
    return int(fields[4]) if fields[1] == b"j" else None
