"""What the engine answers. Prices are in ticks and quantities in lots of the symbol."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from forkast_streams.engine.commands import Amend, Cancel, DefineSymbol, NewOrder

PENDING: Final = "PENDING"
PARTIALLY_FILLED: Final = "PARTIALLY_FILLED"
FILLED: Final = "FILLED"
CANCELLED: Final = "CANCELLED"


class OrderAccepted(Struct, gc=False):
    """A new order is accepted; its trades follow. ``price_ticks`` is None for a market order."""

    order_id: str
    user_id: int
    type: str
    side: str
    price_ticks: int | None
    quantity: int
    time_in_force: str
    client_order_id: str | None
    command_id: str | None


class TradeExecuted(Struct, gc=False):
    """One fill at the maker's price, with the state of both orders after it."""

    price_ticks: int
    quantity: int
    taker_side: str
    taker_price_ticks: int | None
    taker_order_id: str
    taker_user_id: int
    taker_filled: int
    taker_status: str
    maker_order_id: str
    maker_user_id: int
    maker_filled: int
    maker_status: str


class OrderCancelled(Struct, gc=False):
    """An order ends with ``open_quantity`` unfilled."""

    order_id: str
    user_id: int
    side: str
    price_ticks: int | None
    open_quantity: int
    filled_quantity: int
    reason: str
    command_id: str | None


class OrderAmended(Struct, gc=False):
    """A resting order has another price or quantity; the trades this causes follow."""

    order_id: str
    user_id: int
    side: str
    price_ticks: int
    quantity: int
    filled_quantity: int
    status: str
    kept_priority: bool
    previous_price_ticks: int
    previous_quantity: int
    command_id: str | None


class CommandRejected(Struct, gc=False):
    """A command changes nothing."""

    command: NewOrder | Cancel | Amend | DefineSymbol
    code: str
    message: str


class SymbolDefined(Struct, gc=False):
    """The symbol's trading rules from here on."""

    name: str
    tick_size: str
    lot_size: str
    status: str
    command_id: str | None


Event = OrderAccepted | TradeExecuted | OrderCancelled | OrderAmended | CommandRejected | SymbolDefined


def status_of(filled: int, quantity: int) -> str:
    """Status of an order of ``quantity`` with ``filled`` of it traded, as long as it is not cancelled."""
    if filled == 0:
        return PENDING
    return FILLED if filled == quantity else PARTIALLY_FILLED
