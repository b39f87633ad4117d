"""The memory of recent events: what it finds, and what it may forget."""

from __future__ import annotations

import json

import pytest

from forkast_streams.errors import CorruptLog
from forkast_streams.limits import REPEATS_BYTES_MAX
from forkast_streams.repeats import RecentEvents


def event(sequence: int, *, symbol_id: int = 1, data: str = "") -> bytes:
    return json.dumps({"type": "X", "symbolId": symbol_id, "sequence": sequence, "data": data}).encode()


def test_events_are_told_apart_by_symbol_and_sequence() -> None:
    """Only what has both in common with another event is compared with it."""
    recent = RecentEvents()
    recent.remember([event(1), event(2), event(1, symbol_id=2, data="other")])
    recent.check(1, 1, event(1))
    recent.check(2, 1, event(1, symbol_id=2, data="other"))
    recent.check(1, 3, event(3))
    with pytest.raises(CorruptLog, match="symbol 2 has two different events with sequence 1"):
        recent.check(2, 1, event(1, symbol_id=2))


def test_batches_that_come_while_events_are_compared_are_compared_too() -> None:
    """Repeats go on over many batches, with new events between them; a pause makes no difference."""
    recent = RecentEvents()
    for sequence in range(1, 50):
        recent.remember([event(sequence), event(1)])
        recent.check(1, 1, event(1))
        recent.check(1, sequence, event(sequence))
    recent.remember([event(50)])
    recent.remember([event(51)])
    with pytest.raises(CorruptLog, match="sequence 49"):
        recent.check(1, 49, event(49, data="other"))
    with pytest.raises(CorruptLog, match="sequence 50"):
        recent.check(1, 50, event(50, data="other"))


def test_damage_in_a_batch_is_left_to_its_reader() -> None:
    """What is no event is no reason to stop comparing those that are."""
    recent = RecentEvents()
    recent.remember([None, b"", b"\xff", b"{}", b"[" * 9_999, event(1)])
    with pytest.raises(CorruptLog, match="sequence 1"):
        recent.check(1, 1, event(1, data="other"))


def test_the_memory_is_bounded() -> None:
    """The oldest batches are forgotten when there are too many bytes; the last one never is."""
    big = "x" * (REPEATS_BYTES_MAX // 4)
    recent = RecentEvents()
    for sequence in range(1, 6):
        recent.remember([event(sequence, data=big)])
    recent.check(1, 1, event(1))
    with pytest.raises(CorruptLog, match="sequence 5"):
        recent.check(1, 5, event(5))
    alone = RecentEvents()
    alone.remember([event(1, data=big * 5)])
    with pytest.raises(CorruptLog, match="sequence 1"):
        alone.check(1, 1, event(1))
