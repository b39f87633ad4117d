"""The rows that the tables must have: each as one text, and sums of their hashes for a comparison without the rows.

A row is the texts of its columns, the same whether it comes from the events, from SQL or from a dump: decimals without
trailing zeros, times in milliseconds, and ``~`` for NULL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from msgspec import Struct

from forkast_streams.audit.queues import LiveOrder

NULL = "~"
HASH_HEX_DIGITS = 15

# Columns with the kind of their content: how SQL turns it into text is in `tables`.
ORDER_COLUMNS = {
    "id": "text", "symbolId": "text", "userId": "text", "type": "text", "side": "text", "price": "decimal",
    "quantity": "decimal", "filledQuantity": "decimal", "status": "text", "timeInForce": "text",
    "clientOrderId": "text", "reason": "text", "createdAt": "time", "executedAt": "time", "updatedAt": "time",
    "sequence": "text",
}  # fmt: skip
# Columns of later versions: compared when the table has them. Where a value is the default NULL will do as well.
LATER_ORDER_COLUMNS = {
    "stopPrice": "decimal", "expiresAt": "time", "postOnly": "flag", "displayQuantity": "decimal",
    "selfTradePrevention": "text", "quoteQuantity": "decimal", "triggeredAt": "time", "replaces": "text",
}  # fmt: skip
DEFAULTS = {"postOnly": "false", "selfTradePrevention": "EXPIRE_TAKER"}
TRADE_COLUMNS = {
    "id": "text", "symbolId": "text", "price": "decimal", "quantity": "decimal", "buyOrderId": "text",
    "sellOrderId": "text", "timestamp": "time", "sequence": "text", "takerSide": "text",
}  # fmt: skip

# A rejected order stands in the table as it was sent, unless a number in it is out of all proportion.
_SENT_DIGITS_MAX = 60
# The end of the year 9999 in milliseconds, the last moment that a column can tell.
_TIME_MAX = 253_402_300_799_999

# Commands whose REJECT makes a row of the order.
REJECTED_WITH_ROW = ("NEW", "REPLACE")


@lru_cache(maxsize=65_536)
def decimal_text(text: str) -> str:
    """A number without exponent and without zeros at its end, as ``trim_scale`` of Postgres writes it."""
    plain = f"{Decimal(text):f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain == "-0" else plain


def as_sent(text: str | None) -> str | None:
    """A number of a rejected order as a table can hold it; None when it cannot."""
    try:
        number = Decimal(text or "")
    except InvalidOperation:
        return None
    is_held = number.is_finite() and len(number.as_tuple().digits) + abs(number.adjusted()) <= _SENT_DIGITS_MAX
    return text if is_held else None


def row_hash(text: str) -> int:
    """60 bits of a row's text."""
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:HASH_HEX_DIGITS], 16)


class Sum(Struct):
    """How many rows, and the sum of their hashes."""

    count: int = 0
    total: int = 0

    def add(self, hashed: int) -> None:
        """Count a row."""
        self.count += 1
        self.total += hashed

    def less(self, other: Sum) -> Sum:
        """What is in this sum and not in the other."""
        return Sum(self.count - other.count, self.total - other.total)


class Rows(Struct):
    """The rows of one symbol at one moment."""

    orders: Sum
    trades: Sum
    sequence: int


class OrderRow:
    """What the table knows of an order besides its state; times in milliseconds."""

    __slots__ = ("data", "executed_at", "quantity", "reason", "sequence", "status", "triggered_at", "updated_at")

    def __init__(self, data: dict[str, Any], sequence: int, timestamp: int) -> None:
        self.data = data
        self.quantity: str | None = data["quantity"]
        self.status: str = "PENDING"
        self.reason: str | None = None
        self.executed_at: int | None = None
        self.triggered_at: int | None = None
        self.sequence = sequence
        self.updated_at = timestamp


