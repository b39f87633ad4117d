"""Which order ids were used, in little memory."""

from __future__ import annotations

import random
import tracemalloc
import uuid

from forkast_streams.engine.seen_ids import IdSet


def test_what_was_put_in_is_there_and_nothing_else() -> None:
    """Of many ids, half of them put in, and of ids that are like two of those in a row."""
    chance = random.Random(1)
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(20_000)]
    known = IdSet()
    for order_id in ids[::2]:
        assert order_id not in known
        known.add(order_id)
    assert [order_id in known for order_id in ids] == [True, False] * 10_000
    assert known.ids() == set(ids[::2])
    assert len(known) == 10_000


def test_room_that_was_made_beforehand_changes_nothing() -> None:
    """Too little, enough, too much, and what does not fill a bucket: the same ids are in it."""
    chance = random.Random(3)
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(3_000)]
    for expected in (0, 1, 7, 8, 9, 63, 64, 65, 1_000, 2_000, 50_000):
        known = IdSet(expected)
        for order_id in ids[:2_000]:
            known.add(order_id)
        assert known.ids() == set(ids[:2_000])
        assert [order_id in known for order_id in ids] == [True] * 2_000 + [False] * 1_000


def test_no_id_is_found_across_two_others() -> None:
    """Wherever a piece of two ids begins, its dashes are not where those of an id are."""
    template = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
    pieces = [(template * 2)[at : at + 36] for at in range(37)]
    assert [at for at, piece in enumerate(pieces) if piece == template] == [0, 36]


def test_an_id_takes_little_memory() -> None:
    """The ids of a day, of orders that are gone: a set of texts would take 140 bytes for each."""
    chance, count = random.Random(2), 200_000
    tracemalloc.start()
    try:
        known = IdSet()
        for _ in range(count):
            known.add(str(uuid.UUID(int=chance.getrandbits(128))))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(known) == count
    assert taken / count < 50
