"""An order as its owner sees it, from its row or from the pending record that stands in until there is one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from forkast_streams.engine.commands import NewOrder
from forkast_streams.orders.requests import plain

_TIMES = ("createdAt", "updatedAt", "executedAt")


def order_view(row: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an order: price as decimal text, quantities as JSON numbers written exactly, times in ISO 8601."""
    view = dict(row)
    price = row["price"]
    view["price"] = None if price is None else plain(price)
    for name in ("quantity", "filledQuantity"):
        view[name] = _exact(Decimal(row[name]))
    for name in _TIMES:
        view[name] = _iso(row[name])
    return view


def pending_order(order: NewOrder, created_ms: int) -> dict[str, Any]:
    """The record of an order that the log took at ``created_ms`` and that has no row yet."""
    return {
        "id": order.order_id,
        "userId": order.user_id,
        "symbolId": order.symbol_id,
        "type": order.type,
        "side": order.side,
        "price": None if order.price is None else plain(order.price),
        "quantity": plain(order.quantity),
        "timeInForce": order.time_in_force,
        "clientOrderId": order.client_order_id,
        "createdAtMs": created_ms,
    }


def rows_of_pending(pending: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pending records as the rows they will become, if nothing else happens to the orders."""
    rows = []
    for order in pending:
        created = datetime.fromtimestamp(order["createdAtMs"] / 1000, UTC).replace(tzinfo=None)
        row = {name: value for name, value in order.items() if name != "createdAtMs"}
        row |= {"filledQuantity": "0", "status": "PENDING", "reason": None}
        row |= {"createdAt": created, "updatedAt": created, "executedAt": None}
        rows.append(row)
    return rows


def _exact(number: Decimal) -> int | Decimal:
    return int(number) if number == number.to_integral_value() else number.normalize()


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='milliseconds')}Z"
