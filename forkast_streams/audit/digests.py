"""Digests of all records seen, on disk, so that a repeat is recognised however late it comes."""

from __future__ import annotations

import tempfile
from array import array
from bisect import bisect_right
from struct import Struct

_ENTRY = Struct(">q16s")
_BLOCK_ENTRIES = 256
_BLOCK_BYTES = _BLOCK_ENTRIES * _ENTRY.size


class DigestFile:
    """A temporary file, gone with the object, that many series share block by block."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the object
        self._blocks = 0

    def append(self, block: bytes) -> int:
        """Write a block; return its number."""
        self._file.seek(self._blocks * _BLOCK_BYTES)
        self._file.write(block)
        self._blocks += 1
        return self._blocks - 1

    def read(self, block: int, entry: int) -> bytes:
        """One entry of a block."""
        self._file.seek(block * _BLOCK_BYTES + entry * _ENTRY.size)
        return self._file.read(_ENTRY.size)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()


class DigestSeries:
    """Digests by a number that grows: the events of a symbol by sequence, the dead letters of a partition by offset.

    In memory are the last ones and 8 bytes for 256 others.
    """

    def __init__(self, file: DigestFile) -> None:
        self._file = file
        self._full = array("q")
        self._tail = bytearray()

    def append(self, key: int, digest: bytes) -> None:
        """Add the digest of ``key``, which is larger than all before."""
        self._tail += _ENTRY.pack(key, digest)
        if len(self._tail) == _BLOCK_BYTES:
            self._full.append(self._file.append(bytes(self._tail)))
            self._tail.clear()

    def get(self, key: int) -> bytes | None:
        """The digest of ``key``; None when it was never added."""
        count = len(self._full) * _BLOCK_ENTRIES + len(self._tail) // _ENTRY.size
        at = bisect_right(range(count), key, key=lambda place: self._entry(place)[0]) - 1
        if at < 0:
            return None
        found, digest = self._entry(at)
        return digest if found == key else None

    def _entry(self, place: int) -> tuple[int, bytes]:
        block, entry = divmod(place, _BLOCK_ENTRIES)
        if block == len(self._full):
            key, digest = _ENTRY.unpack_from(self._tail, entry * _ENTRY.size)
        else:
            key, digest = _ENTRY.unpack(self._file.read(self._full[block], entry))
        return key, digest
