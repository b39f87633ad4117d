"""Market data that was restored from its checkpoints is as if nothing had happened."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from forkast_streams.checkpoint import Key
from forkast_streams.market_data.state import MarketDataState
from tests.support.market_events import HOME, engine_with, two_symbol_flow


def all_entries(state: MarketDataState) -> dict[Key, Any]:
    """All entries of ``state`` as they are now."""
    return dict(state.sweep()[1])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(4, 300),
    cuts=st.lists(st.tuples(st.integers(0, 700), st.booleans()), max_size=8),
)
def test_restored_state_goes_on_as_the_uninterrupted_one(seed: int, count: int, cuts: list[tuple[int, bool]]) -> None:
    """Cut anywhere, checkpointed there and at times restored, it makes the same changes and checkpoints."""
    records = engine_with(two_symbol_flow(count, seed=seed))[1]
    uninterrupted, state = MarketDataState(HOME), MarketDataState(HOME)
    entries: dict[Key, Any] = {}
    at = 0
    for cut, restores in [*sorted((min(cut, len(records)), restores) for cut, restores in cuts), (len(records), True)]:
        assert state.apply(records[at:cut]) == uninterrupted.apply(records[at:cut])
        at = cut
        live, dead = state.drain_changes()
        for key in dead:
            entries.pop(key, None)
        entries.update(live)
        assert entries == all_entries(state)
        if restores:
            state = MarketDataState.restore(HOME, state.next_offset, state.head(), entries.items(), [])
            # Of a command that is not complete the checkpoint has nothing.
            assert state.apply(records[state.next_offset : at]) == []
    assert state.head() == uninterrupted.head()
    assert state.next_offset == uninterrupted.next_offset == len(records)
    assert all_entries(state) == all_entries(uninterrupted)
    for symbol_id, book in uninterrupted.books.items():
        assert state.books[symbol_id].whole() == book.whole()
