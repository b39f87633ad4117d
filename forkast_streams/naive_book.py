"""The slow, obvious exchange that the engine is checked against: one list of orders a side, walked from the front.

It shares no code with ``forkast_streams.engine``, so that a mistake has to be made twice to go unseen. Prices and
quantities are plain decimals; nothing is indexed and nothing is cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

Command = Mapping[str, Any]
Data = dict[str, Any]
Event = tuple[str, Data]

_LARGEST = Decimal(1_000_000_000)


@dataclass(slots=True, eq=False)
class NaiveOrder:
    """An order; ``price`` is None for a market order, ``quantity`` is the total with what is filled."""

    id: str
    user_id: int
    side: str
    price: Decimal | None
    quantity: Decimal
    filled: Decimal = Decimal(0)

    @property
    def open(self) -> Decimal:
        """What is not filled."""
        return self.quantity - self.filled

    @property
    def status(self) -> str:
        """PENDING, PARTIALLY_FILLED or FILLED, by what is filled."""
        if self.filled == 0:
            return "PENDING"
        return "FILLED" if self.open == 0 else "PARTIALLY_FILLED"

    def accepts(self, price: Decimal) -> bool:
        """Whether the order may trade at ``price``."""
        if self.price is None:
            return True
        return price <= self.price if self.side == "BUY" else price >= self.price


@dataclass(slots=True)
class NaiveBook:
    """A symbol: its rules, the last sequence it gave out, and the resting orders of each side, next to trade first."""

    id: int
    name: str
    tick_size: Decimal
    lot_size: Decimal
    status: str
    sequence: int = 0
    sides: dict[str, list[NaiveOrder]] = field(default_factory=lambda: {"BUY": [], "SELL": []})

    def find(self, order_id: str) -> NaiveOrder | None:
        """The resting order with this id."""
        return next((order for side in self.sides.values() for order in side if order.id == order_id), None)

    def rest(self, order: NaiveOrder) -> None:
        """Put ``order`` behind every order whose price is as good or better."""
        side = self.sides[order.side]
        place = next((place for place, other in enumerate(side) if _is_better(order, other)), len(side))
        side.insert(place, order)

    def price_text(self, price: Decimal | None) -> str | None:
        """The price with the tick size's decimals."""
        return None if price is None else _text(price, self.tick_size)

    def quantity_text(self, quantity: Decimal) -> str:
        """The quantity with the lot size's decimals."""
        return _text(quantity, self.lot_size)


class NaiveExchange:
    """The books of the symbols of one partition, and every order id that was ever used there."""

    def __init__(self) -> None:
        self.books: dict[int, NaiveBook] = {}
        self.used_ids: set[str] = set()

    def process(self, command: Command, timestamp: int) -> list[Event]:
        """Apply a command and return its events as ``(type, data)``.

        ``data`` has the fields of docs/wire.md, except that a REJECT has no ``message``: the code is the answer, its
        wording is not checked. A command for a symbol that was never defined has no event: it is dead-lettered.

        Args:
            command: a valid command as `read_command` gives it: numbers are int, Decimal or decimal text, never float.
            timestamp: the exchange's time in milliseconds.
        """
        kind = command.get("command")
        if kind == "SYMBOL":
            return self._define_symbol(command)
        book = self.books.get(command["symbolId"])
        if book is None:
            return []
        if kind is None:
            events = self._new_order(book, command, timestamp)
        elif kind == "CANCEL":
            events = _cancel(book, command)
        else:
            events = _amend(book, command, timestamp)
        return events

    def _define_symbol(self, command: Command) -> list[Event]:
        tick_size, lot_size = Decimal(command["tickSize"]), Decimal(command["lotSize"])
        name, status = command["symbol"], command["status"]
        book = self.books.get(command["symbolId"])
        if book is None:
            book = NaiveBook(command["symbolId"], name, tick_size, lot_size, status)
            self.books[book.id] = book
        is_same_grid = (tick_size, lot_size) == (book.tick_size, book.lot_size)
        if not is_same_grid and any(book.sides.values()):
            return [_event(book, "REJECT", command, {"command": "SYMBOL", "symbol": name, "code": "SYMBOL_IN_USE"})]
        book.name, book.tick_size, book.lot_size, book.status = name, tick_size, lot_size, status
        data = {"symbol": name, "tickSize": _plain(tick_size), "lotSize": _plain(lot_size), "status": status}
        return [_event(book, "SYMBOL", command, data)]

    def _new_order(self, book: NaiveBook, command: Command, timestamp: int) -> list[Event]:
        order_id = command["id"].lower()
        code = "DUPLICATE_ORDER" if order_id in self.used_ids else _why_not_new(book, command)
        self.used_ids.add(order_id)
        if code is not None:
            return [_reject_new(book, command, code)]
        price = None if command.get("price") is None else Decimal(command["price"])
        order = NaiveOrder(order_id, command["userId"], command["side"], price, Decimal(command["quantity"]))
        events = [_accept(book, order, command, timestamp)]
        events += _trade(book, order, timestamp)
        if order.open and command["type"] == "MARKET":
            events.append(_cancelled(book, order, "MARKET", command))
        elif order.open and command.get("timeInForce") == "IOC":
            events.append(_cancelled(book, order, "IOC", command))
        elif order.open:
            book.rest(order)
        return events


