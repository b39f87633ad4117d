"""One side of the engine's book keeps its levels in order, however many there are."""

from __future__ import annotations

import random
import uuid

import pytest

from forkast_streams.engine import order_book
from forkast_streams.engine.commands import BUY
from forkast_streams.engine.id_keys import order_key
from forkast_streams.engine.order import Order, UserOrders
from forkast_streams.engine.order_book import BookSide
from forkast_streams.engine.order_terms import PLAIN

_OWNER = UserOrders(1, 1)


def _order(number: int, price_ticks: int) -> Order:
    order_id = str(uuid.UUID(int=number))
    return Order(number, order_id, order_key(order_id), _OWNER, BUY, price_ticks, 1, 1, PLAIN)


def _is_right(side: BookSide, right: list[Order]) -> bool:
    lists = [*side.farther, side.levels]
    return (
        [order.offset for order in side] == [order.offset for order in right]
        and side.first() is (right[0] if right else None)
        and all(0 < len(levels) <= order_book._LIST_MAX for levels in lists if right)
        and (bool(right) or lists == [[]])
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("taken", ["any", "first", "last", "oldest"])
def test_orders_stand_by_price_and_arrival(sign: int, taken: str) -> None:
    """While thousands of levels come and go, wherever they do; a sorted list says what is right."""
    chance = random.Random(f"{sign} {taken}")
    side, held, number = BookSide(sign), list[Order](), 0
    for most in (3_000, 100, 2_000, 0):
        while len(held) != most:
            for _ in range(min(100, abs(most - len(held)))):
                if len(held) < most:
                    number += 1
                    held.append(_order(number, chance.randrange(1, 4_000)))
                    side.append(held[-1])
                else:
                    held.sort(key=lambda order: (-order.price_ticks * sign, order.offset))
                    if taken == "oldest":
                        gone = min(held, key=lambda order: order.offset)
                    else:
                        gone = held[{"first": 0, "last": -1, "any": chance.randrange(len(held))}[taken]]
                    held.remove(gone)
                    side.remove(gone)
            held.sort(key=lambda order: (-order.price_ticks * sign, order.offset))
            assert _is_right(side, held)


def test_levels_that_grow_away_from_the_best_price_or_towards_it() -> None:
    """Prices in order, either way, and gone in the order in which they came."""
    for prices in (range(1, 5_001), range(5_000, 0, -1)):
        side = BookSide(1)
        orders = [_order(number, price) for number, price in enumerate(prices)]
        for order in orders:
            side.append(order)
        assert _is_right(side, sorted(orders, key=lambda order: -order.price_ticks))
        for order in orders:
            side.remove(order)
        assert _is_right(side, [])
