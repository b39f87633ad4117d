"""The events of ``orders.exchange`` as a reader decodes them; docs/wire.md says what each field means.

Decimals stay the strings they are on the wire: each reader turns only those it calculates with into numbers.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Struct

from forkast_streams.errors import CorruptLog
from forkast_streams.undecodable import UNDECODABLE

Side = Literal["BUY", "SELL"]

# How an order treats its user's own orders unless it says otherwise.
EXPIRE_TAKER: Final = "EXPIRE_TAKER"


class Source(Struct, gc=False, frozen=True):
    """The command an event answers, and which of the command's events it is."""

    partition: int
    offset: int
    index: int
    count: int


class OrderData(Struct, gc=False, rename="camel"):
    """A new order, before its trades."""

    id: str
    user_id: int
    type: str
    side: Side
    price: str | None
    quantity: str | None
    filled_quantity: str
    status: str
    time_in_force: str
    created_at: int
    client_order_id: str | None = None
    command_id: str | None = None
    quote_quantity: str | None = None
    stop_price: str | None = None
    expires_at: int | None = None
    post_only: bool = False
    display_quantity: str | None = None
    self_trade_prevention: str = EXPIRE_TAKER
    replaces: str | None = None


class TriggerData(Struct, gc=False, rename="camel"):
    """A stop order that has become active with ``quantity`` open; its trades follow."""

    id: str
    user_id: int
    side: Side
    type: str
    price: str | None
    stop_price: str
    quantity: str
    last_price: str


class ShowData(Struct, gc=False, rename="camel"):
    """Quantity of an order that now stands in its level; without ``refill`` the level has one more order."""

    id: str
    user_id: int
    side: Side
    price: str
    quantity: str
    refill: bool


class TradeData(Struct, gc=False, rename="camel"):
    """A fill, with the state of both orders after it.

    ``taker_price`` is None when what the taker had open did not stand in a level.
    """

    trade_id: str
    price: str
    quantity: str
    buy_order_id: str
    sell_order_id: str
    buy_user_id: int
    sell_user_id: int
    timestamp: int
    taker_side: Side
    taker_price: str | None
    buy_filled_quantity: str
    buy_status: str
    sell_filled_quantity: str
    sell_status: str


class CancelData(Struct, gc=False, rename="camel"):
    """The end of an order with ``quantity`` (or ``quote_quantity``) still open.

    ``shown_quantity`` is what of it stood in its level, None when that was all.
    """

    id: str
    user_id: int
    side: Side
    price: str | None
    quantity: str | None
    filled_quantity: str
    status: str
    reason: str
    command_id: str | None = None
    quote_quantity: str | None = None
    shown_quantity: str | None = None
    stop_price: str | None = None


class AmendData(Struct, gc=False, rename="camel"):
    """An open order's new prices and total quantity.

    A STOP has no ``price``, and only an order that waits has stop prices. The shown quantities are what of it stands
    in its level after and before, None when that is all that is open.
    """

    id: str
    user_id: int
    side: Side
    price: str | None
    quantity: str
    filled_quantity: str
    status: str
    kept_priority: bool
    previous_price: str | None
    previous_quantity: str
    command_id: str | None = None
    shown_quantity: str | None = None
    previous_shown_quantity: str | None = None
    stop_price: str | None = None
    previous_stop_price: str | None = None


class CancelAllData(Struct, gc=False, rename="camel"):
    """All ``count`` orders that the user had in the symbol are cancelled."""

    user_id: int
    count: int
    command_id: str | None = None


class CancelAfterData(Struct, gc=False, rename="camel"):
    """All orders of the user in the symbol end at ``deadline``, unless another command comes before; None is off."""

    user_id: int
    deadline: int | None = None
    command_id: str | None = None


class RejectData(Struct, gc=False, rename="camel"):
    """A command that changed nothing; the order's fields stand here for ``NEW`` and ``REPLACE``, as they were sent."""

    command: Literal["NEW", "CANCEL", "AMEND", "REPLACE", "CANCEL_ALL", "CANCEL_AFTER", "SYMBOL"]
    code: str
    message: str
    id: str = ""
    user_id: int = 0
    type: str = ""
    side: str = ""
    price: str | None = None
    quantity: str | None = None
    time_in_force: str = "GTC"
    client_order_id: str | None = None
    command_id: str | None = None
    symbol: str = ""
    quote_quantity: str | None = None
    stop_price: str | None = None
    expires_at: int | None = None
    post_only: bool | None = None
    display_quantity: str | None = None
    self_trade_prevention: str | None = None
    replaces: str | None = None


class SymbolData(Struct, gc=False, rename="camel"):
    """A symbol's trading rules from here on; those that are None do not hold."""

    symbol: str
    tick_size: str
    lot_size: str
    status: str
    command_id: str | None = None
    min_quantity: str | None = None
    max_quantity: str | None = None
    min_notional: str | None = None
    price_collar: str | None = None
    max_open_orders: int | None = None


class _Envelope(Struct, gc=False, rename="camel", tag_field="type"):
    symbol_id: int
    sequence: int
    timestamp: int
    source: Source


class OrderEvent(_Envelope, tag="ORDER"):
    """An order was accepted."""

    data: OrderData


class TriggerEvent(_Envelope, tag="TRIGGER"):
    """A stop order became active."""

    data: TriggerData


class ShowEvent(_Envelope, tag="SHOW"):
    """Quantity that was not in its level now is."""

    data: ShowData


class TradeEvent(_Envelope, tag="TRADE"):
    """Two orders traded."""

    data: TradeData


class CancelEvent(_Envelope, tag="CANCEL"):
    """An order ended unfilled."""

    data: CancelData


class AmendEvent(_Envelope, tag="AMEND"):
    """An order was changed."""

    data: AmendData


class CancelAllEvent(_Envelope, tag="CANCEL_ALL"):
    """A user's orders were cancelled, all of them."""

    data: CancelAllData


class CancelAfterEvent(_Envelope, tag="CANCEL_AFTER"):
    """A user's deadline was set, moved or taken away."""

    data: CancelAfterData


class RejectEvent(_Envelope, tag="REJECT"):
    """A command was refused."""

    data: RejectData


class SymbolEvent(_Envelope, tag="SYMBOL"):
    """A symbol was defined or changed."""

    data: SymbolData


WireEvent = (
    OrderEvent
    | TriggerEvent
    | ShowEvent
    | TradeEvent
    | CancelEvent
    | AmendEvent
    | CancelAllEvent
    | CancelAfterEvent
    | RejectEvent
    | SymbolEvent
)

_decoder: msgspec.json.Decoder[WireEvent] = msgspec.json.Decoder(WireEvent)


def decode_event(value: bytes | None) -> WireEvent:
    """Decode the value of an ``orders.exchange`` record.

    Raises:
        CorruptLog: it is no event. Only the engine writes this topic, so this is damage, not bad input.
    """
    if value is None:
        raise CorruptLog("a record of orders.exchange has no value; only the engine may write this topic.")
    try:
        return _decoder.decode(value)
    except UNDECODABLE as exc:
        raise CorruptLog(f"a record of orders.exchange is no event ({exc}): {value[:200]!r}") from exc