def read_command(value: bytes) -> Command:
    """Read the value of an ``orders.new`` record, its numbers exactly as they stand there.

    Raises:
        ValueError: it is not JSON. Whether it is a valid command is not checked.
    """
    command: Command = json.loads(value, parse_float=Decimal)
    return command


def _why_not_new(book: NaiveBook, command: Command) -> str | None:
    has_price = command.get("price") is not None
    if book.status == "HALTED":
        return "SYMBOL_HALTED"
    if command["type"] == "LIMIT" and not has_price:
        return "PRICE_REQUIRED"
    if command["type"] == "MARKET" and has_price:
        return "PRICE_NOT_ALLOWED"
    return _why_not_numbers(book, command)


def _why_not_numbers(book: NaiveBook, command: Command) -> str | None:
    price, quantity = command.get("price"), command.get("quantity")
    if price is not None and not 0 < Decimal(price) <= _LARGEST:
        return "INVALID_PRICE"
    if price is not None and Decimal(price) % book.tick_size != 0:
        return "INVALID_TICK"
    if quantity is not None and not 0 < Decimal(quantity) <= _LARGEST:
        return "INVALID_QUANTITY"
    if quantity is not None and Decimal(quantity) % book.lot_size != 0:
        return "INVALID_LOT"
    return None


def _trade(book: NaiveBook, taker: NaiveOrder, timestamp: int) -> list[Event]:
    """Trade with the first order of the other side, at its price, for as long as there is one the taker accepts."""
    makers = book.sides["SELL" if taker.side == "BUY" else "BUY"]
    events = []
    while taker.open and makers and makers[0].price is not None and taker.accepts(makers[0].price):
        maker = makers[0]
        quantity = min(taker.open, maker.open)
        taker.filled += quantity
        maker.filled += quantity
        if maker.open == 0:
            makers.pop(0)
        events.append(_traded(book, taker, maker, quantity, timestamp))
    return events


def _cancel(book: NaiveBook, command: Command) -> list[Event]:
    order = book.find(command["orderId"].lower())
    if order is None or order.user_id != command["userId"]:
        return [_reject(book, command, "UNKNOWN_ORDER")]
    book.sides[order.side].remove(order)
    return [_cancelled(book, order, "USER", command)]


def _amend(book: NaiveBook, command: Command, timestamp: int) -> list[Event]:
    order = book.find(command["orderId"].lower())
    if order is None or order.user_id != command["userId"]:
        return [_reject(book, command, "UNKNOWN_ORDER")]
    code = "SYMBOL_HALTED" if book.status == "HALTED" else _why_not_numbers(book, command)
    if code is not None:
        return [_reject(book, command, code)]
    old_price, old_quantity = order.price, order.quantity
    price = old_price if command.get("price") is None else Decimal(command["price"])
    quantity = old_quantity if command.get("quantity") is None else Decimal(command["quantity"])
    if quantity <= order.filled:
        book.sides[order.side].remove(order)
        return [_cancelled(book, order, "AMEND", command)]
    keeps_place = price == old_price and quantity <= old_quantity
    order.price, order.quantity = price, quantity
    events = [_amended(book, order, command, keeps_place, old_price, old_quantity)]
    if not keeps_place:
        book.sides[order.side].remove(order)
        events += _trade(book, order, timestamp)
        if order.open:
            book.rest(order)
    return events


