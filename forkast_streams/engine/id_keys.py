"""Order ids as numbers, and what the hash tables of them have in common.

Ids are UUIDs, numbers of 128 bits, which are taken for two signed ones of 64: what mypyc has an array of. A table is
such an array, with open addressing and linear probing.
"""

from __future__ import annotations

from typing import Final

from librt.strings import BytesWriter, read_i64_be, write_i32_be, write_i64_be
from mypy_extensions import i32, i64

ID_BYTES: Final = 16
OrderKey = tuple[i64, i64]

# Tables are divided into parts that grow one by one, so that no order waits until a million ids are put elsewhere.
_PART_BITS: Final = 4
PARTS: Final = 1 << _PART_BITS
_LOW_16: Final[i64] = 0xFFFF
_LOW_32: Final[i64] = 0xFFFFFFFF
# The largest number that compiled code has as such: a larger one is an object, which each use of it would convert.
_LOW_62: Final[i64] = 0x3FFFFFFFFFFFFFFF
_SIGN_32: Final[i64] = 0x80000000
# Masks for eight characters at a time: the digits in them, which of them are letters, and what is put together of them.
_DIGITS: Final[i64] = 0x0F0F0F0F0F0F0F0F
_LETTERS: Final[i64] = 0x0101010101010101
_PAIRS: Final[i64] = 0x00FF00FF00FF00FF
_FOURS: Final[i64] = 0x0000FFFF0000FFFF
_ZEROS: Final[i64] = 0x3030303030303030
_SIXES: Final[i64] = 0x0606060606060606
_DASH: Final[i64] = 0x2D
# They come from Python's hash, which nobody outside of the process knows: so nobody can choose ids that all belong to
# one place.
_FACTOR_1: Final[i64] = hash("first factor") | 1
_FACTOR_2: Final[i64] = hash("second factor") | 1
_FACTOR_3: Final[i64] = hash("third factor") | 1
_FACTOR_4: Final[i64] = hash("fourth factor") | 1


def order_key(order_id: str) -> OrderKey:
    """The key of an id, a UUID in lower case with its dashes."""
    text = order_id.encode()
    high = _signed(_hex(read_i64_be(text, 0))) << 32
    high |= _hex(read_i64_be(text, 9) >> 32 << 32 | read_i64_be(text, 14) >> 32)
    low = _signed(_hex(read_i64_be(text, 19) >> 32 << 32 | read_i64_be(text, 24) >> 32)) << 32
    low |= _hex(read_i64_be(text, 28))
    return high, low


def id_of(key: OrderKey) -> str:
    """The id that has this key."""
    high, low = key
    first, second = _digits(high >> 32 & _LOW_32), _digits(high & _LOW_32)
    third, fourth = _digits(low >> 32 & _LOW_32), _digits(low & _LOW_32)
    writer = BytesWriter()
    write_i64_be(writer, first)
    write_i64_be(writer, _DASH << 56 | second >> 32 << 24 | _DASH << 16 | (second >> 16 & _LOW_16))
    write_i64_be(writer, (second & _LOW_16) << 48 | _DASH << 40 | third >> 32 << 8 | _DASH)
    write_i64_be(writer, (third & _LOW_32) << 32 | fourth >> 32)
    write_i32_be(writer, i32(fourth & _LOW_32))
    return writer.getvalue().decode()


def bytes_of(key: OrderKey) -> bytes:
    """The key in ``ID_BYTES``."""
    writer = BytesWriter()
    write_key(writer, key)
    return writer.getvalue()


def write_key(writer: BytesWriter, key: OrderKey) -> None:
    """Write the key in ``ID_BYTES``."""
    high, low = key
    write_i64_be(writer, high)
    write_i64_be(writer, low)


def key_in(ids: bytes, at: i64) -> OrderKey:
    """The key that stands in ``ID_BYTES`` at a place."""
    return read_i64_be(ids, at), read_i64_be(ids, at + 8)


def mix(key: OrderKey) -> i64:
    """The number that says where a key is in a table, of 62 bits: uncompiled, nothing overflows."""
    high, low = key
    mixed = (high >> 32) * _FACTOR_1 + (high & _LOW_32) * _FACTOR_2
    return (mixed + (low >> 32) * _FACTOR_3 + (low & _LOW_32) * _FACTOR_4) & _LOW_62


def part_of(mixed: i64) -> i64:
    """The part of a table in which a key is."""
    return mixed >> (62 - _PART_BITS)


def is_crowded(count: i64, places: i64) -> bool:
    """Whether so many of so many places are too many: looking for a key would go past too many others."""
    return 5 * count > 4 * places


def more_places(places: i64) -> i64:
    """How many places a part has after it has grown."""
    return places + (places >> 2) + 4


def tag_of(mixed: i64) -> i64:
    """What tells keys in a part of a table apart, nearly always: 32 bits."""
    return mixed >> 24 & _LOW_32


def home_of(tag: i64, places: i64) -> i64:
    """The place at which a key of this tag is if it was free when the key came."""
    return tag * places >> 32


def _hex(text: i64) -> i64:
    """The number that eight digits are the text of, all of them at a time."""
    # Of 0 to 9 the last four bits are the digit, of a to f they are nine less.
    number = (text & _DIGITS) + 9 * (text >> 6 & _LETTERS)
    number = (number | number >> 4) & _PAIRS
    number = (number | number >> 8) & _FOURS
    return (number | number >> 16) & _LOW_32


def _digits(number: i64) -> i64:
    """The text of a number of 32 bits, all of its eight digits at a time."""
    number = (number | number << 16) & _FOURS
    number = (number | number << 8) & _PAIRS
    number = (number | number << 4) & _DIGITS
    # From ten on, six more reach the next sixteen; the letters are 39 characters behind the digits.
    return number + _ZEROS + 39 * (number + _SIXES >> 4 & _LETTERS)


def _signed(number: i64) -> i64:
    """A number of 32 bits with its first bit as the sign; not by shifts, because uncompiled no bit falls out."""
    return (number ^ _SIGN_32) - _SIGN_32
