"""Folds events of ``orders.exchange`` into the rows that one statement writes.

Events carry the state of an order after them, so of many events of an order only the last state is written. This
module has no I/O: records in, a ``Write`` out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Protocol

from msgspec import Struct

from forkast_streams.errors import CorruptLog
from forkast_streams.wire_events import (
    AmendEvent,
    CancelEvent,
    OrderEvent,
    RejectEvent,
    SymbolEvent,
    TradeEvent,
    WireEvent,
    decode_event,
)

# A rejected order is kept as it was sent, unless a number in it is out of all proportion.
_SENT_DIGITS_MAX = 60


class EventRecord(Protocol):
    """What is read of a consumed record."""

    @property
    def offset(self) -> int:
        """Place in the partition."""

    @property
    def value(self) -> bytes | None:
        """The event's JSON."""


class OrderRow(Struct, rename="camel"):
    """A new row of "Order": decimals as text, times in milliseconds."""

    id: str
    user_id: int
    symbol_id: int
    type: str
    price: str | None
    quantity: str
    filled_quantity: str
    status: str
    side: str
    time_in_force: str
    client_order_id: str | None
    reason: str | None
    sequence: int
    created_at: int
    updated_at: int
    executed_at: int | None = None


class OrderChange(Struct, rename="camel", omit_defaults=True):
    """What became of an order that has a row already; None leaves a column as it is."""

    id: str
    symbol_id: int
    filled_quantity: str
    status: str
    sequence: int
    updated_at: int
    executed_at: int | None = None
    reason: str | None = None
    price: str | None = None
    quantity: str | None = None


class TradeRow(Struct, gc=False, rename="camel"):
    """A new row of "Trade"."""

    id: str
    symbol_id: int
    price: str
    quantity: str
    buy_order_id: str
    sell_order_id: str
    timestamp: int
    sequence: int
    taker_side: str


class SymbolRow(Struct, rename="camel"):
    """The trading rules of a row of "Symbol"."""

    id: int
    symbol: str
    tick_size: str
    lot_size: str
    status: str
    updated_at: int


class SequenceRow(Struct, rename="camel"):
    """The last sequence of a symbol that is applied."""

    symbol_id: int
    sequence: int


class Rows(Struct):
    """The rows of a write, by kind; no order is both in ``orders`` and in ``changes``."""

    orders: list[OrderRow]
    changes: list[OrderChange]
    trades: list[TradeRow]
    symbols: list[SymbolRow]
    sequences: list[SequenceRow]


@dataclass(frozen=True, slots=True)
class Write:
    """What brings the tables from ``first_offset`` to ``next_offset`` of a partition, both exclusive of the latter."""

    first_offset: int
    next_offset: int
    rows: Rows


def fold(records: Iterable[EventRecord], next_offset: int, sequences: Mapping[int, int]) -> Write:
    """Fold ``records`` of one partition into one write.

    Args:
        records: in offset order; those before ``next_offset`` are known already and are dropped.
        next_offset: the first offset that is not in the tables.
        sequences: last sequence of each symbol that is in the tables; not changed.

    Raises:
        CorruptLog: a record is no event, or a sequence of a symbol is missing.
    """
    symbols: dict[int, _SymbolFold] = {}
    trades: list[TradeRow] = []
    reached = next_offset
    for record in records:
        if record.offset < reached:
            continue
        reached = record.offset + 1
        event = decode_event(record.value)
        symbol_id = event.symbol_id
        symbol = symbols.get(symbol_id)
        if symbol is None:
            symbol = symbols[symbol_id] = _SymbolFold(symbol_id, sequences.get(symbol_id, 0), trades)
        expected = symbol.sequence + 1
        if event.sequence < expected:
            continue
        if event.sequence > expected:
            raise CorruptLog(
                f"symbol {symbol_id} goes on with sequence {event.sequence} at offset {record.offset}, expected "
                f"{expected}; events are gone from orders.exchange: restore the topic."
            )
        symbol.sequence = event.sequence
        symbol.apply(event)
    return Write(next_offset, reached, _rows(symbols, trades, sequences))


def _rows(symbols: dict[int, _SymbolFold], trades: list[TradeRow], sequences: Mapping[int, int]) -> Rows:
    folds = symbols.values()
    return Rows(
        [order for symbol in folds for order in symbol.orders.values()],
        [change for symbol in folds for change in symbol.changes.values()],
        trades,
        [symbol.rules for symbol in folds if symbol.rules is not None],
        [SequenceRow(s.symbol_id, s.sequence) for s in folds if s.sequence != sequences.get(s.symbol_id, 0)],
    )


