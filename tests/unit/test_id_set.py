"""Which order ids were used, in little memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
import uuid

from forkast_streams.engine.id_keys import id_of, order_key
from forkast_streams.engine.id_set import IdSet


def _some(chance: random.Random, count: int) -> list[tuple[int, int]]:
    return [order_key(str(uuid.UUID(int=chance.getrandbits(128)))) for _ in range(count)]


def test_a_key_is_the_id_as_two_signed_numbers() -> None:
    """Of any id, with the bits at both ends of each half set and not set; and back."""
    chance = random.Random(4)
    numbers = [0, 1, 1 << 63, 1 << 64, 1 << 127, (1 << 128) - 1, *(chance.getrandbits(128) for _ in range(1_000))]
    for number in numbers:
        order_id = str(uuid.UUID(int=number))
        high, low = order_key(order_id)
        assert id_of((high, low)) == order_id
        assert (high << 64) + (low & (1 << 64) - 1) == number - (1 << 128 if number >> 127 else 0)


def test_what_was_put_in_is_there_and_nothing_else() -> None:
    """Of many ids, half of them put in, one of them zero."""
    keys = [(0, 0), (1, 0), (0, 1), *_some(random.Random(1), 19_997)]
    known = IdSet()
    for high, low in keys[::2]:
        assert not known.has((high, low))
        assert known.add((high, low))
        assert not known.add((high, low))
    assert [known.has(key) for key in keys] == [True, False] * 10_000
    assert known.keys() == set(keys[::2])
    assert len(known) == 10_000


def test_ids_alike_are_told_apart() -> None:
    """Ids that count up in one place of the id, as some clients make them."""
    for shift in (0, 32, 64, 100):
        keys = [order_key(str(uuid.UUID(int=number << shift))) for number in range(2_000)]
        known = IdSet()
        for key in keys[::2]:
            known.add(key)
        assert [known.has(key) for key in keys] == [True, False] * 1_000


def test_room_that_was_made_beforehand_changes_nothing() -> None:
    """Too little, enough and too much: the same ids are in it."""
    keys = _some(random.Random(3), 3_000)
    blob = b"".join(struct.pack(">qq", *key) for key in [*keys[:2_000], *keys[:10]])
    for expected in (0, 1, 63, 64, 65, 1_000, 2_000, 50_000):
        known = IdSet(expected)
        known.add_all(blob)
        assert len(known) == 2_000
        assert known.keys() == set(keys[:2_000])
        assert [known.has(key) for key in keys] == [True] * 2_000 + [False] * 1_000


def test_an_id_takes_little_memory() -> None:
    """The ids of a day, of orders that are gone: a set of texts would take 140 bytes for each."""
    keys = _some(random.Random(2), 200_000)
    tracemalloc.start()
    try:
        known = IdSet()
        for key in keys:
            known.add(key)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(known) == len(keys)
    assert 16 < taken / len(keys) < 25
