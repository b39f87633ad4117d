"""An order as its owner sees it, from its row or from the pending record that stands in until there is one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from forkast_streams.codec import decimal_text
from forkast_streams.engine.commands import NewOrder
from forkast_streams.engine.symbols import EXACT
from forkast_streams.orders.symbols import RULE_COLUMNS

_TIMES = ("createdAt", "updatedAt", "executedAt", "triggeredAt")
_QUANTITIES = ("quantity", "filledQuantity", "displayQuantity")
_PRICES = ("price", "stopPrice", "quoteQuantity")
_PRICE_DECIMALS = 12
# The exchange takes no fees yet; clients can rely on the fields already.
_FEES = {"fee": "0", "feeCurrency": None}


def order_view(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an order.

    Prices and amounts are decimal text, quantities JSON numbers written exactly, times ISO 8601 but for ``expiresAt``,
    which is in milliseconds as it was sent.
    """
    view = dict(row)
    for name in _PRICES:
        view[name] = None if row[name] is None else decimal_text(Decimal(row[name]))
    for name in _QUANTITIES:
        view[name] = None if row[name] is None else _exact(Decimal(row[name]))
    quantity = row["quantity"]
    view["remainingQuantity"] = None if quantity is None else _remaining(row)
    average = row["averagePrice"]
    view["averagePrice"] = None if average is None else decimal_text(round(Decimal(average), _PRICE_DECIMALS))
    for name in _TIMES:
        view[name] = _iso(row[name])
    expires_at = row["expiresAt"]
    view["expiresAt"] = None if expires_at is None else round(expires_at.replace(tzinfo=UTC).timestamp() * 1000)
    return view | _FEES


def place_of(view: dict[str, Any]) -> tuple[int, str]:
    """Where an order stands among its user's: its time in milliseconds and its id."""
    return round(datetime.fromisoformat(view["createdAt"]).timestamp() * 1000), view["id"]


def trade_view(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of one fill of an order."""
    return {
        "tradeId": row["tradeId"],
        "price": decimal_text(row["price"]),
        "quantity": _exact(row["quantity"]),
        "liquidity": "TAKER" if row["isTaker"] else "MAKER",
        "timestamp": _iso(row["timestamp"]),
    } | _FEES


def symbol_view(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a symbol with its trading rules; a rule that is null does not exist."""
    decimals = ("tickSize", "lotSize", *RULE_COLUMNS)
    return row | {name: None if row[name] is None else decimal_text(row[name]) for name in decimals}


def pending_order(order: NewOrder, fields: dict[str, Any], created_ms: int) -> dict[str, Any]:
    """The record of an order that the log took at ``created_ms`` and that has no row yet; ``fields`` as on the wire."""
    identity = {"id": order.order_id, "userId": order.user_id, "symbolId": order.symbol_id}
    return {**identity, **fields, "replaces": order.replaces, "createdAtMs": created_ms}


def rows_of_pending(pending: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pending records as the rows they will become, if nothing else happens to the orders."""
    rows = []
    for order in pending:
        created = _moment(order["createdAtMs"])
        row = _DEFAULTS | {name: value for name, value in order.items() if name != "createdAtMs"}
        if row["expiresAt"] is not None:
            row["expiresAt"] = _moment(row["expiresAt"])
        rows.append(row | {"createdAt": created, "updatedAt": created})
    return rows


_DEFAULTS: dict[str, Any] = {
    "price": None,
    "quantity": None,
    "filledQuantity": "0",
    "status": "PENDING",
    "clientOrderId": None,
    "reason": None,
    "executedAt": None,
    "stopPrice": None,
    "expiresAt": None,
    "postOnly": False,
    "displayQuantity": None,
    "selfTradePrevention": "EXPIRE_TAKER",
    "quoteQuantity": None,
    "triggeredAt": None,
    "replaces": None,
    "averagePrice": None,
}


def _remaining(row: dict[str, Any]) -> int | Decimal:
    """What can still trade."""
    if row["status"] not in ("PENDING", "PARTIALLY_FILLED"):
        return 0
    return _exact(EXACT.subtract(Decimal(row["quantity"]), Decimal(row["filledQuantity"])))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)


def _exact(number: Decimal) -> int | Decimal:
    return int(number) if number == number.to_integral_value() else number.normalize(EXACT)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='milliseconds')}Z"
