"""Folds events of ``orders.exchange`` into the rows that one statement writes.

Events carry the state of an order after them, so of many events of an order only the last state is written. This
module has no I/O: records in, a ``Write`` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from msgspec import Struct

from forkast_streams.errors import CorruptLog
from forkast_streams.records import EventRecord, record_digest
from forkast_streams.repeats import RecentEvents
from forkast_streams.wire_events import (
    EXPIRE_TAKER,
    AmendEvent,
    CancelEvent,
    OrderEvent,
    RejectEvent,
    SymbolEvent,
    TradeEvent,
    TriggerEvent,
    WireEvent,
    decode_event,
)

# A rejected order is kept as it was sent, unless a number in it is out of all proportion.
_SENT_DIGITS_MAX = 60
# The last moment that Postgres and Python both can tell, in milliseconds: the end of the year 9999.
_TIME_MAX = 253_402_300_799_999
_INT32_MAX = 2**31 - 1


class OrderRow(Struct, rename="camel", omit_defaults=True):
    """A new row of "Order": decimals as text, times in milliseconds; what is left out is NULL."""

    id: str
    user_id: int
    symbol_id: int
    type: str
    filled_quantity: str
    status: str
    side: str
    time_in_force: str
    sequence: int
    created_at: int
    updated_at: int
    price: str | None = None
    quantity: str | None = None
    client_order_id: str | None = None
    reason: str | None = None
    executed_at: int | None = None
    stop_price: str | None = None
    expires_at: int | None = None
    post_only: bool = False
    display_quantity: str | None = None
    self_trade_prevention: str = EXPIRE_TAKER
    quote_quantity: str | None = None
    triggered_at: int | None = None
    replaces: str | None = None


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
    stop_price: str | None = None
    triggered_at: int | None = None


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
    """The trading rules of a row of "Symbol"; a rule that is None does not hold."""

    id: int
    symbol: str
    tick_size: str
    lot_size: str
    status: str
    updated_at: int
    min_quantity: str | None
    max_quantity: str | None
    min_notional: str | None
    price_collar: str | None
    max_open_orders: int | None


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
    """What brings the tables from ``first_offset`` to ``next_offset`` of a partition, both exclusive of the latter.

    Attributes:
        last_digest: `record_digest` of the last record; None: there is none.
    """

    first_offset: int
    next_offset: int
    rows: Rows
    last_digest: str | None


def fold(records: Sequence[EventRecord], next_offset: int, sequences: Mapping[int, int], recent: RecentEvents) -> Write:
    """Fold ``records`` of one partition into one write.

    Args:
        records: in offset order; those before ``next_offset`` are known already and are dropped.
        next_offset: the first offset that is not in the tables.
        sequences: last sequence of each symbol that is in the tables; not changed.
        recent: the events before these, with which events that come again are compared; takes in ``records``.

    Raises:
        CorruptLog: a record is no event, a sequence of a symbol is missing, or one has come again with other content.
    """
    recent.remember([record.value for record in records])
    symbols: dict[int, _SymbolFold] = {}
    trades: list[TradeRow] = []
    reached, last = next_offset, None
    # Which events count is the rule of a keeper's `MarketDataState.apply`, too, whose loop has no room for a call each.
    for record in records:
        if record.offset < reached:
            continue
        if record.offset > reached:
            raise CorruptLog(
                f"orders.exchange goes on at offset {record.offset}, expected {reached}; the events between were not "
                "read: a restart reads them again if they are still there."
            )
        reached, last = record.offset + 1, record
        event = decode_event(record.value)
        symbol_id = event.symbol_id
        symbol = symbols.get(symbol_id)
        if symbol is None:
            symbol = symbols[symbol_id] = _SymbolFold(symbol_id, sequences.get(symbol_id, 0), trades)
        expected = symbol.sequence + 1
        if event.sequence < expected:
            recent.check(symbol_id, event.sequence, record.value)
            continue
        if event.sequence > expected:
            raise CorruptLog(
                f"symbol {symbol_id} goes on with sequence {event.sequence} at offset {record.offset}, expected "
                f"{expected}; events are gone from orders.exchange: restore the topic."
            )
        symbol.sequence = event.sequence
        symbol.apply(event)
    last_digest = None if last is None else record_digest(last)
    return Write(next_offset, reached, _rows(symbols, trades, sequences), last_digest)


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
                # An order that was triggered keeps the stop price that it had, in this batch as in any other.
                if amended.stop_price is not None:
                    state.stop_price = amended.stop_price
            case TriggerEvent():
                # A stop order waits untouched until it is triggered.
                self._state(event.data.id, "0", "PENDING", event.timestamp).triggered_at = event.timestamp
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
            data.filled_quantity,
            data.status,
            data.side,
            data.time_in_force,
            event.sequence,
            data.created_at,
            event.timestamp,
            data.price,
            data.quantity,
            data.client_order_id,
            None,
            None,
            data.stop_price,
            _told(data.expires_at),
            data.post_only,
            data.display_quantity,
            data.self_trade_prevention,
            data.quote_quantity,
            None,
            data.replaces,
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
        if data.command not in ("NEW", "REPLACE") or data.code == "DUPLICATE_ORDER":
            return
        if data.id in self.orders or data.id in self.changes:
            return
        self.orders[data.id] = OrderRow(
            data.id,
            data.user_id,
            self.symbol_id,
            data.type,
            "0",
            "REJECTED",
            data.side,
            data.time_in_force,
            event.sequence,
            event.timestamp,
            event.timestamp,
            _as_sent(data.price),
            None if data.quantity is None else _as_sent(data.quantity) or "0",
            data.client_order_id,
            data.code,
            None,
            _as_sent(data.stop_price),
            _told(data.expires_at),
            bool(data.post_only),
            _as_sent(data.display_quantity),
            data.self_trade_prevention or EXPIRE_TAKER,
            _as_sent(data.quote_quantity),
            None,
            data.replaces,
        )

    def _symbol(self, event: SymbolEvent) -> None:
        data = event.data
        # The one character that Postgres cannot keep in a text.
        name = data.symbol.replace("\0", "\ufffd")
        self.rules = SymbolRow(
            self.symbol_id,
            name,
            data.tick_size,
            data.lot_size,
            data.status,
            event.timestamp,
            data.min_quantity,
            data.max_quantity,
            data.min_notional,
            data.price_collar,
            None if data.max_open_orders is None else min(data.max_open_orders, _INT32_MAX),
        )


def _told(at: int | None) -> int | None:
    """A time of a producer's, brought within what can be told."""
    return None if at is None else max(0, min(at, _TIME_MAX))


def _as_sent(text: str | None) -> str | None:
    """``text`` if it is a number that a column can hold, else None."""
    if not text:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    is_held = number.is_finite() and len(number.as_tuple().digits) + abs(number.adjusted()) <= _SENT_DIGITS_MAX
    return text if is_held else None