class RowKeeper:
    """Turns orders and trades of one symbol into rows and keeps the sums of those that cannot change any more.

    Args:
        later: the columns of ``LATER_ORDER_COLUMNS`` that the table has.

    Attributes:
        orders: of orders that have ended or were refused.
        trades: of all trades.
        on_row: called with the table and the text of each row that is counted.
    """

    __slots__ = ("_later", "_symbol", "on_row", "orders", "trades")

    def __init__(self, symbol_id: int, later: Sequence[str]) -> None:
        self._symbol = str(symbol_id)
        self._later = later
        self.orders = Sum()
        self.trades = Sum()
        self.on_row: Callable[[str, str], None] | None = None

    def ended(self, order: LiveOrder) -> None:
        """Count the row of an order that has ended."""
        self._count("Order", self.orders, self.order_text(order))

    def rejected(self, data: dict[str, Any], sequence: int, timestamp: int) -> None:
        """Count the row of an order that was refused."""
        self._count("Order", self.orders, self._rejected_text(data, sequence, timestamp))

    def traded(self, data: dict[str, Any], sequence: int) -> None:
        """Count the row of a trade."""
        self._count("Trade", self.trades, self._trade_text(data, sequence))

    def _count(self, table: str, rows: Sum, text: str) -> None:
        rows.add(row_hash(text))
        if self.on_row is not None:
            self.on_row(table, text)

    def order_text(self, order: LiveOrder) -> str:
        """The row of an order as it is."""
        row: OrderRow = order.row
        data = row.data
        price = None if order.price is None else str(order.price)
        texts = [
            order.id, self._symbol, str(order.user_id), order.type, order.side, _decimal(price),
            _decimal(row.quantity), decimal_text(str(order.filled)), row.status, order.time_in_force,
            data.get("clientOrderId") or NULL, row.reason or NULL, str(data["createdAt"]), _number(row.executed_at),
            str(row.updated_at), str(row.sequence),
        ]  # fmt: skip
        changed = {"stopPrice": order.stop_price, "triggeredAt": row.triggered_at}
        texts += [_later_text(name, changed[name] if name in changed else data.get(name)) for name in self._later]
        return "|".join(texts)

    def _rejected_text(self, data: dict[str, Any], sequence: int, timestamp: int) -> str:
        quantity = data["quantity"]
        texts = [
            data["id"], self._symbol, str(data["userId"]), data["type"], data["side"],
            _decimal(as_sent(data.get("price"))), NULL if quantity is None else decimal_text(as_sent(quantity) or "0"),
            "0", "REJECTED", data["timeInForce"], data.get("clientOrderId") or NULL, data["code"], str(timestamp), NULL,
            str(timestamp), str(sequence),
        ]  # fmt: skip
        for name in self._later:
            value = data.get(name)
            texts.append(_later_text(name, as_sent(value) if LATER_ORDER_COLUMNS[name] == "decimal" else value))
        return "|".join(texts)

    def _trade_text(self, data: dict[str, Any], sequence: int) -> str:
        return "|".join((
            data["tradeId"], self._symbol, decimal_text(data["price"]), decimal_text(data["quantity"]),
            data["buyOrderId"], data["sellOrderId"], str(data["timestamp"]), str(sequence), data["takerSide"],
        ))  # fmt: skip

    def sums(self, live: Sequence[LiveOrder], sequence: int) -> Rows:
        """All rows, with those of the orders that are live."""
        orders = Sum(self.orders.count, self.orders.total)
        for order in live:
            if order.row_hash is None:
                order.row_hash = row_hash(self.order_text(order))
            orders.add(order.row_hash)
        return Rows(orders, Sum(self.trades.count, self.trades.total), sequence)


def _later_text(name: str, value: Any) -> str:
    if value is None:
        return NULL
    kind = LATER_ORDER_COLUMNS[name]
    if kind == "decimal":
        return decimal_text(str(value))
    if kind == "time":
        return str(max(0, min(value, _TIME_MAX)))
    text = str(value).lower() if kind == "flag" else str(value)
    return NULL if text == DEFAULTS.get(name) else text


def _decimal(text: str | None) -> str:
    return NULL if text is None else decimal_text(text)


def _number(number: int | None) -> str:
    return NULL if number is None else str(number)
