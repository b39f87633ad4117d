"""What a symbol's trading rules say of a command by itself: the same for the engine and for whoever asks beforehand."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from forkast_streams.engine.commands import (
    FOK,
    GTC,
    GTD,
    LIMIT,
    MARKET,
    STOP,
    STOP_LIMIT,
    Amend,
    NewOrder,
    Number,
)
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.symbols import HALTED, OFF_GRID, OUT_OF_RANGE, TRADING, Symbol, decimal_of
from forkast_streams.limits import ICEBERG_SLICES_MAX, QUOTE_DECIMALS_MAX, QUOTE_QUANTITY_MAX

_LIMITED: Final = (LIMIT, STOP_LIMIT)
_STOPS: Final = (STOP, STOP_LIMIT)
_RESTING: Final = (GTC, GTD)

_PRICE_REJECTIONS: Final = {OUT_OF_RANGE: Rejection.INVALID_PRICE, OFF_GRID: Rejection.INVALID_TICK}
_STOP_REJECTIONS: Final = {OUT_OF_RANGE: Rejection.INVALID_STOP_PRICE, OFF_GRID: Rejection.INVALID_STOP_TICK}
_QUANTITY_REJECTIONS: Final = {OUT_OF_RANGE: Rejection.INVALID_QUANTITY, OFF_GRID: Rejection.INVALID_LOT}


def broken_rule(order: NewOrder, symbol: Symbol) -> Rejection | None:
    """The first rule, in the documented order, that a new order breaks."""
    return _broken_form(order) or _broken_number(order, symbol) or _broken_size(order, symbol)


def broken_amend_rule(amend: Amend, order_type: str, symbol: Symbol) -> Rejection | None:
    """The first rule that the new numbers of an order break.

    Args:
        amend: the numbers; None leaves one as it is.
        order_type: type of the order; LIMIT for one whose stop price was reached.
        symbol: the order's symbol.
    """
    if amend.price is not None and order_type not in _LIMITED:
        return Rejection.PRICE_NOT_ALLOWED
    if amend.stop_price is not None and order_type not in _STOPS:
        return Rejection.STOP_PRICE_NOT_ALLOWED
    return (
        _off_grid(amend.price, symbol, _PRICE_REJECTIONS)
        or _off_grid(amend.stop_price, symbol, _STOP_REJECTIONS)
        or _off_lots(amend.quantity, symbol)
    )


def why_not_trading(symbol: Symbol) -> Rejection | None:
    """Why no order can be placed or changed in the symbol now."""
    if symbol.status == TRADING:
        return None
    return Rejection.SYMBOL_HALTED if symbol.status == HALTED else Rejection.CANCEL_ONLY


def broken_size_rule(quantity: int, price_ticks: int | None, symbol: Symbol) -> Rejection | None:
    """The symbol's rule for sizes that ``quantity`` lots at a limit break; None is no limit."""
    if quantity < symbol.min_lots:
        return Rejection.QUANTITY_TOO_SMALL
    if symbol.max_lots is not None and quantity > symbol.max_lots:
        return Rejection.QUANTITY_TOO_LARGE
    if price_ticks is not None and price_ticks * quantity < symbol.min_notional:
        return Rejection.MIN_NOTIONAL
    return None


def _broken_form(order: NewOrder) -> Rejection | None:
    """Which fields there must be and must not be, by the type of the order."""
    if order.type == LIMIT:
        # The order nearly everybody sends.
        if order.price is None:
            return Rejection.PRICE_REQUIRED
    elif order.type == STOP_LIMIT:
        if order.price is None:
            return Rejection.PRICE_REQUIRED
    elif order.price is not None:
        return Rejection.PRICE_NOT_ALLOWED
    if order.stop_price is None:
        if order.type in _STOPS:
            return Rejection.STOP_PRICE_REQUIRED
    elif order.type not in _STOPS:
        return Rejection.STOP_PRICE_NOT_ALLOWED
    return _broken_quantities(order) or _broken_terms(order)


def _broken_quantities(order: NewOrder) -> Rejection | None:
    if order.quote_quantity is None:
        return Rejection.QUANTITY_REQUIRED if order.quantity is None else None
    if order.quantity is not None:
        return Rejection.QUANTITY_NOT_ALLOWED
    return None if order.type == MARKET else Rejection.QUOTE_QUANTITY_NOT_ALLOWED


def _broken_terms(order: NewOrder) -> Rejection | None:
    time_in_force = order.time_in_force
    if time_in_force == GTD:
        if order.expires_at is None:
            return Rejection.EXPIRES_AT_REQUIRED
    elif order.expires_at is not None:
        return Rejection.EXPIRES_AT_NOT_ALLOWED
    if order.type == MARKET and (time_in_force == GTD or (time_in_force == FOK and order.quote_quantity is not None)):
        return Rejection.TIME_IN_FORCE_NOT_ALLOWED
    if order.post_only or order.display_quantity is not None:
        may_rest = order.type in _LIMITED and time_in_force in _RESTING
        if order.post_only and not may_rest:
            return Rejection.POST_ONLY_NOT_ALLOWED
        if order.display_quantity is not None and not may_rest:
            return Rejection.DISPLAY_QUANTITY_NOT_ALLOWED
    return None


def _broken_number(order: NewOrder, symbol: Symbol) -> Rejection | None:
    rejection = _off_grid(order.price, symbol, _PRICE_REJECTIONS)
    if rejection is None and order.stop_price is not None:
        rejection = _off_grid(order.stop_price, symbol, _STOP_REJECTIONS)
    if rejection is None:
        rejection = _off_lots(order.quantity, symbol)
    if rejection is None and order.quote_quantity is not None and not _is_amount(order.quote_quantity):
        rejection = Rejection.INVALID_QUOTE_QUANTITY
    if rejection is None and order.display_quantity is not None and order.quantity is not None:
        display, quantity = symbol.lots.units(order.display_quantity), symbol.lots.units(order.quantity)
        if not 0 < display <= quantity <= display * ICEBERG_SLICES_MAX:
            rejection = Rejection.INVALID_DISPLAY_QUANTITY
    return rejection


def _broken_size(order: NewOrder, symbol: Symbol) -> Rejection | None:
    if not symbol.has_size_rules:
        return None
    if order.quantity is None:
        assert order.quote_quantity is not None, "the form was checked"
        least = symbol.rules.min_notional
        is_small = least is not None and decimal_of(order.quote_quantity) < least
        return Rejection.MIN_NOTIONAL if is_small else None
    price_ticks = None if order.price is None else symbol.ticks.units(order.price)
    return broken_size_rule(symbol.lots.units(order.quantity), price_ticks, symbol)


def _off_grid(price: Number | None, symbol: Symbol, rejections: dict[int, Rejection]) -> Rejection | None:
    if price is None or (units := symbol.ticks.units(price)) > 0:
        return None
    return rejections[units]


def _off_lots(quantity: Number | None, symbol: Symbol) -> Rejection | None:
    if quantity is None or (units := symbol.lots.units(quantity)) > 0:
        return None
    return _QUANTITY_REJECTIONS[units]


def _is_amount(value: Number) -> bool:
    amount = decimal_of(value)
    exponent = Decimal(amount).as_tuple().exponent
    return 0 < amount <= QUOTE_QUANTITY_MAX and isinstance(exponent, int) and exponent >= -QUOTE_DECIMALS_MAX
