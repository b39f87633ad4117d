"""The events of ``orders.exchange`` as a reader decodes them; docs/wire.md says what each field means.

Decimals stay the strings they are on the wire: each reader turns only those it calculates with into numbers.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from forkast_streams.errors import CorruptLog

Side = Literal["BUY", "SELL"]


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
    quantity: str
    filled_quantity: str
    status: str
    time_in_force: str
    created_at: int
    client_order_id: str | None = None
    command_id: str | None = None


class TradeData(Struct, gc=False, rename="camel"):
    """A fill, with the state of both orders after it."""

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
    """The end of an order with ``quantity`` still open."""

    id: str
    user_id: int
    side: Side
    price: str | None
    quantity: str
    filled_quantity: str
    status: str
    reason: str
    command_id: str | None = None


class AmendData(Struct, gc=False, rename="camel"):
    """A resting order's new price and total quantity."""

    id: str
    user_id: int
    side: Side
    price: str
    quantity: str
    filled_quantity: str
    status: str
    kept_priority: bool
    previous_price: str
    previous_quantity: str
    command_id: str | None = None


class RejectData(Struct, gc=False, rename="camel"):
    """A command that changed nothing; the order's fields stand here for ``NEW``, as they were sent."""

    command: Literal["NEW", "CANCEL", "AMEND", "SYMBOL"]
    code: str
    message: str
    id: str = ""
    user_id: int = 0
    type: str = ""
    side: str = ""
    price: str | None = None
    quantity: str = "0"
    time_in_force: str = "GTC"
    client_order_id: str | None = None
    command_id: str | None = None
    symbol: str = ""


class SymbolData(Struct, gc=False, rename="camel"):
    """A symbol's trading rules from here on."""

    symbol: str
    tick_size: str
    lot_size: str
    status: str
    command_id: str | None = None


class _Envelope(Struct, gc=False, rename="camel", tag_field="type"):
    symbol_id: int
    sequence: int
    timestamp: int
    source: Source


class OrderEvent(_Envelope, tag="ORDER"):
    """An order was accepted."""

    data: OrderData


class TradeEvent(_Envelope, tag="TRADE"):
    """Two orders traded."""

    data: TradeData


class CancelEvent(_Envelope, tag="CANCEL"):
    """An order ended unfilled."""

    data: CancelData


class AmendEvent(_Envelope, tag="AMEND"):
    """An order was changed."""

    data: AmendData


class RejectEvent(_Envelope, tag="REJECT"):
    """A command was refused."""

    data: RejectData


class SymbolEvent(_Envelope, tag="SYMBOL"):
    """A symbol was defined or changed."""

    data: SymbolData


WireEvent = OrderEvent | TradeEvent | CancelEvent | AmendEvent | RejectEvent | SymbolEvent

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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptLog(f"a record of orders.exchange is no event ({exc}): {value[:200]!r}") from exc
