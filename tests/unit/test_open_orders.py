"""Open orders are found by their ids, whatever came and went."""

from __future__ import annotations

import random
import uuid
from decimal import Decimal
from itertools import product

import pytest

from forkast_streams.engine import id_keys
from forkast_streams.engine.commands import BUY, cancel_order, limit_order
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import CommandRejected, OrderAccepted, OrderCancelled
from forkast_streams.engine.id_keys import order_key
from forkast_streams.engine.matching_engine import MatchingEngine
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Order, UserOrders
from forkast_streams.engine.order_terms import PLAIN
from forkast_streams.engine.rejections import Rejection

_OWNER = UserOrders(1, 1)


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))


def _order(order_id: str) -> Order:
    return Order(1, order_id, order_key(order_id), _OWNER, BUY, 100, 1, 1, PLAIN)


@pytest.mark.parametrize("shift", [0, 32, 64, 100])
def test_what_is_open_is_found_and_nothing_else(shift: int) -> None:
    """Through thousands of orders that come and go at random, by ids alike; a dict says what is right."""
    chance = random.Random(shift)
    table, right = OpenOrders(), dict[str, Order]()
    for most in (5, 300, 4_000, 50, 0):
        for _ in range(6_000):
            order_id = _id(chance.randrange(8_000) << shift)
            if order_id in right and (len(right) > most or chance.random() < 0.3):
                table.remove(right.pop(order_id))
            elif order_id not in right and len(right) < most:
                right[order_id] = order = _order(order_id)
                table.add(order)
            assert table.get(order_id) is right.get(order_id)
        assert table.count == len(right)
        assert all(table.get(_id(number << shift)) is right.get(_id(number << shift)) for number in range(8_000))


def test_orders_whose_keys_mix_to_the_same_are_told_apart() -> None:
    """The last word has the whole key."""
    third, fourth = _sum_of_nothing(id_keys._FACTOR_3, id_keys._FACTOR_4, 62)
    one = max(0, -third) << 32 | max(0, -fourth)
    other = one + (third << 32) + fourth
    assert id_keys.mix(order_key(_id(one))) == id_keys.mix(order_key(_id(other)))
    assert one != other
    table, order = OpenOrders(), _order(_id(one))
    table.add(order)
    assert table.find(order.key) is order
    assert table.find(order_key(_id(other))) is None


def _sum_of_nothing(first: int, second: int, bits: int) -> tuple[int, int]:
    """Two numbers of half as many bits by which two factors come to 0 in their last ``bits``, by Euclid's algorithm."""
    larger, smaller = 1 << bits, -first * pow(second, -1, 1 << bits) % (1 << bits)
    before, now = 0, 1
    while smaller >> (bits // 2):
        times, rest = divmod(larger, smaller)
        larger, smaller = smaller, rest
        before, now = now, before - times * now
    return now, smaller


@pytest.mark.parametrize("bits", [1, 4, 8, 16, 31])
def test_ids_that_are_chosen_for_it_do_not_crowd_at_one_place(bits: int) -> None:
    """Whoever may write records chooses ids; those that differ in the first bits of their words only, as others do."""
    chance = random.Random(bits)
    words = range(1 << bits) if bits < 5 else [chance.getrandbits(bits) for _ in range(16)]
    keys = {
        order_key(_id(sum(word << 32 * at + 32 - bits for at, word in enumerate(four))))
        for four in product(words, repeat=4)
    }
    places = {id_keys.mix(key) >> 24 for key in keys}
    assert len(places) > 0.99 * len(keys)


def test_an_id_is_one_order_in_all_symbols_of_a_partition() -> None:
    """Another symbol's order is neither cancelled nor placed again."""
    engine = MatchingEngine()
    for symbol_id in (1, 2):
        engine.process(DefineSymbol(symbol_id, f"S{symbol_id}", Decimal(1), Decimal(1), "TRADING", None), symbol_id, 1)
    here, there = (limit_order(symbol_id, _id(7), 5, BUY, 1, 10) for symbol_id in (1, 2))
    assert isinstance(engine.process(here, 3, 1)[0], OrderAccepted)
    for command, code in (
        (there, Rejection.DUPLICATE_ORDER),
        (cancel_order(2, _id(7), 5), Rejection.UNKNOWN_ORDER),
    ):
        (event,) = engine.process(command, 4, 1)
        assert isinstance(event, CommandRejected)
        assert event.code is code
    assert (engine.markets[1].book.count, engine.markets[2].book.count, engine.open_orders.count) == (1, 0, 1)
    assert isinstance(engine.process(cancel_order(1, _id(7), 5), 5, 1)[0], OrderCancelled)
    assert engine.open_orders.count == 0
