"""Amendments: another price or quantity for an order, with or without the loss of its place."""

from __future__ import annotations

from collections import deque

from forkast_streams.engine.commands import LIMIT, Amend
from forkast_streams.engine.events import BY_AMEND, Event, OrderAmended, status_of
from forkast_streams.engine.market import Market
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_checks import broken_amend_rule, why_not_trading
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.stops import is_reached
from forkast_streams.engine.symbols import Symbol
from forkast_streams.limits import ICEBERG_SLICES_MAX


def why_not_amend(market: Market, command: Amend, order: Order | None) -> Rejection | None:
    """The first reason, in the documented order, for which the order cannot be changed so."""
    symbol = market.symbol
    if order is None:
        return Rejection.UNKNOWN_ORDER
    # An order whose stop price was reached is a limit order like any other.
    order_type = order.terms.type if order.waiting else LIMIT
    rejection = why_not_trading(symbol) or broken_amend_rule(command, order_type, symbol)
    if rejection is not None:
        return rejection
    quantity, limit_ticks = _quantity(market, command, order), _limit_ticks(market, command, order)
    display = order.terms.display_quantity
    if display is not None and quantity > order.quantity and quantity > display * ICEBERG_SLICES_MAX:
        return Rejection.INVALID_DISPLAY_QUANTITY
    if symbol.has_size_rules:
        rejection = _worse_size(order, quantity, limit_ticks, symbol)
        if rejection is not None:
            return rejection
    if limit_ticks is None or limit_ticks == order.limit_ticks:
        return None
    if market.is_beyond_collar(limit_ticks):
        return Rejection.PRICE_COLLAR
    if order.terms.post_only and not order.waiting and market.would_take(order.side, limit_ticks):
        return Rejection.POST_ONLY_WOULD_TAKE
    return None


def amend(market: Market, command: Amend, order: Order, events: list[Event]) -> None:
    """Change an order as a command that is allowed says.

    It keeps its place if nothing but its quantity changes, and that to less.
    """
    quantity = _quantity(market, command, order)
    if quantity <= order.quantity - order.remaining:
        events.append(market.cancel(order, BY_AMEND, command.command_id))
    elif order.waiting:
        _amend_waiting(market, command, order, quantity, events)
    else:
        _amend_resting(market, command, order, quantity, events)


def _worse_size(order: Order, quantity: int, limit_ticks: int | None, symbol: Symbol) -> Rejection | None:
    """The symbol's rule for sizes that an amended order would break, and by more than it does.

    Rules may have changed since it was placed: what it has it may keep, and it may come closer to them.
    """
    if quantity < min(symbol.min_lots, order.quantity):
        return Rejection.QUANTITY_TOO_SMALL
    if symbol.max_lots is not None and quantity > max(symbol.max_lots, order.quantity):
        return Rejection.QUANTITY_TOO_LARGE
    if limit_ticks is not None and order.limit_ticks is not None:
        least = min(symbol.min_notional, order.limit_ticks * order.quantity)
        return Rejection.MIN_NOTIONAL if limit_ticks * quantity < least else None
    return None


def _amend_resting(market: Market, command: Amend, order: Order, quantity: int, events: list[Event]) -> None:
    side = market.book.side_of(order)
    price_ticks = order.price_ticks if command.price is None else market.symbol.ticks.units(command.price)
    event = _amended(command, order, quantity, order.price_ticks, price_ticks)
    event.kept_priority = price_ticks == order.price_ticks and quantity <= order.quantity
    event.previous_shown_quantity = shown = order.shown
    events.append(event)
    if event.kept_priority:
        # What an iceberg order shows stays as long as there is as much; the hidden part goes first.
        _lower(order, quantity)
        order.hidden = max(0, order.remaining - shown)
        event.shown_quantity = order.shown
        market.changes.change(order)
        return
    side.remove(order)
    order.price_ticks = price_ticks
    _set_quantity(order, quantity)
    order.hidden = 0
    in_depth = order.terms.display_quantity is None
    event.shown_quantity = order.remaining if in_depth else 0
    market.enter(order, events, command.command_id, in_depth=in_depth)


def _amend_waiting(market: Market, command: Amend, order: Order, quantity: int, events: list[Event]) -> None:
    symbol, book, terms = market.symbol, market.book, order.terms
    limit_ticks = _limit_ticks(market, command, order)
    stop_ticks = order.price_ticks if command.stop_price is None else symbol.ticks.units(command.stop_price)
    event = _amended(command, order, quantity, terms.limit_ticks, limit_ticks)
    event.stop_ticks, event.previous_stop_ticks = stop_ticks, order.price_ticks
    event.kept_priority = (stop_ticks, limit_ticks) == (
        order.price_ticks,
        terms.limit_ticks,
    ) and quantity <= order.quantity
    events.append(event)
    side = book.side_of(order)
    if event.kept_priority:
        _lower(order, quantity)
        market.changes.change(order)
        return
    side.remove(order)
    terms.stop_ticks, terms.limit_ticks = stop_ticks, limit_ticks
    _set_quantity(order, quantity)
    if is_reached(order.side, stop_ticks, book.last_ticks):
        market.run_stops(events, len(events), deque([order]))
    else:
        market.wait(order, stop_ticks)


def _lower(order: Order, quantity: int) -> None:
    """Give a standing order a quantity that is not larger, in its place."""
    assert order.level is not None, "an amended order stands somewhere"
    order.level.open_quantity -= order.quantity - quantity
    _set_quantity(order, quantity)


def _set_quantity(order: Order, quantity: int) -> None:
    order.remaining += quantity - order.quantity
    order.quantity = quantity


def _amended(
    command: Amend, order: Order, quantity: int, previous_price_ticks: int | None, price_ticks: int | None
) -> OrderAmended:
    filled = order.quantity - order.remaining
    return OrderAmended(
        order.id,
        order.owner.user_id,
        order.side,
        price_ticks,
        quantity,
        filled,
        status_of(filled, quantity),
        kept_priority=False,
        previous_price_ticks=previous_price_ticks,
        previous_quantity=order.quantity,
        shown_quantity=0,
        previous_shown_quantity=0,
        command_id=command.command_id,
    )


def _quantity(market: Market, command: Amend, order: Order) -> int:
    return order.quantity if command.quantity is None else market.symbol.lots.units(command.quantity)


def _limit_ticks(market: Market, command: Amend, order: Order) -> int | None:
    return order.limit_ticks if command.price is None else market.symbol.ticks.units(command.price)
