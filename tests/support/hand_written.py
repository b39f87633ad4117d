"""Events of ``orders.exchange`` written by hand from docs/wire.md, for readers to be tested without the engine."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.support.flows import START_MS, Record
from tests.support.market_events import HOME, SYMBOL

Event = tuple[str, dict[str, Any]]


def order_id(name: str) -> str:
    """A UUID for an order that a test calls ``name``."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def records(*commands: list[Event]) -> list[Record]:
    """Each list of events as the answer to one command; a SYMBOL event with lots of 1 goes before them all."""
    made: list[Record] = []
    rules = {"symbol": "SYM", "tickSize": "0.01", "lotSize": "1", "status": "TRADING"}
    for offset, events in enumerate([[("SYMBOL", rules)], *commands]):
        for index, (kind, data) in enumerate(events):
            at = len(made)
            envelope = {
                "type": kind,
                "symbolId": SYMBOL,
                "sequence": at + 1,
                "timestamp": START_MS + offset,
                "source": {"partition": HOME, "offset": offset, "index": index, "count": len(events)},
                "data": data,
            }
            made.append(Record(at, START_MS + offset, str(SYMBOL).encode(), json.dumps(envelope).encode()))
    return made


def order(name: str, side: str, price: str | None, quantity: str | None, **fields: Any) -> Event:
    """A LIMIT order unless ``fields`` say otherwise."""
    return "ORDER", {
        "id": order_id(name), "userId": 1, "symbolId": SYMBOL, "type": "LIMIT", "side": side, "price": price,
        "quantity": quantity, "filledQuantity": "0", "status": "PENDING", "timeInForce": "GTC", "createdAt": START_MS,
    } | fields  # fmt: skip


def trigger(name: str, side: str, price: str | None, stop_price: str, quantity: str, last_price: str) -> Event:
    """A stop order becomes active."""
    return "TRIGGER", {
        "id": order_id(name), "userId": 1, "side": side, "type": "STOP" if price is None else "STOP_LIMIT",
        "price": price, "stopPrice": stop_price, "quantity": quantity, "lastPrice": last_price,
    }  # fmt: skip


def show(name: str, side: str, price: str, quantity: str, *, refill: bool) -> Event:
    """An order's quantity comes to stand in its level."""
    return "SHOW", {
        "id": order_id(name), "userId": 1, "side": side, "price": price, "quantity": quantity, "refill": refill
    }  # fmt: skip


def trade(
    buyer: tuple[str, str, bool], seller: tuple[str, str, bool], taker: str, price: str, quantity: str, **fields: Any
) -> Event:
    """A fill of two orders, each given as name, filled quantity and whether it is filled; the taker has no level."""
    states = {True: "FILLED", False: "PARTIALLY_FILLED"}
    return "TRADE", {
        "tradeId": order_id(f"{buyer}{seller}"), "symbolId": SYMBOL, "price": price, "quantity": quantity,
        "buyOrderId": order_id(buyer[0]), "sellOrderId": order_id(seller[0]), "buyUserId": 1, "sellUserId": 2,
        "timestamp": START_MS, "takerSide": taker, "takerPrice": None,
        "buyFilledQuantity": buyer[1], "buyStatus": states[buyer[2]],
        "sellFilledQuantity": seller[1], "sellStatus": states[seller[2]],
    } | fields  # fmt: skip


def cancel(name: str, side: str, price: str | None, quantity: str | None, **fields: Any) -> Event:
    """The end of an order by its user unless ``fields`` say otherwise."""
    return "CANCEL", {
        "id": order_id(name), "userId": 1, "side": side, "price": price, "quantity": quantity, "filledQuantity": "0",
        "status": "CANCELLED", "reason": "USER",
    } | fields  # fmt: skip


def amend(name: str, side: str, before: tuple[str | None, str], after: tuple[str | None, str], **fields: Any) -> Event:
    """Another price and total quantity for an order of which nothing is filled unless ``fields`` say otherwise."""
    return "AMEND", {
        "id": order_id(name), "userId": 1, "side": side, "price": after[0], "quantity": after[1],
        "filledQuantity": "0", "status": "PENDING", "keptPriority": False,
        "previousPrice": before[0], "previousQuantity": before[1],
    } | fields  # fmt: skip


def reject(command: str, code: str, **fields: Any) -> Event:
    """A command that changed nothing."""
    return "REJECT", {"command": command, "userId": 1, "code": code, "message": "no"} | fields
