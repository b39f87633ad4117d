"""New orders: what they must keep to, and how they come in."""

from __future__ import annotations

from collections import deque

from forkast_streams.engine.commands import (
    EXPIRE_TAKER,
    FOK,
    GTC,
    IOC,
    LIMIT,
    STOP,
    STOP_LIMIT,
    NewOrder,
)
from forkast_streams.engine.events import (
    BY_REPLACE,
    BY_SELF_TRADE,
    Event,
    OrderAccepted,
    OrderCancelled,
    OrderDetails,
)
from forkast_streams.engine.id_keys import OrderKey
from forkast_streams.engine.market import Market
from forkast_streams.engine.matching import spend
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_checks import broken_rule, broken_size_rule, why_not_trading
from forkast_streams.engine.order_terms import PLAIN, OrderTerms, shared_terms
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.stops import is_reached
from forkast_streams.engine.symbols import EXACT, TRADING, decimal_of


def why_not_new(market: Market, command: NewOrder, timestamp: int) -> Rejection | None:
    """The first reason, in the documented order, for which an order whose id is new cannot be accepted."""
    replaced = None
    if command.replaces is not None:
        replaced = market.book.order(command.replaces)
        if replaced is None or replaced.owner.user_id != command.user_id:
            return Rejection.UNKNOWN_ORDER
    rejection = why_not_trading(market.symbol) or broken_rule(command, market.symbol)
    if rejection is not None:
        return rejection
    if command.expires_at is not None and command.expires_at <= timestamp:
        return Rejection.ALREADY_EXPIRED
    return _why_not_now(market, command, replaced)


def place_plain(market: Market, command: NewOrder, key: OrderKey, offset: int, events: list[Event]) -> bool:
    """Let an order come in if it `is_plain` and nothing is against it; return whether it did.

    This is what `why_not_new` and `place` come to for nearly every order, each field read and each number converted
    once. Whatever could be refused is left to them, who know the reason.
    """
    symbol, book = market.symbol, market.book
    if not command.is_plain or symbol.status != TRADING:
        return False
    assert command.price is not None, "a plain order has a price"
    assert command.quantity is not None, "a plain order has a quantity"
    price_ticks, quantity = symbol.ticks.units(command.price), symbol.lots.units(command.quantity)
    if price_ticks <= 0 or quantity <= 0:
        return False
    if symbol.has_optional_rules and (
        broken_size_rule(quantity, price_ticks, symbol) is not None or _why_not_now(market, command, None) is not None
    ):
        return False
    order_id, user_id, side = command.order_id, command.user_id, command.side
    events.append(
        OrderAccepted(
            order_id, user_id, LIMIT, side, price_ticks, quantity, GTC, command.client_order_id, command.command_id
        )
    )
    owner = book.orders_of(user_id)
    order = Order(offset, order_id, key, owner, side, price_ticks, quantity, quantity, PLAIN)
    market.enter(order, events, command.command_id, in_depth=True)
    return True


def place(market: Market, command: NewOrder, key: OrderKey, offset: int, events: list[Event]) -> None:
    """Let an order that can be accepted come in.

    Args:
        market: the order's.
        command: the order.
        key: its id as numbers.
        offset: place of the command in the input.
        events: get what happens.
    """
    symbol, book = market.symbol, market.book
    replaced = None if command.replaces is None else book.order(command.replaces)
    if replaced is not None:
        events.append(market.cancel(replaced, BY_REPLACE, command.command_id))
    if command.quantity is None:
        _place_amount(market, command, key, offset, events)
        return
    terms = _terms(market, command)
    quantity = symbol.lots.units(command.quantity)
    price_ticks = None if command.price is None else symbol.ticks.units(command.price)
    events.append(_accepted(command, price_ticks, quantity, terms))
    order = Order(
        offset,
        command.order_id,
        key,
        book.orders_of(command.user_id),
        command.side,
        price_ticks or 0,
        quantity,
        quantity,
        terms,
    )
    if terms.stop_ticks is None:
        market.enter(order, events, command.command_id, in_depth=price_ticks is not None and not terms.display_quantity)
        return
    market.wait(order, terms.stop_ticks)
    if is_reached(order.side, terms.stop_ticks, book.last_ticks):
        book.side_of(order).remove(order)
        market.run_stops(events, len(events), deque([order]))


