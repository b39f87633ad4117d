"""The events of the naive exchange, as docs/wire.md describes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from forkast_streams.naive_book.book import Command, Data, Event, NaiveBook, NaiveOrder, plain


def event(book: NaiveBook, kind: str, command: Command, data: Data) -> Event:
    """Count the event and give it the command's own id, if it has one."""
    book.sequence += 1
    if command.get("commandId") is not None:
        data["commandId"] = command["commandId"]
    return kind, data


def accept(book: NaiveBook, order: NaiveOrder, command: Command) -> Event:
    """A new order is in."""
    is_amount = command.get("quoteQuantity") is not None
    data = {
        "id": order.id,
        "userId": order.user_id,
        "symbolId": book.id,
        "type": order.type,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": None if is_amount else book.quantity_text(order.quantity),
        "filledQuantity": "0",
        "status": "PENDING",
        "timeInForce": order.time_in_force,
        "createdAt": book.now,
    }
    optional = {
        "clientOrderId": command.get("clientOrderId"),
        "quoteQuantity": plain(Decimal(command["quoteQuantity"])) if is_amount else None,
        "stopPrice": book.price_text(order.stop_price),
        "expiresAt": order.expires_at,
        "postOnly": order.post_only or None,
        "displayQuantity": None if order.display_quantity is None else book.quantity_text(order.display_quantity),
        "selfTradePrevention": _unless_default(order.self_trade_prevention),
        "replaces": command["orderId"].lower() if command.get("command") == "REPLACE" else None,
    }
    data |= {name: value for name, value in optional.items() if value is not None}
    return event(book, "ORDER", command, data)


def traded(book: NaiveBook, taker: NaiveOrder, maker: NaiveOrder, quantity: Decimal, *, is_counted: bool) -> Event:
    """Two orders traded."""
    book.sequence += 1
    buy, sell = (taker, maker) if taker.side == "BUY" else (maker, taker)
    return "TRADE", {
        "tradeId": f"{book.id:08x}-0000-8000-8000-{book.sequence:012x}",
        "symbolId": book.id,
        "price": book.price_text(maker.price),
        "quantity": book.quantity_text(quantity),
        "buyOrderId": buy.id,
        "sellOrderId": sell.id,
        "buyUserId": buy.user_id,
        "sellUserId": sell.user_id,
        "timestamp": book.now,
        "takerSide": taker.side,
        "takerPrice": book.price_text(taker.price) if is_counted else None,
        "buyFilledQuantity": book.quantity_text(buy.filled),
        "buyStatus": buy.status,
        "sellFilledQuantity": book.quantity_text(sell.filled),
        "sellStatus": sell.status,
    }


def shown(book: NaiveBook, order: NaiveOrder, *, is_refill: bool) -> Event:
    """An order counts at its price with what it shows."""
    data = {
        "id": order.id,
        "userId": order.user_id,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": book.quantity_text(order.shown),
        "refill": is_refill,
    }
    return event(book, "SHOW", {}, data)


def cancelled(
    book: NaiveBook, order: NaiveOrder, reason: str, command: Command, shown: Decimal, amount: Decimal | None = None
) -> Event:
    """An order ended; ``amount`` of money is left of one that had no quantity."""
    data = {
        "id": order.id,
        "userId": order.user_id,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": None if amount is not None else book.quantity_text(order.open),
        "filledQuantity": book.quantity_text(order.filled),
        "status": "EXPIRED" if reason in ("EXPIRED", "SELF_TRADE") else "CANCELLED",
        "reason": reason,
    }
    if amount is not None:
        data["quoteQuantity"] = plain(amount)
    elif order.price is not None and shown != order.open:
        data["shownQuantity"] = book.quantity_text(shown)
    if order.waiting:
        data["stopPrice"] = book.price_text(order.stop_price)
    return event(book, "CANCEL", command, data)


def amended(
    book: NaiveBook,
    order: NaiveOrder,
    command: Command,
    kept_priority: bool,
    old: tuple[Decimal | None, Decimal | None, Decimal],
    shown: tuple[Decimal, Decimal],
) -> Event:
    """An order was changed; ``old`` is its price, stop price and quantity before, ``shown`` are after and before."""
    data = {
        "id": order.id,
        "userId": order.user_id,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": book.quantity_text(order.quantity),
        "filledQuantity": book.quantity_text(order.filled),
        "status": order.status,
        "keptPriority": kept_priority,
        "previousPrice": book.price_text(old[0]),
        "previousQuantity": book.quantity_text(old[2]),
    }
    if shown[0] != order.open:
        data["shownQuantity"] = book.quantity_text(shown[0])
    if shown[1] != old[2] - order.filled:
        data["previousShownQuantity"] = book.quantity_text(shown[1])
    if order.waiting:
        data["stopPrice"] = book.price_text(order.stop_price)
        data["previousStopPrice"] = book.price_text(old[1])
    return event(book, "AMEND", command, data)


def reject(book: NaiveBook, command: Command, code: str) -> Event:
    """A command changed nothing."""
    data: dict[str, Any] = {"userId": command["userId"], "command": command.get("command") or "NEW", "code": code}
    if data["command"] in ("CANCEL", "AMEND"):
        data["id"] = command["orderId"].lower()
    if data["command"] in ("NEW", "REPLACE"):
        data |= _as_sent(command)
    return event(book, "REJECT", command, data)


def _as_sent(command: Command) -> Data:
    def text(name: str) -> str | None:
        return None if command.get(name) is None else str(command[name])

    data: Data = {
        "id": command["id"].lower(),
        "type": command["type"],
        "side": command["side"],
        "price": text("price"),
        "quantity": text("quantity"),
        "timeInForce": command.get("timeInForce", "GTC"),
    }
    optional = {
        "clientOrderId": command.get("clientOrderId"),
        "quoteQuantity": text("quoteQuantity"),
        "stopPrice": text("stopPrice"),
        "expiresAt": command.get("expiresAt"),
        "postOnly": command.get("postOnly") or None,
        "displayQuantity": text("displayQuantity"),
        "selfTradePrevention": _unless_default(command.get("selfTradePrevention", "EXPIRE_TAKER")),
        "replaces": command["orderId"].lower() if command.get("command") == "REPLACE" else None,
    }
    return data | {name: value for name, value in optional.items() if value is not None}


def _unless_default(mode: str) -> str | None:
    return None if mode == "EXPIRE_TAKER" else mode
