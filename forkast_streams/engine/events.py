"""What the engine answers. Prices are in ticks and quantities in lots of the symbol."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct

from forkast_streams.engine.commands import Command, DefineSymbol

PENDING: Final = "PENDING"
PARTIALLY_FILLED: Final = "PARTIALLY_FILLED"
FILLED: Final = "FILLED"
CANCELLED: Final = "CANCELLED"
EXPIRED: Final = "EXPIRED"

# Why an order ended with something open.
BY_USER: Final = "USER"
BY_IOC: Final = "IOC"
BY_FOK: Final = "FOK"
BY_MARKET: Final = "MARKET"
BY_AMEND: Final = "AMEND"
BY_REPLACE: Final = "REPLACED"
BY_POST_ONLY: Final = "POST_ONLY"
BY_SELF_TRADE: Final = "SELF_TRADE"
BY_EXPIRY: Final = "EXPIRED"
BY_CANCEL_ALL: Final = "CANCEL_ALL"
BY_CANCEL_AFTER: Final = "CANCEL_AFTER"
BY_COLLAR: Final = "COLLAR"
# These ends nobody asked for at that moment; the others are cancellations.
_EXPIRIES: Final = frozenset({BY_SELF_TRADE, BY_EXPIRY})


class OrderAccepted(Struct, gc=False):
    """A new order is accepted; its trades follow.

    ``price_ticks`` is None for an order without a limit, ``quantity`` for one that was sent with a quote quantity.
    """

    order_id: str
    user_id: int
    type: str
    side: str
    price_ticks: int | None
    quantity: int | None
    time_in_force: str
    client_order_id: str | None
    command_id: str | None
    details: OrderDetails | None = None


class OrderDetails(Struct, gc=False):
    """What only some orders have; see NewOrder."""

    quote_quantity: Decimal | None
    stop_ticks: int | None
    expires_at: int | None
    post_only: bool
    display_quantity: int | None
    self_trade_prevention: str
    replaces: str | None


class StopTriggered(Struct, gc=False):
    """A stop order that waited becomes active; its trades follow."""

    order_id: str
    user_id: int
    type: str
    side: str
    price_ticks: int | None
    stop_ticks: int
    open_quantity: int
    last_ticks: int


class TradeExecuted(Struct, gc=False):
    """One fill at the maker's price, with the state of both orders after it.

    ``taker_price_ticks`` is None unless the taker's open quantity counts at that price already.
    """

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


class QuantityShown(Struct, gc=False):
    """``quantity`` of an order counts at its price from now on.

    ``refill`` is True for the next slice of an iceberg order, False when the order comes to rest.
    """

    order_id: str
    user_id: int
    side: str
    price_ticks: int
    quantity: int
    refill: bool


class OrderCancelled(Struct, gc=False):
    """An order ends with ``open_quantity`` unfilled; for one with a quote quantity ``quote_left`` of it is left.

    Attributes:
        shown_quantity: how much of the open quantity counted at the order's price.
        stop_ticks: of a stop order that still waited.
    """

    order_id: str
    user_id: int
    side: str
    price_ticks: int | None
    open_quantity: int
    filled_quantity: int
    shown_quantity: int
    reason: str
    command_id: str | None
    stop_ticks: int | None = None
    quote_left: Decimal | None = None


class OrderAmended(Struct, gc=False):
    """An order has another price or quantity; the trades this causes follow.

    The shown quantities are what counts at the order's price before and after; stop prices are None unless it waits.
    """

    order_id: str
    user_id: int
    side: str
    price_ticks: int | None
    quantity: int
    filled_quantity: int
    status: str
    kept_priority: bool
    previous_price_ticks: int | None
    previous_quantity: int
    shown_quantity: int
    previous_shown_quantity: int
    command_id: str | None
    stop_ticks: int | None = None
    previous_stop_ticks: int | None = None


class AllCancelled(Struct, gc=False):
    """``count`` orders of the user were cancelled by one command; their own events came before."""

    user_id: int
    count: int
    command_id: str | None


class CancelScheduled(Struct, gc=False):
    """All orders of the user will be cancelled at ``deadline`` (milliseconds); None: no more."""

    user_id: int
    deadline: int | None
    command_id: str | None


class CommandRejected(Struct, gc=False):
    """A command changes nothing."""

    command: Command
    code: str
    message: str


class SymbolDefined(Struct, gc=False):
    """The symbol's trading rules from here on."""

    rules: DefineSymbol


Event = (
    OrderAccepted
    | StopTriggered
    | TradeExecuted
    | QuantityShown
    | OrderCancelled
    | OrderAmended
    | AllCancelled
    | CancelScheduled
    | CommandRejected
    | SymbolDefined
)


def status_of(filled: int, quantity: int) -> str:
    """Status of an order of ``quantity`` with ``filled`` of it traded, as long as it has not ended otherwise."""
    if filled == quantity:
        return FILLED
    return PARTIALLY_FILLED if filled else PENDING


def final_status(reason: str) -> str:
    """Status of an order that ended unfilled for ``reason``."""
    return EXPIRED if reason in _EXPIRIES else CANCELLED
