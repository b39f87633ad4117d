"""What the engine can be asked to do. Prices and quantities are as they were sent: exact, not yet on a grid."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct

BUY: Final = "BUY"
SELL: Final = "SELL"
LIMIT: Final = "LIMIT"
MARKET: Final = "MARKET"
GTC: Final = "GTC"
IOC: Final = "IOC"

Number = int | str | Decimal


class NewOrder(Struct, gc=False):
    """Place an order; ``price`` is None when none was sent."""

    symbol_id: int
    order_id: str
    user_id: int
    type: str
    side: str
    quantity: Number
    price: Number | None
    time_in_force: str
    client_order_id: str | None
    command_id: str | None


class Cancel(Struct, gc=False):
    """Take a resting order out of the book."""

    symbol_id: int
    order_id: str
    user_id: int
    command_id: str | None


class Amend(Struct, gc=False):
    """Change a resting order; ``quantity`` is the new total with what is filled, None leaves a field as it is."""

    symbol_id: int
    order_id: str
    user_id: int
    price: Number | None
    quantity: Number | None
    command_id: str | None


class DefineSymbol(Struct, gc=False):
    """Set the trading rules of a symbol from here on in the log."""

    symbol_id: int
    name: str
    tick_size: Decimal
    lot_size: Decimal
    status: str
    command_id: str | None


Command = NewOrder | Cancel | Amend | DefineSymbol
