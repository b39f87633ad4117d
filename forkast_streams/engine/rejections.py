"""Why a command changes nothing: one stable code a reason, in their order of precedence."""

from __future__ import annotations

from enum import Enum

from forkast_streams.engine.commands import Command
from forkast_streams.engine.symbols import Symbol
from forkast_streams.limits import PRICE_MAX, QUANTITY_MAX


class Rejection(Enum):
    """Reasons; where several hold, the one that stands first here is given."""

    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    UNKNOWN_ORDER = "UNKNOWN_ORDER"
    SYMBOL_HALTED = "SYMBOL_HALTED"
    PRICE_REQUIRED = "PRICE_REQUIRED"
    PRICE_NOT_ALLOWED = "PRICE_NOT_ALLOWED"
    INVALID_PRICE = "INVALID_PRICE"
    INVALID_TICK = "INVALID_TICK"
    INVALID_QUANTITY = "INVALID_QUANTITY"
    INVALID_LOT = "INVALID_LOT"
    SYMBOL_IN_USE = "SYMBOL_IN_USE"

    def message(self, command: Command, symbol: Symbol) -> str:
        """A sentence for the sender of ``command``."""
        return _MESSAGES[self].format(
            symbol=symbol.name,
            tick=f"{symbol.ticks.step:f}",
            lot=f"{symbol.lots.step:f}",
            price=_short(getattr(command, "price", None)),
            quantity=_short(getattr(command, "quantity", None)),
            price_max=f"{PRICE_MAX:f}",
            quantity_max=f"{QUANTITY_MAX:f}",
        )


_MESSAGES = {
    Rejection.DUPLICATE_ORDER: "an order with this id was sent before; a new order needs a new id",
    Rejection.UNKNOWN_ORDER: "no order of yours with this id rests in the book of {symbol}",
    Rejection.SYMBOL_HALTED: "trading in {symbol} is halted; orders can only be cancelled",
    Rejection.PRICE_REQUIRED: "a LIMIT order needs a price",
    Rejection.PRICE_NOT_ALLOWED: "a MARKET order takes any price and must not name one",
    Rejection.INVALID_PRICE: "price must be above 0 and at most {price_max}, was {price}",
    Rejection.INVALID_TICK: "price must be a multiple of the tick size {tick}, was {price}",
    Rejection.INVALID_QUANTITY: "quantity must be above 0 and at most {quantity_max}, was {quantity}",
    Rejection.INVALID_LOT: "quantity must be a multiple of the lot size {lot}, was {quantity}",
    Rejection.SYMBOL_IN_USE: "tick and lot size of {symbol} can only change while its book is empty",
}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:40] + "..."
