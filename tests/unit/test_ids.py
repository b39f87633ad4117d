"""Random ids are what ``uuid.uuid4`` makes, from fewer calls of the system."""

from __future__ import annotations

import uuid

from forkast_streams.orders.ids import RandomIds


def test_ids_are_random_uuids_and_none_comes_twice() -> None:
    """Over several of the chunks that random bytes are taken in."""
    ids = RandomIds()
    dashed = [ids.dashed() for _ in range(1_000)]
    parsed = [uuid.UUID(one) for one in dashed]
    assert [str(one) for one in parsed] == dashed
    assert {(one.version, one.variant) for one in parsed} == {(4, uuid.RFC_4122)}
    assert len(set(parsed)) == len(parsed)
    # Each bit but the six that are fixed comes with both values.
    ones = zeros = 0
    for one in parsed:
        ones, zeros = ones | one.int, zeros | ~one.int & (1 << 128) - 1
    assert (ones & zeros).bit_count() == 122


def test_an_id_without_dashes_is_one_too() -> None:
    assert uuid.UUID(RandomIds().hex()).version == 4
