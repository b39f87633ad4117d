"""What the engine can be asked to do. Prices and quantities are as they were sent: exact, not yet on a grid."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct

BUY: Final = "BUY"
SELL: Final = "SELL"

LIMIT: Final = "LIMIT"
MARKET: Final = "MARKET"
STOP: Final = "STOP"
STOP_LIMIT: Final = "STOP_LIMIT"
TYPES: Final = (LIMIT, MARKET, STOP, STOP_LIMIT)

GTC: Final = "GTC"
IOC: Final = "IOC"
FOK: Final = "FOK"
GTD: Final = "GTD"
TIMES_IN_FORCE: Final = (GTC, IOC, FOK, GTD)

# What happens when an order would trade with another one of its user: which of the two expires.
EXPIRE_TAKER: Final = "EXPIRE_TAKER"
EXPIRE_MAKER: Final = "EXPIRE_MAKER"
EXPIRE_BOTH: Final = "EXPIRE_BOTH"
NONE: Final = "NONE"
SELF_TRADE_PREVENTIONS: Final = (EXPIRE_TAKER, EXPIRE_MAKER, EXPIRE_BOTH, NONE)

Number = int | str | Decimal


class NewOrder(Struct, gc=False):
    """Place an order; what was not sent is None.

    Attributes:
        quote_quantity: for a market order, the amount of money to trade instead of a quantity.
        expires_at: milliseconds; the order is over when the log's time reaches it.
        replaces: id of an order of the same user to cancel first; both happen or neither.
    """

    symbol_id: int
    order_id: str
    user_id: int
    type: str
    side: str
    quantity: Number | None
    price: Number | None
    time_in_force: str
    client_order_id: str | None
    command_id: str | None
    quote_quantity: Number | None = None
    stop_price: Number | None = None
    expires_at: int | None = None
    post_only: bool = False
    display_quantity: Number | None = None
    self_trade_prevention: str = EXPIRE_TAKER
    replaces: str | None = None


class Cancel(Struct, gc=False):
    """Take a resting or waiting order out of the book."""

    symbol_id: int
    order_id: str
    user_id: int
    command_id: str | None


class Amend(Struct, gc=False):
    """Change an order; ``quantity`` is the new total with what is filled, None leaves a field as it is."""

    symbol_id: int
    order_id: str
    user_id: int
    price: Number | None
    quantity: Number | None
    command_id: str | None
    stop_price: Number | None = None


class CancelAll(Struct, gc=False):
    """Cancel all orders of a user in the symbol."""

    symbol_id: int
    user_id: int
    command_id: str | None


class CancelAfter(Struct, gc=False):
    """Cancel all orders of a user in the symbol ``timeout_ms`` from now unless told again; 0 switches that off."""

    symbol_id: int
    user_id: int
    timeout_ms: int
    command_id: str | None


class Heartbeat(Struct, gc=False):
    """Nothing but the passing of time: what is due expires."""

    symbol_id: int


class DefineSymbol(Struct, gc=False):
    """Set the trading rules of a symbol from here on in the log; a rule that is None does not exist.

    Attributes:
        min_notional: smallest price times quantity of an order with a limit.
        price_collar: how far from the last trade's price orders may trade, as a fraction of it.
        max_open_orders: of one user, stop orders that wait among them.
    """

    symbol_id: int
    name: str
    tick_size: Decimal
    lot_size: Decimal
    status: str
    command_id: str | None
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    min_notional: Decimal | None = None
    price_collar: Decimal | None = None
    max_open_orders: int | None = None


Command = NewOrder | Cancel | Amend | CancelAll | CancelAfter | Heartbeat | DefineSymbol