def _event(book: NaiveBook, kind: str, command: Command, data: Data) -> Event:
    """Count the event and give it the command's own id, if it has one."""
    book.sequence += 1
    if command.get("commandId") is not None:
        data["commandId"] = command["commandId"]
    return kind, data


def _accept(book: NaiveBook, order: NaiveOrder, command: Command, timestamp: int) -> Event:
    data = {
        "id": order.id,
        "userId": order.user_id,
        "symbolId": book.id,
        "type": command["type"],
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": book.quantity_text(order.quantity),
        "filledQuantity": "0",
        "status": "PENDING",
        "timeInForce": command.get("timeInForce", "GTC"),
        "createdAt": timestamp,
    }
    if command.get("clientOrderId") is not None:
        data["clientOrderId"] = command["clientOrderId"]
    return _event(book, "ORDER", command, data)


def _traded(book: NaiveBook, taker: NaiveOrder, maker: NaiveOrder, quantity: Decimal, timestamp: int) -> Event:
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
        "timestamp": timestamp,
        "takerSide": taker.side,
        "takerPrice": book.price_text(taker.price),
        "buyFilledQuantity": book.quantity_text(buy.filled),
        "buyStatus": buy.status,
        "sellFilledQuantity": book.quantity_text(sell.filled),
        "sellStatus": sell.status,
    }


def _cancelled(book: NaiveBook, order: NaiveOrder, reason: str, command: Command) -> Event:
    data = {
        "id": order.id,
        "userId": order.user_id,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": book.quantity_text(order.open),
        "filledQuantity": book.quantity_text(order.filled),
        "status": "CANCELLED",
        "reason": reason,
    }
    return _event(book, "CANCEL", command, data)


def _amended(
    book: NaiveBook,
    order: NaiveOrder,
    command: Command,
    kept_priority: bool,
    previous_price: Decimal | None,
    previous_quantity: Decimal,
) -> Event:
    data = {
        "id": order.id,
        "userId": order.user_id,
        "side": order.side,
        "price": book.price_text(order.price),
        "quantity": book.quantity_text(order.quantity),
        "filledQuantity": book.quantity_text(order.filled),
        "status": order.status,
        "keptPriority": kept_priority,
        "previousPrice": book.price_text(previous_price),
        "previousQuantity": book.quantity_text(previous_quantity),
    }
    return _event(book, "AMEND", command, data)


def _reject(book: NaiveBook, command: Command, code: str) -> Event:
    data = {
        "id": command["orderId"].lower(),
        "userId": command["userId"],
        "command": command["command"],
        "code": code,
    }
    return _event(book, "REJECT", command, data)


def _reject_new(book: NaiveBook, command: Command, code: str) -> Event:
    price = command.get("price")
    data = {
        "id": command["id"].lower(),
        "userId": command["userId"],
        "command": "NEW",
        "type": command["type"],
        "side": command["side"],
        "price": None if price is None else str(price),
        "quantity": str(command["quantity"]),
        "timeInForce": command.get("timeInForce", "GTC"),
        "code": code,
    }
    if command.get("clientOrderId") is not None:
        data["clientOrderId"] = command["clientOrderId"]
    return _event(book, "REJECT", command, data)


def _is_better(order: NaiveOrder, other: NaiveOrder) -> bool:
    """Whether ``order`` trades before ``other``, which came earlier: only a better price does that."""
    assert order.price is not None, "a market order never rests"
    assert other.price is not None, "a market order never rests"
    return order.price > other.price if order.side == "BUY" else order.price < other.price


def _text(value: Decimal, step: Decimal) -> str:
    """``value`` with as many decimals as ``step`` needs."""
    _, _, decimals = _plain(step).partition(".")
    return f"{value:.{len(decimals)}f}"


def _plain(step: Decimal) -> str:
    """``step`` without an exponent and without trailing zeros."""
    return f"{step.normalize():f}"
