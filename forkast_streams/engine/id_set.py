"""A set of order ids in little memory.

Ids are UUIDs, numbers of 128 bits, which are kept as two signed ones of 64: what mypyc has an array of.
"""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter, read_i64_be, write_i64_be
from librt.vecs import vec
from mypy_extensions import i64

ID_BYTES: Final = 16

_PARTS: Final = 64
_LOW_32: Final[i64] = 0xFFFFFFFF
_SIGN_32: Final[i64] = 0x80000000
# Masks for eight characters at a time: the digits in them, which of them are letters, and what is put together of them.
_DIGITS: Final[i64] = 0x0F0F0F0F0F0F0F0F
_LETTERS: Final[i64] = 0x0101010101010101
_PAIRS: Final[i64] = 0x00FF00FF00FF00FF
_FOURS: Final[i64] = 0x0000FFFF0000FFFF
_FIRST_4: Final[i64] = 0x7FFFFFFF00000000
# Keys are kept under a mask, and placed by their product with two factors. These come from Python's hash, which nobody
# outside of the process knows: so nobody can choose ids that all belong to one place, or the one id that would be kept
# as zeros, which are a free place.
_HIGH_MASK: Final[i64] = hash("high mask")
_LOW_MASK: Final[i64] = hash("low mask")
_HIGH_FACTOR: Final[i64] = hash("high factor") | 1
_LOW_FACTOR: Final[i64] = hash("low factor") | 1


class IdSet:
    """Order ids in 21 bytes each; in a set of Python's their texts would take 140.

    A hash table with open addressing. It is divided into parts that grow one by one, so that no order waits until a
    million ids have been put elsewhere.
    """

    __slots__ = ("_count", "_parts")

    def __init__(self, expected: int = 0) -> None:
        """Empty, with room for about ``expected`` ids."""
        self._count = 0
        self._parts = [_Part(expected // _PARTS * 5 // 4) for _ in range(_PARTS)]

    def __len__(self) -> int:
        return self._count

    def has(self, high: i64, low: i64) -> bool:
        """Whether the id with this key is there."""
        return self._count != 0 and self._part(high, low).has(high ^ _HIGH_MASK, low ^ _LOW_MASK)

    def add(self, high: i64, low: i64) -> bool:
        """Put in the id with this key; return whether it was not there."""
        if not self._part(high, low).add(high ^ _HIGH_MASK, low ^ _LOW_MASK):
            return False
        self._count += 1
        return True

    def add_all(self, ids: bytes) -> None:
        """Put in the ids that stand in ``ids`` one behind the other, ``ID_BYTES`` each, and are not there."""
        at: i64 = 0
        while at < len(ids):
            self.add(read_i64_be(ids, at), read_i64_be(ids, at + 8))
            at += ID_BYTES

    def keys(self) -> set[tuple[int, int]]:
        """The keys of all ids."""
        pairs = [pair for part in self._parts for pair in part.pairs()]
        return {(high ^ _HIGH_MASK, low ^ _LOW_MASK) for high, low in pairs}

    def _part(self, high: i64, low: i64) -> _Part:
        return self._parts[_mixed(high ^ _HIGH_MASK, low ^ _LOW_MASK) >> 58 & (_PARTS - 1)]


class _Part:
    """Pairs of numbers by linear probing, at most seven eighths of the places taken."""

    __slots__ = ("_count", "_places", "_slots")

    def __init__(self, places: i64) -> None:
        self._places: i64 = places
        self._count: i64 = 0
        self._slots = vec[i64]([0] * (2 * places))

    def has(self, high: i64, low: i64) -> bool:
        return self._count != 0 and self._is_taken(self._find(high, low))

    def add(self, high: i64, low: i64) -> bool:
        if 8 * (self._count + 1) > 7 * self._places:
            self._grow()
        at = self._find(high, low)
        if self._is_taken(at):
            return False
        self._slots[at] = high
        self._slots[at + 1] = low
        self._count += 1
        return True

    def pairs(self) -> list[tuple[int, int]]:
        slots = self._slots
        return [(slots[at], slots[at + 1]) for at in range(0, len(slots), 2) if self._is_taken(at)]

    def _find(self, high: i64, low: i64) -> i64:
        """Where the pair is, or else belongs."""
        slots = self._slots
        end = len(slots)
        at = 2 * ((_mixed(high, low) >> 24 & _LOW_32) * self._places >> 32)
        while (slots[at] != high or slots[at + 1] != low) and (slots[at] != 0 or slots[at + 1] != 0):
            at += 2
            if at == end:
                at = 0
        return at

    def _is_taken(self, at: i64) -> bool:
        return self._slots[at] != 0 or self._slots[at + 1] != 0

    def _grow(self) -> None:
        old = self._slots
        self._places += (self._places >> 2) + 4
        self._slots = slots = vec[i64]([0] * (2 * self._places))
        at: i64 = 0
        while at < len(old):
            high, low = old[at], old[at + 1]
            if high != 0 or low != 0:
                to = self._find(high, low)
                slots[to] = high
                slots[to + 1] = low
            at += 2


def key_of(order_id: str) -> tuple[i64, i64]:
    """The key of an id, a UUID in lower case with its dashes."""
    text = order_id.encode()
    high = _signed(_hex(read_i64_be(text, 0))) << 32
    high |= _hex((read_i64_be(text, 9) & _FIRST_4) | read_i64_be(text, 14) >> 32)
    low = _signed(_hex((read_i64_be(text, 19) & _FIRST_4) | read_i64_be(text, 24) >> 32)) << 32
    low |= _hex(read_i64_be(text, 28))
    return high, low


def bytes_of(order_id: str) -> bytes:
    """The id in ``ID_BYTES``."""
    high, low = key_of(order_id)
    writer = BytesWriter()
    write_i64_be(writer, high)
    write_i64_be(writer, low)
    return writer.getvalue()


def _hex(text: i64) -> i64:
    """The number that eight digits are the text of, all of them at a time."""
    # Of 0 to 9 the last four bits are the digit, of a to f they are nine less.
    number = (text & _DIGITS) + 9 * (text >> 6 & _LETTERS)
    number = (number | number >> 4) & _PAIRS
    number = (number | number >> 8) & _FOURS
    return (number | number >> 16) & _LOW_32


def _signed(number: i64) -> i64:
    """A number of 32 bits with its first bit as the sign; not by shifts, because uncompiled no bit falls out."""
    return (number ^ _SIGN_32) - _SIGN_32


def _mixed(high: i64, low: i64) -> i64:
    return high * _HIGH_FACTOR + low * _LOW_FACTOR