def _why_not_now(market: Market, command: NewOrder, replaced: Order | None) -> Rejection | None:
    """Why the order cannot be accepted while the book is as it is."""
    symbol, book = market.symbol, market.book
    price_ticks = None if command.price is None else symbol.ticks.units(command.price)
    if price_ticks is not None and market.is_beyond_collar(price_ticks):
        return Rejection.PRICE_COLLAR
    most = symbol.max_open_orders
    if most is not None and _may_stay(command):
        open_orders = book.orders_of(command.user_id).count - (0 if replaced is None else 1)
        if open_orders >= most:
            return Rejection.TOO_MANY_OPEN_ORDERS
    if command.post_only and command.type == LIMIT:
        assert price_ticks is not None, "the form was checked"
        if market.would_take(command.side, price_ticks, ignoring=replaced):
            return Rejection.POST_ONLY_WOULD_TAKE
    return None


def _may_stay(command: NewOrder) -> bool:
    if command.type == LIMIT:
        return command.time_in_force not in (IOC, FOK)
    return command.type in (STOP, STOP_LIMIT)


def _terms(market: Market, command: NewOrder) -> OrderTerms:
    if (
        command.stop_price is None
        and command.display_quantity is None
        and command.expires_at is None
        and not command.post_only
    ):
        if command.type == LIMIT and command.time_in_force == GTC and command.self_trade_prevention == EXPIRE_TAKER:
            return PLAIN
        return shared_terms(command.type, command.time_in_force, command.self_trade_prevention)
    ticks, lots = market.symbol.ticks.units, market.symbol.lots.units
    return OrderTerms(
        command.type,
        command.time_in_force,
        command.self_trade_prevention,
        None if command.price is None or command.stop_price is None else ticks(command.price),
        None if command.stop_price is None else ticks(command.stop_price),
        None if command.display_quantity is None else lots(command.display_quantity),
        command.expires_at,
        post_only=command.post_only,
    )


def _place_amount(market: Market, command: NewOrder, key: OrderKey, offset: int, events: list[Event]) -> None:
    """Let a market order with an amount of money instead of a quantity come in."""
    assert command.quote_quantity is not None, "the form was checked"
    symbol, book = market.symbol, market.book
    amount = decimal_of(command.quote_quantity)
    terms = _terms(market, command)
    events.append(_accepted(command, None, None, terms))
    owner = book.orders_of(command.user_id)
    order = Order(offset, command.order_id, key, owner, command.side, 0, 0, 0, terms)
    first = len(events)
    worst_ticks = market.market_limit(command.side)
    units = int(EXACT.divide_int(amount, symbol.quote_step))
    left, is_stopped = spend(book, market.changes, order, worst_ticks, units, symbol.max_lots, events)
    if order.remaining or not order.quantity:
        reason = BY_SELF_TRADE if is_stopped else market.why_left(order.side, worst_ticks)
        filled = order.quantity - order.remaining
        spent = EXACT.multiply(symbol.quote_step, units - left)
        events.append(
            OrderCancelled(
                order.id, owner.user_id, order.side, None, 0, filled, 0, reason, command.command_id,
                quote_left=EXACT.subtract(amount, spent),
            )
        )  # fmt: skip
    market.run_stops(events, first, deque())


def _accepted(command: NewOrder, price_ticks: int | None, quantity: int | None, terms: OrderTerms) -> OrderAccepted:
    return OrderAccepted(
        command.order_id,
        command.user_id,
        command.type,
        command.side,
        price_ticks,
        quantity,
        command.time_in_force,
        command.client_order_id,
        command.command_id,
        None if terms is PLAIN and command.replaces is None else _details(command, terms),
    )


def _details(command: NewOrder, terms: OrderTerms) -> OrderDetails | None:
    is_ordinary = terms is shared_terms(terms.type, terms.time_in_force, EXPIRE_TAKER)
    if is_ordinary and command.quote_quantity is None and command.replaces is None:
        return None
    return OrderDetails(
        None if command.quote_quantity is None else decimal_of(command.quote_quantity),
        terms.stop_ticks,
        terms.expires_at,
        terms.post_only,
        terms.display_quantity,
        terms.self_trade_prevention,
        command.replaces,
    )
