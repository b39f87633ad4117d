"""What the tables must hold: a plain replay of the log, one event after the other, written without the sink's code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from forkast_streams.storage.postgres import Postgres

Tables = tuple[dict[tuple[int, str], tuple[Any, ...]], dict[str, tuple[Any, ...]], dict[int, int]]

_ORDERS = """
SELECT "symbolId", id, "userId", type::text, side::text, price, quantity, "filledQuantity", status::text, reason,
    "timeInForce", "clientOrderId", sequence, extract(epoch FROM "createdAt") * 1000,
    extract(epoch FROM "updatedAt") * 1000, extract(epoch FROM "executedAt") * 1000, "stopPrice",
    extract(epoch FROM "expiresAt") * 1000, "postOnly", "displayQuantity", "selfTradePrevention", "quoteQuantity",
    extract(epoch FROM "triggeredAt") * 1000, replaces
FROM "Order"
"""
_TRADES = """
SELECT id, "symbolId", price, quantity, "buyOrderId", "sellOrderId", extract(epoch FROM "timestamp") * 1000, sequence,
    "takerSide"::text
FROM "Trade"
"""


async def stored(postgres: Postgres) -> Tables:
    """Orders by symbol and id, trades by id, and the last sequence of each symbol."""
    orders = {(row[0], row[1]): row[2:] for row in await postgres.fetch(_ORDERS)}
    trades = {row[0]: row[1:] for row in await postgres.fetch(_TRADES)}
    return orders, trades, dict(await postgres.fetch('SELECT "symbolId", sequence FROM "SymbolSequence"'))


def replayed(values: Iterable[bytes]) -> Tables:
    """The same of the log's ``values``; events that come again are skipped."""
    orders: dict[tuple[int, str], dict[str, Any]] = {}
    trades: dict[str, tuple[Any, ...]] = {}
    sequences: dict[int, int] = {}
    for value in values:
        event = json.loads(value)
        symbol_id, sequence, at, data = (event[field] for field in ("symbolId", "sequence", "timestamp", "data"))
        if sequence <= sequences.get(symbol_id, 0):
            continue
        sequences[symbol_id] = sequence
        _apply(event["type"], data, symbol_id, {"sequence": sequence, "updatedAt": at}, orders)
        if event["type"] == "TRADE":
            trades[data["tradeId"]] = (
                symbol_id, Decimal(data["price"]), Decimal(data["quantity"]), data["buyOrderId"],
                data["sellOrderId"], at, sequence, data["takerSide"],
            )  # fmt: skip
    return {key: _row(order) for key, order in orders.items()}, trades, sequences


def _apply(
    kind: str, data: dict[str, Any], symbol_id: int, common: dict[str, Any], orders: dict[tuple[int, str], Any]
) -> None:
    if kind == "ORDER":
        orders[symbol_id, data["id"]] = data | common
    elif kind == "REJECT" and data["command"] in ("NEW", "REPLACE") and data["code"] != "DUPLICATE_ORDER":
        made = {"status": "REJECTED", "filledQuantity": 0, "reason": data["code"], "createdAt": common["updatedAt"]}
        orders[symbol_id, data["id"]] = data | made | common
    elif kind == "TRADE":
        for side in ("buy", "sell"):
            orders[symbol_id, data[f"{side}OrderId"]] |= common | {
                "filledQuantity": data[f"{side}FilledQuantity"],
                "status": data[f"{side}Status"],
                "executedAt": common["updatedAt"],
            }
    elif kind == "CANCEL":
        state = {field: data[field] for field in ("filledQuantity", "status", "reason")}
        orders[symbol_id, data["id"]] |= state | common
    elif kind == "AMEND":
        state = {field: data[field] for field in ("filledQuantity", "status", "price", "quantity")}
        state |= {"stopPrice": data["stopPrice"]} if "stopPrice" in data else {}
        orders[symbol_id, data["id"]] |= state | common
    elif kind == "TRIGGER":
        orders[symbol_id, data["id"]] |= {"triggeredAt": common["updatedAt"]} | common


def _row(order: dict[str, Any]) -> tuple[Any, ...]:
    return (
        order["userId"], order["type"], order["side"], _number(order["price"]), _number(order["quantity"]),
        Decimal(order["filledQuantity"]), order["status"], order.get("reason"), order["timeInForce"],
        order.get("clientOrderId"), order["sequence"], order["createdAt"], order["updatedAt"], order.get("executedAt"),
        _number(order.get("stopPrice")), order.get("expiresAt"), order.get("postOnly", False),
        _number(order.get("displayQuantity")), order.get("selfTradePrevention", "EXPIRE_TAKER"),
        _number(order.get("quoteQuantity")), order.get("triggeredAt"), order.get("replaces"),
    )  # fmt: skip


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
