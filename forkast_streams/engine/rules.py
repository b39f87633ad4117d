"""What a symbol's trading rules say of an order by itself: the same for the engine and for whoever asks beforehand."""

from __future__ import annotations

from forkast_streams.engine.commands import LIMIT, NewOrder, Number
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.symbols import OFF_GRID, OUT_OF_RANGE, Symbol

_PRICE_REJECTIONS = {OUT_OF_RANGE: Rejection.INVALID_PRICE, OFF_GRID: Rejection.INVALID_TICK}
_QUANTITY_REJECTIONS = {OUT_OF_RANGE: Rejection.INVALID_QUANTITY, OFF_GRID: Rejection.INVALID_LOT}


def broken_rule(order: NewOrder, symbol: Symbol) -> Rejection | None:
    """The first rule, in the documented order, that a new order breaks."""
    if order.type == LIMIT:
        if order.price is None:
            return Rejection.PRICE_REQUIRED
    elif order.price is not None:
        return Rejection.PRICE_NOT_ALLOWED
    return broken_price_rule(order.price, symbol) or broken_quantity_rule(order.quantity, symbol)


def broken_price_rule(price: Number | None, symbol: Symbol) -> Rejection | None:
    """The rule that a price breaks; None is no price."""
    if price is None or (units := symbol.ticks.units(price)) > 0:
        return None
    return _PRICE_REJECTIONS[units]


def broken_quantity_rule(quantity: Number | None, symbol: Symbol) -> Rejection | None:
    """The rule that a quantity breaks; None is no quantity."""
    if quantity is None or (units := symbol.lots.units(quantity)) > 0:
        return None
    return _QUANTITY_REJECTIONS[units]
