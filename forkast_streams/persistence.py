"""Folds events into the rows one statement writes: each order once, in the state after the last of its events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.symbols import decimal_of
from forkast_streams.wire_events import (
    AmendEvent,
    CancelEvent,
    ExchangeEvent,
    OrderEvent,
    RejectEvent,
    TradeEvent,
    decode_event,
    is_new,
)

Row = dict[str, Any]


class RowBatch:
    """Rows of a batch of events of one partition.

    Attributes:
        sequences: last sequence by symbol, of the symbols that had new events.
        events: number of new events.
    """

    def __init__(self, last_sequences: dict[int, int]) -> None:
        self._last = last_sequences
        self.sequences: dict[int, int] = {}
        self.events = 0
        self._orders: dict[str, Row] = {}
        self._changes: dict[str, Row] = {}
        self._trades: list[Row] = []

    def add(self, values: Iterable[bytes | None]) -> None:
        """Fold the values of records in; those known already are dropped.

        Raises:
            CorruptLog: a value is no event, or events are missing before it.
        """
        for value in values:
            event = decode_event(value)
            symbol_id = event.symbol_id
            last = self.sequences.get(symbol_id)
            if last is None:
                last = self._last.get(symbol_id, 0)
            if is_new(event, last):
                self._fold(event)
                self.sequences[symbol_id] = event.sequence
                self.events += 1

    def rows(self) -> dict[str, list[Row]]:
        """The rows as ``sink_write`` takes them."""
        return {
            "orders": list(self._orders.values()),
            "changes": list(self._changes.values()),
            "trades": self._trades,
        }

    def _fold(self, event: ExchangeEvent) -> None:
        if isinstance(event, TradeEvent):
            self._trade(event)
        elif isinstance(event, OrderEvent):
            self._order(event)
        elif isinstance(event, CancelEvent):
            data = event.data
            self._change(event, data.id, data.filled_quantity, data.status, reason=data.reason)
        elif isinstance(event, AmendEvent):
            amended = event.data
            row = self._change(event, amended.id, amended.filled_quantity, amended.status)
            row["price"], row["quantity"] = amended.price, amended.quantity
        elif isinstance(event, RejectEvent):
            self._rejection(event)

    def _order(self, event: OrderEvent) -> None:
        data = event.data
        self._orders[data.id] = {
            "id": data.id,
            "user_id": data.user_id,
            "symbol_id": event.symbol_id,
            "type": data.type,
            "price": data.price,
            "quantity": data.quantity,
            "filled": "0",
            "status": "PENDING",
            "side": data.side,
            "time_in_force": data.time_in_force,
            "client_order_id": data.client_order_id,
            "reason": None,
            "sequence": event.sequence,
            "created": data.created_at,
            "updated": event.timestamp,
            "executed": None,
        }

    def _trade(self, event: TradeEvent) -> None:
        data = event.data
        self._trades.append(
            {
                "id": data.trade_id,
                "symbol_id": event.symbol_id,
                "price": data.price,
                "quantity": data.quantity,
                "buy": data.buy_order_id,
                "sell": data.sell_order_id,
                "time": event.timestamp,
                "sequence": event.sequence,
                "taker_side": data.taker_side,
            }
        )
        for order_id, filled, status in (
            (data.buy_order_id, data.buy_filled_quantity, data.buy_status),
            (data.sell_order_id, data.sell_filled_quantity, data.sell_status),
        ):
            self._change(event, order_id, filled, status)["executed"] = event.timestamp

    def _change(
        self, event: ExchangeEvent, order_id: str, filled: str, status: str, *, reason: str | None = None
    ) -> Row:
        """The row of an order, brought to its state after ``event``."""
        row = self._orders.get(order_id) or self._changes.get(order_id)
        if row is None:
            row = self._changes[order_id] = {"id": order_id, "symbol_id": event.symbol_id}
        row["filled"], row["status"], row["reason"] = filled, status, reason
        row["sequence"], row["updated"] = event.sequence, event.timestamp
        return row

    def _rejection(self, event: RejectEvent) -> None:
        """A refused new order is kept, so that its owner can read why; a repeat must not touch the first one."""
        data = event.data
        if data.command != "NEW" or data.code == Rejection.DUPLICATE_ORDER.value:
            return
        self._orders[data.id] = {
            "id": data.id,
            "user_id": data.user_id,
            "symbol_id": event.symbol_id,
            "type": data.type,
            "price": _storable(data.price),
            "quantity": _storable(data.quantity) or "0",
            "filled": "0",
            "status": "REJECTED",
            "side": data.side,
            "time_in_force": data.time_in_force,
            "client_order_id": data.client_order_id,
            "reason": data.code,
            "sequence": event.sequence,
            "created": event.timestamp,
            "updated": event.timestamp,
            "executed": None,
        }


def _storable(text: str | None) -> str | None:
    """A refused number as the columns can hold it; None when it is absurd."""
    if text is None:
        return None
    number = decimal_of(text) if text.isascii() and len(text) <= 40 and "E" not in text.upper() else None
    return f"{number:f}" if number is not None and abs(number) < 10**20 else None
