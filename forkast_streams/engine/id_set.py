"""A set of order ids in little memory."""

from __future__ import annotations

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from forkast_streams.engine.id_keys import (
    ID_BYTES,
    PARTS,
    OrderKey,
    home_of,
    is_crowded,
    key_in,
    mix,
    more_places,
    part_of,
    tag_of,
)

# Keys are kept under a mask, which nobody outside of the process knows: so nobody can choose the one id that would be
# kept as zeros, which are a free place.
_HIGH_MASK: Final[i64] = hash("high mask")
_LOW_MASK: Final[i64] = hash("low mask")


class IdSet:
    """Order ids in 22 bytes each; in a set of Python's their texts would take 140."""

    __slots__ = ("_count", "_parts")

    def __init__(self, expected: int = 0) -> None:
        """Empty, with room for about ``expected`` ids."""
        self._count = 0
        self._parts = [_Part(expected // PARTS * 3 // 2) for _ in range(PARTS)]

    def __len__(self) -> int:
        return self._count

    def has(self, key: OrderKey) -> bool:
        """Whether the id with this key is there."""
        if self._count == 0:
            return False
        masked = _masked(key)
        mixed = mix(masked)
        return self._parts[part_of(mixed)].has(masked, mixed)

    def add(self, key: OrderKey) -> bool:
        """Put in the id with this key; return whether it was not there."""
        masked = _masked(key)
        mixed = mix(masked)
        if not self._parts[part_of(mixed)].add(masked, mixed):
            return False
        self._count += 1
        return True

    def add_all(self, ids: bytes) -> None:
        """Put in the ids that stand in ``ids`` one behind the other, ``ID_BYTES`` each, and are not there."""
        at: i64 = 0
        while at < len(ids):
            self.add(key_in(ids, at))
            at += ID_BYTES

    def keys(self) -> set[OrderKey]:
        """The keys of all ids."""
        return {_masked(masked) for part in self._parts for masked in part.pairs()}


class _Part:
    """Some of the masked keys: ``[high, low, high, low, ...]``, two zeros where a place is free."""

    __slots__ = ("_count", "_slots")

    def __init__(self, places: i64) -> None:
        self._count: i64 = 0
        self._slots = vec[i64]([0] * (2 * places))

    def has(self, masked: OrderKey, mixed: i64) -> bool:
        return self._count != 0 and self._is_taken(_find(self._slots, masked, mixed))

    def add(self, masked: OrderKey, mixed: i64) -> bool:
        if is_crowded(self._count + 1, len(self._slots) >> 1):
            self._grow()
        at = _find(self._slots, masked, mixed)
        if self._is_taken(at):
            return False
        self._slots[at], self._slots[at + 1] = masked
        self._count += 1
        return True

    def pairs(self) -> list[OrderKey]:
        slots = self._slots
        return [(slots[at], slots[at + 1]) for at in range(0, len(slots), 2) if self._is_taken(at)]

    def _is_taken(self, at: i64) -> bool:
        return self._slots[at] != 0 or self._slots[at + 1] != 0

    def _grow(self) -> None:
        old = self._slots
        self._slots = slots = vec[i64]([0] * (2 * more_places(len(old) >> 1)))
        at: i64 = 0
        while at < len(old):
            high, low = old[at], old[at + 1]
            if high != 0 or low != 0:
                masked = high, low
                to = _find(slots, masked, mix(masked))
                slots[to] = high
                slots[to + 1] = low
            at += 2


def _masked(key: OrderKey) -> OrderKey:
    """The key under the mask; of a masked one, the key."""
    high, low = key
    return high ^ _HIGH_MASK, low ^ _LOW_MASK


def _find(slots: vec[i64], masked: OrderKey, mixed: i64) -> i64:
    """Where a masked key is, or else belongs; there must be a free place."""
    high, low = masked
    end: i64 = len(slots)
    at = 2 * home_of(tag_of(mixed), end >> 1)
    while True:
        there, beside = slots[at], slots[at + 1]
        if (there == high and beside == low) or (there == 0 and beside == 0):
            return at
        at += 2
        if at == end:
            at = 0
