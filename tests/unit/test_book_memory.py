"""What a book holds on to: orders lead to each other, and no garbage collector looks for them."""

from __future__ import annotations

import gc
import tracemalloc
import uuid
from decimal import Decimal

from forkast_streams.engine.commands import BUY, SELL, NewOrder, cancel_order, limit_order
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.matching_engine import MatchingEngine

# As the decoder gives them: the same Decimal for the same price.
_PRICES = [Decimal(number) for number in range(151)]


def _engine() -> MatchingEngine:
    engine = MatchingEngine()
    engine.process(DefineSymbol(1, "S1", Decimal("0.01"), Decimal(1), "TRADING", None), 0, 0)
    return engine


def _order(number: int, user_id: int) -> NewOrder:
    order_id = str(uuid.UUID(int=number << 64))
    is_buy = bool(number % 2)
    price = _PRICES[100 - number % 50 if is_buy else 101 + number % 50]
    return limit_order(1, order_id, user_id, BUY if is_buy else SELL, 5, price)


def test_a_book_that_goes_takes_its_orders_along() -> None:
    """A worker that loses a partition to another one must not keep a million orders."""
    # So many that what Python keeps of the uncompiled ones' keys, two thousand free pairs, is no hundredth of them.
    orders = [_order(number, 1 + number % 7) for number in range(1, 30_001)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        engine = _engine()
        for number, order in enumerate(orders, start=1):
            engine.process(order, number, number)
        assert engine.markets[1].book.count == len(orders)
        held, _ = tracemalloc.get_traced_memory()
        del engine
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert held > len(orders) * 200
    assert left < held / 100


def test_users_who_come_and_go_are_forgotten() -> None:
    """Users without orders are kept for when they come back, but no more than some."""
    engine = _engine()
    users = engine.markets[1].book.users
    for number in range(1, 10_001):
        order = _order(number, number)
        engine.process(order, 2 * number, number)
        if number > 100:
            engine.process(cancel_order(1, order.order_id, number), 2 * number + 1, number)
    assert len(users) < 1_500
    assert sum(owner.count for owner in users.values()) == 100
    assert all(users[user_id].count == 1 for user_id in range(1, 101))
