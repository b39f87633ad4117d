"""The engine against the slow, obvious exchange, and against what must hold for any exchange."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.property.command_streams import command_streams
from tests.property.invariants import Invariants
from tests.support.exchanges import Engine, Naive
from tests.support.flows import mixed_flow


def run_both(commands: list[dict[str, Any]]) -> Counter[str]:
    """Give both the same commands and compare after each; return how often each kind of answer came."""
    engine, naive = Engine(), Naive()
    invariants: dict[int, Invariants] = {}
    kinds: Counter[str] = Counter()
    for command in commands:
        first = len(engine.envelopes)
        events = engine.process(command)
        assert events == naive.process(command)
        symbol_id = command["symbolId"]
        follower = invariants.setdefault(symbol_id, Invariants())
        follower.follow(engine.envelopes[first:])
        assert follower.sequence == naive.exchange.books[symbol_id].sequence
        kinds.update(data.get("code") or data.get("reason") or kind for kind, data in events)
    for symbol_id, follower in invariants.items():
        assert engine.resting(symbol_id) == naive.resting(symbol_id) == follower.resting()
        assert engine.waiting(symbol_id) == naive.waiting(symbol_id) == follower.waiting()
    return kinds


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(command_streams())
def test_engine_answers_as_the_naive_exchange_does(commands: list[dict[str, Any]]) -> None:
    """The same events with the same data, the same books, and every invariant, after any commands."""
    run_both(commands)


def test_long_flow_has_the_same_answers_and_they_are_all_there() -> None:
    """Thousands of commands on two symbols agree as well, and every kind of answer occurs in them."""
    flows = zip(mixed_flow(3_000, seed=11, symbol_id=1), mixed_flow(3_000, seed=12, symbol_id=2), strict=True)
    kinds = run_both([command for pair in flows for command in pair])
    assert kinds.keys() >= {"ORDER", "TRADE", "AMEND", "USER", "MARKET", "DUPLICATE_ORDER", "INVALID_TICK"}
