"""Why a command changes nothing: one stable code a reason, in their order of precedence."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from forkast_streams.engine.commands import Command
from forkast_streams.engine.symbols import Symbol
from forkast_streams.limits import ICEBERG_SLICES_MAX, PRICE_MAX, QUANTITY_MAX, QUOTE_QUANTITY_MAX


class Rejection(StrEnum):
    """Reasons; where several hold, the one that stands first here is given. Each is its code."""

    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    UNKNOWN_ORDER = "UNKNOWN_ORDER"
    SYMBOL_HALTED = "SYMBOL_HALTED"
    CANCEL_ONLY = "CANCEL_ONLY"
    PRICE_REQUIRED = "PRICE_REQUIRED"
    PRICE_NOT_ALLOWED = "PRICE_NOT_ALLOWED"
    STOP_PRICE_REQUIRED = "STOP_PRICE_REQUIRED"
    STOP_PRICE_NOT_ALLOWED = "STOP_PRICE_NOT_ALLOWED"
    QUANTITY_REQUIRED = "QUANTITY_REQUIRED"
    QUANTITY_NOT_ALLOWED = "QUANTITY_NOT_ALLOWED"
    QUOTE_QUANTITY_NOT_ALLOWED = "QUOTE_QUANTITY_NOT_ALLOWED"
    EXPIRES_AT_REQUIRED = "EXPIRES_AT_REQUIRED"
    EXPIRES_AT_NOT_ALLOWED = "EXPIRES_AT_NOT_ALLOWED"
    TIME_IN_FORCE_NOT_ALLOWED = "TIME_IN_FORCE_NOT_ALLOWED"
    POST_ONLY_NOT_ALLOWED = "POST_ONLY_NOT_ALLOWED"
    DISPLAY_QUANTITY_NOT_ALLOWED = "DISPLAY_QUANTITY_NOT_ALLOWED"
    INVALID_PRICE = "INVALID_PRICE"
    INVALID_TICK = "INVALID_TICK"
    INVALID_STOP_PRICE = "INVALID_STOP_PRICE"
    INVALID_STOP_TICK = "INVALID_STOP_TICK"
    INVALID_QUANTITY = "INVALID_QUANTITY"
    INVALID_LOT = "INVALID_LOT"
    INVALID_QUOTE_QUANTITY = "INVALID_QUOTE_QUANTITY"
    INVALID_DISPLAY_QUANTITY = "INVALID_DISPLAY_QUANTITY"
    QUANTITY_TOO_SMALL = "QUANTITY_TOO_SMALL"
    QUANTITY_TOO_LARGE = "QUANTITY_TOO_LARGE"
    MIN_NOTIONAL = "MIN_NOTIONAL"
    ALREADY_EXPIRED = "ALREADY_EXPIRED"
    PRICE_COLLAR = "PRICE_COLLAR"
    TOO_MANY_OPEN_ORDERS = "TOO_MANY_OPEN_ORDERS"
    POST_ONLY_WOULD_TAKE = "POST_ONLY_WOULD_TAKE"
    SYMBOL_IN_USE = "SYMBOL_IN_USE"

    def message(self, command: Command, symbol: Symbol) -> str:
        """A sentence for the sender of ``command``."""
        template = _MESSAGES[self]
        if "{sent_" in template:
            return template.format(
                sent_price=_sent(command, "price"),
                sent_stop_price=_sent(command, "stop_price"),
                sent_quantity=_sent(command, "quantity"),
                sent_expiry=_sent(command, "expires_at"),
                **_of_symbol(symbol),
            )
        # Cancels of orders that are gone are common: their answer is put together once.
        message = symbol.messages.get(self)
        if message is None:
            message = symbol.messages[self] = template.format(**_of_symbol(symbol))
        return message


_MESSAGES: Final = {
    Rejection.DUPLICATE_ORDER: "an order with this id was sent before; a new order needs a new id",
    Rejection.UNKNOWN_ORDER: "no order of yours with this id is open in {symbol}",
    Rejection.SYMBOL_HALTED: "trading in {symbol} is halted; nothing can be placed, changed or cancelled",
    Rejection.CANCEL_ONLY: "orders in {symbol} can only be cancelled now",
    Rejection.PRICE_REQUIRED: "a LIMIT or STOP_LIMIT order needs a price",
    Rejection.PRICE_NOT_ALLOWED: "a MARKET or STOP order takes any price and must not name one",
    Rejection.STOP_PRICE_REQUIRED: "a STOP or STOP_LIMIT order needs a stopPrice",
    Rejection.STOP_PRICE_NOT_ALLOWED: "only a STOP or STOP_LIMIT order that has not been triggered has a stopPrice",
    Rejection.QUANTITY_REQUIRED: "an order needs a quantity; a MARKET order can have a quoteQuantity instead",
    Rejection.QUANTITY_NOT_ALLOWED: "an order with a quoteQuantity must not have a quantity too",
    Rejection.QUOTE_QUANTITY_NOT_ALLOWED: "only a MARKET order can have a quoteQuantity",
    Rejection.EXPIRES_AT_REQUIRED: "an order with timeInForce GTD needs expiresAt, in milliseconds",
    Rejection.EXPIRES_AT_NOT_ALLOWED: "only an order with timeInForce GTD has an expiresAt",
    Rejection.TIME_IN_FORCE_NOT_ALLOWED: "a MARKET order cannot be GTD, nor FOK when it has a quoteQuantity",
    Rejection.POST_ONLY_NOT_ALLOWED: "postOnly needs a LIMIT or STOP_LIMIT order that may rest (GTC or GTD)",
    Rejection.DISPLAY_QUANTITY_NOT_ALLOWED: (
        "displayQuantity needs a LIMIT or STOP_LIMIT order that may rest (GTC or GTD)"
    ),
    Rejection.INVALID_PRICE: "price must be above 0 and at most {price_max}, was {sent_price}",
    Rejection.INVALID_TICK: "price must be a multiple of the tick size {tick}, was {sent_price}",
    Rejection.INVALID_STOP_PRICE: "stopPrice must be above 0 and at most {price_max}, was {sent_stop_price}",
    Rejection.INVALID_STOP_TICK: "stopPrice must be a multiple of the tick size {tick}, was {sent_stop_price}",
    Rejection.INVALID_QUANTITY: "quantity must be above 0 and at most {quantity_max}, was {sent_quantity}",
    Rejection.INVALID_LOT: "quantity must be a multiple of the lot size {lot}, was {sent_quantity}",
    Rejection.INVALID_QUOTE_QUANTITY: (
        "quoteQuantity must be above 0 and at most {quote_max}, with at most 18 decimals"
    ),
    Rejection.INVALID_DISPLAY_QUANTITY: (
        "displayQuantity must be a multiple of the lot size {lot}, at most the quantity and at least 1/{slices} of it"
    ),
    Rejection.QUANTITY_TOO_SMALL: "quantity must be at least {min_quantity} in {symbol}, was {sent_quantity}",
    Rejection.QUANTITY_TOO_LARGE: "quantity must be at most {max_quantity} in {symbol}, was {sent_quantity}",
    Rejection.MIN_NOTIONAL: "price times quantity, or quoteQuantity, must be at least {min_notional} in {symbol}",
    Rejection.ALREADY_EXPIRED: "expiresAt must be later than now, was {sent_expiry}",
    Rejection.PRICE_COLLAR: (
        "price must be within {collar} (a fraction), or one tick, of the last trade's price, was {sent_price}"
    ),
    Rejection.TOO_MANY_OPEN_ORDERS: "you have {max_open_orders} open orders in {symbol}, which is the most allowed",
    Rejection.POST_ONLY_WOULD_TAKE: "the order would trade at once, which postOnly forbids",
    Rejection.SYMBOL_IN_USE: "tick and lot size of {symbol} can only change while its book is empty",
}


def _of_symbol(symbol: Symbol) -> dict[str, str]:
    """What messages say of a symbol and of the exchange's bounds."""
    rules = symbol.rules
    return {
        "symbol": rules.name,
        "tick": f"{rules.tick_size:f}",
        "lot": f"{rules.lot_size:f}",
        "min_quantity": _plain(rules.min_quantity),
        "max_quantity": _plain(rules.max_quantity),
        "min_notional": _plain(rules.min_notional),
        "collar": _plain(rules.price_collar),
        "max_open_orders": str(rules.max_open_orders),
        "price_max": f"{PRICE_MAX:f}",
        "quantity_max": f"{QUANTITY_MAX:f}",
        "quote_max": f"{QUOTE_QUANTITY_MAX:f}",
        "slices": str(ICEBERG_SLICES_MAX),
    }


def _sent(command: Command, field: str) -> str:
    text = str(getattr(command, field, None))
    return text if len(text) <= 40 else text[:40] + "..."


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:f}"