class _SymbolFold:
    """What a batch does to the orders of one symbol."""

    __slots__ = ("changes", "orders", "rules", "sequence", "symbol_id", "trades")

    def __init__(self, symbol_id: int, sequence: int, trades: list[TradeRow]) -> None:
        self.symbol_id = symbol_id
        self.sequence = sequence
        self.trades = trades
        self.orders: dict[str, OrderRow] = {}
        self.changes: dict[str, OrderChange] = {}
        self.rules: SymbolRow | None = None

    def apply(self, event: WireEvent) -> None:
        match event:
            case OrderEvent():
                self._order(event)
            case TradeEvent():
                self._trade(event)
            case CancelEvent():
                data = event.data
                state = self._state(data.id, data.filled_quantity, data.status, event.timestamp)
                state.reason = data.reason
            case AmendEvent():
                amended = event.data
                state = self._state(amended.id, amended.filled_quantity, amended.status, event.timestamp)
                state.price, state.quantity = amended.price, amended.quantity
            case RejectEvent():
                self._reject(event)
            case SymbolEvent():
                self._symbol(event)

    def _order(self, event: OrderEvent) -> None:
        data = event.data
        # The engine forgets ids after a day or so: a new order may then bear the id of one that ended before.
        self.changes.pop(data.id, None)
        self.orders[data.id] = OrderRow(
            data.id,
            data.user_id,
            self.symbol_id,
            data.type,
            data.price,
            data.quantity,
            data.filled_quantity,
            data.status,
            data.side,
            data.time_in_force,
            data.client_order_id,
            None,
            event.sequence,
            data.created_at,
            event.timestamp,
        )

    def _trade(self, event: TradeEvent) -> None:
        data = event.data
        self.trades.append(
            TradeRow(
                data.trade_id,
                self.symbol_id,
                data.price,
                data.quantity,
                data.buy_order_id,
                data.sell_order_id,
                data.timestamp,
                event.sequence,
                data.taker_side,
            )
        )
        at = event.timestamp
        self._state(data.buy_order_id, data.buy_filled_quantity, data.buy_status, at).executed_at = at
        self._state(data.sell_order_id, data.sell_filled_quantity, data.sell_status, at).executed_at = at

    def _state(self, order_id: str, filled_quantity: str, status: str, timestamp: int) -> OrderRow | OrderChange:
        """The order's row or change, with its state after the event at ``self.sequence``."""
        state = self.orders.get(order_id) or self.changes.get(order_id)
        if state is None:
            state = self.changes[order_id] = OrderChange(
                order_id, self.symbol_id, filled_quantity, status, self.sequence, timestamp
            )
            return state
        state.filled_quantity = filled_quantity
        state.status = status
        state.sequence = self.sequence
        state.updated_at = timestamp
        return state

    def _reject(self, event: RejectEvent) -> None:
        data = event.data
        # The row of a duplicate is that of the order which was there first.
        if data.command != "NEW" or data.code == "DUPLICATE_ORDER":
            return
        if data.id in self.orders or data.id in self.changes:
            return
        self.orders[data.id] = OrderRow(
            data.id,
            data.user_id,
            self.symbol_id,
            data.type,
            _as_sent(data.price),
            _as_sent(data.quantity) or "0",
            "0",
            "REJECTED",
            data.side,
            data.time_in_force,
            data.client_order_id,
            data.code,
            event.sequence,
            event.timestamp,
            event.timestamp,
        )

    def _symbol(self, event: SymbolEvent) -> None:
        data = event.data
        # The one character that Postgres cannot keep in a text.
        name = data.symbol.replace("\0", "\ufffd")
        self.rules = SymbolRow(self.symbol_id, name, data.tick_size, data.lot_size, data.status, event.timestamp)


def _as_sent(text: str | None) -> str | None:
    """``text`` if it is a number that a column can hold, else None."""
    try:
        number = Decimal(text or "")
    except InvalidOperation:
        return None
    is_held = number.is_finite() and len(number.as_tuple().digits) + abs(number.adjusted()) <= _SENT_DIGITS_MAX
    return text if is_held else None
