"""The events of ``orders.exchange`` as readers decode them; see docs/wire.md. Decimals stay the text they are."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from forkast_streams.errors import CorruptLog


class Source(Struct, gc=False, rename="camel"):
    """The command an event comes from, and which of its events it is."""

    partition: int
    offset: int
    index: int
    count: int

    @property
    def is_last(self) -> bool:
        """Whether the command is complete with this event."""
        return self.index == self.count - 1


class OrderData(Struct, gc=False, rename="camel"):
    """A new order."""

    id: str
    user_id: int
    type: str
    side: str
    price: str | None
    quantity: str
    time_in_force: str
    created_at: int
    client_order_id: str | None = None


class TradeData(Struct, gc=False, rename="camel"):
    """A fill."""

    trade_id: str
    price: str
    quantity: str
    buy_order_id: str
    sell_order_id: str
    taker_side: str
    taker_price: str | None
    buy_filled_quantity: str
    buy_status: str
    sell_filled_quantity: str
    sell_status: str


class CancelData(Struct, gc=False, rename="camel"):
    """The end of an order."""

    id: str
    side: str
    price: str | None
    quantity: str
    filled_quantity: str
    status: str
    reason: str


class AmendData(Struct, gc=False, rename="camel"):
    """Another price or quantity."""

    id: str
    side: str
    price: str
    quantity: str
    filled_quantity: str
    status: str
    previous_price: str
    previous_quantity: str


class RejectData(Struct, gc=False, rename="camel"):
    """A refused command; for a new order also the order as it was sent."""

    command: str
    code: str
    id: str = ""
    user_id: int = 0
    type: str = ""
    side: str = ""
    price: str | None = None
    quantity: str = "0"
    time_in_force: str = ""
    client_order_id: str | None = None


class SymbolData(Struct, gc=False, rename="camel"):
    """Trading rules."""

    symbol: str
    tick_size: str
    lot_size: str
    status: str


class _Envelope(Struct, gc=False, rename="camel", tag_field="type"):
    """What all events have in common. Times are in milliseconds."""

    symbol_id: int
    sequence: int
    timestamp: int
    source: Source


class OrderEvent(_Envelope, tag="ORDER", gc=False):
    """A new order is accepted."""

    data: OrderData


class TradeEvent(_Envelope, tag="TRADE", gc=False):
    """Two orders trade."""

    data: TradeData


class CancelEvent(_Envelope, tag="CANCEL", gc=False):
    """An order ends unfilled."""

    data: CancelData


class AmendEvent(_Envelope, tag="AMEND", gc=False):
    """An order changes."""

    data: AmendData


class RejectEvent(_Envelope, tag="REJECT", gc=False):
    """A command is refused."""

    data: RejectData


class SymbolEvent(_Envelope, tag="SYMBOL", gc=False):
    """A symbol is defined."""

    data: SymbolData


ExchangeEvent = OrderEvent | TradeEvent | CancelEvent | AmendEvent | RejectEvent | SymbolEvent

_decoder: msgspec.json.Decoder[ExchangeEvent] = msgspec.json.Decoder(ExchangeEvent)


def decode_event(value: bytes | None) -> ExchangeEvent:
    """Decode the value of an ``orders.exchange`` record.

    Raises:
        CorruptLog: it is none; only the engine writes there, so something is badly wrong.
    """
    try:
        return _decoder.decode(value or b"")
    except msgspec.MsgspecError as exc:
        raise CorruptLog(f"a record of orders.exchange is no event ({exc}); stop and look at what wrote it.") from exc


def is_new(event: ExchangeEvent, last_sequence: int) -> bool:
    """Whether ``event`` follows ``last_sequence`` of its symbol; False for a repeat, which a reader drops.

    Raises:
        CorruptLog: events between the two are missing.
    """
    if event.sequence <= last_sequence:
        return False
    if event.sequence != last_sequence + 1:
        raise CorruptLog(
            f"symbol {event.symbol_id} goes on with sequence {event.sequence} after {last_sequence}; events are missing."
        )
    return True
