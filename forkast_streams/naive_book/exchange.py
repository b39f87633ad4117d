"""The exchange: commands in, events out."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import groupby

from forkast_streams.naive_book.answers import accept, amended, cancelled, event, reject, shown, traded
from forkast_streams.naive_book.book import WIDE, Command, Event, NaiveBook, NaiveOrder, plain
from forkast_streams.naive_book.refusals import accepts, opposite, why_not_amend, why_not_new

_OPTIONAL_RULES = ("minQuantity", "maxQuantity", "minNotional", "priceCollar", "maxOpenOrders")
# Price levels that a fill-or-kill order may need, and resting orders, if an own order may be among them.
_FOK_LEVELS_MAX = 1_000
_FOK_ORDERS_MAX = 1_000


class NaiveExchange:
    """The books of the symbols of one partition, and every order id that was ever used there."""

    def __init__(self) -> None:
        self.books: dict[int, NaiveBook] = {}
        self.used_ids: set[str] = set()
        self._arrivals = 0

    def process(self, command: Command, timestamp: int) -> list[Event]:
        """Apply a command and return its events as ``(type, data)``.

        ``data`` has the fields of docs/wire.md, except that a REJECT has no ``message``: the code is the answer, its
        wording is not checked. A command for a symbol that was never defined has no event: it is dead-lettered.

        Args:
            command: a valid command as `read_command` gives it: numbers are int, Decimal or decimal text, never float.
            timestamp: the exchange's time in milliseconds.
        """
        kind = command.get("command")
        book = self.books.get(command["symbolId"])
        if book is None:
            return self._define_symbol(command) if kind == "SYMBOL" else []
        book.now = timestamp
        events = _expire(book)
        if kind == "SYMBOL":
            events += self._define_symbol(command)
        elif kind in (None, "REPLACE"):
            events += self._new_order(book, command)
        elif kind == "AMEND":
            events += _amend(book, command)
        elif kind == "CANCEL":
            events += _cancel(book, command)
        elif kind != "HEARTBEAT":
            events += _change_all(book, command)
        return events

    def _define_symbol(self, command: Command) -> list[Event]:
        tick_size, lot_size = Decimal(command["tickSize"]), Decimal(command["lotSize"])
        name, status = command["symbol"], command["status"]
        book = self.books.get(command["symbolId"])
        if book is None:
            book = self.books[command["symbolId"]] = NaiveBook(
                command["symbolId"], name, tick_size, lot_size, status, {}
            )
        if command.get("keepStatus"):
            status = book.status
        if (tick_size, lot_size) != (book.tick_size, book.lot_size):
            if book.orders:
                return [event(book, "REJECT", command, {"command": "SYMBOL", "symbol": name, "code": "SYMBOL_IN_USE"})]
            book.last_price = None
        book.name, book.tick_size, book.lot_size, book.status = name, tick_size, lot_size, status
        sent = {rule: command.get(rule) for rule in _OPTIONAL_RULES}
        book.rules = {rule: Decimal(value) for rule, value in sent.items() if value is not None}
        data = {"symbol": name, "tickSize": plain(tick_size), "lotSize": plain(lot_size), "status": status}
        data |= {rule: plain(value) for rule, value in book.rules.items()}
        if "maxOpenOrders" in data:
            data["maxOpenOrders"] = int(data["maxOpenOrders"])
        return [event(book, "SYMBOL", command, data)]

    def _new_order(self, book: NaiveBook, command: Command) -> list[Event]:
        code = why_not_new(book, command, self.used_ids)
        self.used_ids.add(command["id"].lower())
        if code is not None:
            return [reject(book, command, code)]
        self._arrivals += 1
        order = _order(command, self._arrivals)
        events = []
        if command.get("command") == "REPLACE":
            replaced = book.find(command["orderId"], command["userId"])
            assert replaced is not None, "it was checked"
            events.append(_take_out(book, replaced, "REPLACED", command))
        events.append(accept(book, order, command))
        if order.stop_price is not None:
            book.wait(order)
            return events + _run_stops(book, [])
        amount = command.get("quoteQuantity")
        if amount is not None:
            events += _enter_amount(book, order, Decimal(amount), command)
        else:
            is_counted = order.price is not None and order.display_quantity is None
            events += _enter(book, order, command, is_counted=is_counted)
        return events + _run_stops(book, events)


def read_command(value: bytes) -> Command:
    """Read the value of an ``orders.new`` record, its numbers exactly as they stand there.

    Raises:
        ValueError: it is not JSON. Whether it is a valid command is not checked.
    """
    command: Command = json.loads(value, parse_float=Decimal)
    return command


def _order(command: Command, arrived: int) -> NaiveOrder:
    def number(name: str) -> Decimal | None:
        return None if command.get(name) is None else Decimal(command[name])

    display = number("displayQuantity")
    return NaiveOrder(
        id=command["id"].lower(),
        user_id=command["userId"],
        side=command["side"],
        type=command["type"],
        price=number("price"),
        quantity=number("quantity") or Decimal(0),
        time_in_force=command.get("timeInForce", "GTC"),
        self_trade_prevention=command.get("selfTradePrevention", "EXPIRE_TAKER"),
        stop_price=number("stopPrice"),
        display_quantity=display,
        expires_at=command.get("expiresAt"),
        post_only=bool(command.get("postOnly")),
        arrived=arrived,
    )


def _enter(book: NaiveBook, order: NaiveOrder, command: Command, *, is_counted: bool) -> list[Event]:
    """Let an order that stands nowhere trade, and then rest or end."""
    worst = _worst_price(book, order)
    if order.time_in_force == "FOK" and not _can_fill(book, order, worst):
        return [_ended(book, order, "FOK", command, is_counted=is_counted)]
    events, is_stopped = _trade(book, order, worst, is_counted=is_counted)
    if is_stopped:
        events.append(_ended(book, order, "SELF_TRADE", command, is_counted=is_counted))
    elif order.open and order.price is None:
        events.append(_ended(book, order, _why_left(book, order, worst), command, is_counted=is_counted))
    elif order.open and order.time_in_force == "IOC":
        events.append(_ended(book, order, "IOC", command, is_counted=is_counted))
    elif order.open:
        book.hide(order)
        book.rest(order)
        if not is_counted:
            events.append(shown(book, order, is_refill=False))
    return events


def _enter_amount(book: NaiveBook, order: NaiveOrder, amount: Decimal, command: Command) -> list[Event]:
    worst = _worst_price(book, order)
    events, is_stopped = _trade(book, order, worst, is_counted=False, amount=amount)
    if not order.filled or order.open:
        spent = Decimal(0)
        for kind, data in events:
            if kind == "TRADE":
                spent = WIDE.add(spent, WIDE.multiply(Decimal(data["price"]), Decimal(data["quantity"])))
        reason = "SELF_TRADE" if is_stopped else _why_left(book, order, worst)
        events.append(_ended(book, order, reason, command, is_counted=False, amount=WIDE.subtract(amount, spent)))
    return events


def _trade(
    book: NaiveBook, taker: NaiveOrder, worst: Decimal | None, *, is_counted: bool, amount: Decimal | None = None
) -> tuple[list[Event], bool]:
    """Trade with the first order of the other side, at its price, for as long as there is one the taker accepts.

    Returns the events, and whether an order of the taker's own user stopped it.
    """
    makers = opposite(book, taker.side)
    events: list[Event] = []
    mode = taker.self_trade_prevention
    while makers and accepts(taker.side, worst, makers[0].price):
        maker = makers[0]
        assert maker.price is not None, "a resting order has a price"
        if amount is not None and (taker.open or not taker.filled):
            affordable = book.lots_for(amount, maker.price, taker.filled)
            if not affordable:
                break
            taker.quantity = taker.filled + affordable
        if not taker.open:
            break
        if maker.user_id == taker.user_id and mode != "NONE":
            if mode in ("EXPIRE_MAKER", "EXPIRE_BOTH"):
                events.append(_take_out(book, maker, "SELF_TRADE", {}))
            if mode in ("EXPIRE_TAKER", "EXPIRE_BOTH"):
                return events, True
            continue
        quantity = min(taker.open, maker.shown)
        taker.filled += quantity
        maker.filled += quantity
        if amount is not None:
            amount = WIDE.subtract(amount, WIDE.multiply(quantity, maker.price))
        book.last_price = maker.price
        events.append(traded(book, taker, maker, quantity, is_counted=is_counted))
        if maker.open == 0:
            makers.pop(0)
        elif maker.shown == 0:
            makers.pop(0)
            book.hide(maker)
            book.rest(maker)
            events.append(shown(book, maker, is_refill=True))
    return events, False


def _run_stops(book: NaiveBook, step: list[Event]) -> list[Event]:
    """Let triggered orders come in, one after the other, with those that ``step`` triggers and those that they do."""
    events: list[Event] = []
    while True:
        for kind, data in step:
            if kind == "TRADE":
                for order in book.triggered_by(Decimal(data["price"])):
                    book.trigger(order)
        if not book.triggered:
            return events
        order = book.triggered.pop(0)
        data = {
            "id": order.id,
            "userId": order.user_id,
            "side": order.side,
            "type": order.type,
            "price": book.price_text(order.price),
            "stopPrice": book.price_text(order.stop_price),
            "quantity": book.quantity_text(order.open),
            "lastPrice": book.price_text(book.last_price),
        }
        events.append(event(book, "TRIGGER", {}, data))
        order.waiting = False
        makers = opposite(book, order.side)
        if order.post_only and makers and accepts(order.side, order.price, makers[0].price):
            step = [_ended(book, order, "POST_ONLY", {}, is_counted=False)]
        else:
            step = _enter(book, order, {}, is_counted=False)
        events += step


def _worst_price(book: NaiveBook, order: NaiveOrder) -> Decimal | None:
    if order.price is not None:
        return order.price
    collar = book.collar()
    if collar is None:
        return None
    return collar[1] if order.side == "BUY" else collar[0]


def _why_left(book: NaiveBook, order: NaiveOrder, worst: Decimal | None) -> str:
    makers = opposite(book, order.side)
    return "COLLAR" if makers and not accepts(order.side, worst, makers[0].price) else "MARKET"


def _can_fill(book: NaiveBook, order: NaiveOrder, worst: Decimal | None) -> bool:
    makers = [maker for maker in opposite(book, order.side) if accepts(order.side, worst, maker.price)]
    levels = [list(level) for _, level in groupby(makers, lambda maker: maker.price)][:_FOK_LEVELS_MAX]
    if order.self_trade_prevention == "NONE" or not any(one.user_id == order.user_id for one in book.orders):
        return sum(maker.open for level in levels for maker in level) >= order.open
    # An own order may be among them: what can be traded is counted in the order in which it would be, that which
    # icebergs do not show behind all that their level shows.
    found, looked_at = Decimal(0), 0
    for level in levels:
        for maker in level:
            looked_at += 1
            is_own = maker.user_id == order.user_id
            if looked_at > _FOK_ORDERS_MAX or (is_own and order.self_trade_prevention != "EXPIRE_MAKER"):
                return False
            found += 0 if is_own else maker.shown
            if found >= order.open:
                return True
        found += sum(maker.hidden for maker in level if maker.user_id != order.user_id)
        if found >= order.open:
            return True
    return False


def _cancel(book: NaiveBook, command: Command) -> list[Event]:
    order = book.find(command["orderId"], command["userId"])
    if order is None:
        return [reject(book, command, "UNKNOWN_ORDER")]
    if book.status == "HALTED":
        return [reject(book, command, "SYMBOL_HALTED")]
    return [_take_out(book, order, "USER", command)]


def _change_all(book: NaiveBook, command: Command) -> list[Event]:
    """CANCEL_ALL and CANCEL_AFTER."""
    user_id = command["userId"]
    if command["command"] == "CANCEL_ALL":
        if book.status == "HALTED":
            return [reject(book, command, "SYMBOL_HALTED")]
        events = _cancel_all(book, user_id, "CANCEL_ALL", command)
        return [*events, event(book, "CANCEL_ALL", command, {"userId": user_id, "count": len(events)})]
    deadline = book.now + command["timeout"] if command["timeout"] else None
    book.deadlines.pop(user_id, None)
    if deadline is not None:
        book.deadlines[user_id] = deadline
    return [event(book, "CANCEL_AFTER", command, {"userId": user_id, "deadline": deadline})]


def _cancel_all(book: NaiveBook, user_id: int, reason: str, command: Command) -> list[Event]:
    own = [order for order in book.orders if order.user_id == user_id]
    own.sort(key=lambda order: order.arrived)
    return [_take_out(book, order, reason, command) for order in own]


def _expire(book: NaiveBook) -> list[Event]:
    now = book.now
    due = [order for order in book.orders if order.expires_at is not None and order.expires_at <= now]
    due.sort(key=lambda order: (order.expires_at, order.arrived))
    events = [_take_out(book, order, "EXPIRED", {}) for order in due]
    for deadline, user_id in sorted((deadline, user_id) for user_id, deadline in book.deadlines.items()):
        if deadline <= now and book.status != "HALTED":
            del book.deadlines[user_id]
            events += _cancel_all(book, user_id, "CANCEL_AFTER", {})
    return events


def _amend(book: NaiveBook, command: Command) -> list[Event]:
    order = book.find(command["orderId"], command["userId"])
    code = why_not_amend(book, command, order)
    if code is not None or order is None:
        return [reject(book, command, code or "UNKNOWN_ORDER")]
    old = (order.price, order.stop_price, order.quantity)
    new = [
        before if command.get(name) is None else Decimal(command[name])
        for name, before in zip(("price", "stopPrice", "quantity"), old, strict=True)
    ]
    price, stop_price, quantity = new
    assert quantity is not None, "every order in the book has a quantity"
    if quantity <= order.filled:
        return [_take_out(book, order, "AMEND", command)]
    keeps_place = (price, stop_price) == old[:2] and quantity <= order.quantity
    shown_before = order.shown
    if not keeps_place:
        book.remove(order)
    order.price, order.stop_price, order.quantity = price, stop_price, quantity
    if order.waiting:
        shown = Decimal(0)
    elif keeps_place:
        order.hidden = max(Decimal(0), order.open - shown_before)
        shown = order.shown
    else:
        order.hidden = Decimal(0)
        shown = order.open if order.display_quantity is None else Decimal(0)
    events = [amended(book, order, command, keeps_place, old, (shown, shown_before))]
    if keeps_place:
        return events
    if order.waiting:
        book.wait(order)
        return events + _run_stops(book, [])
    events += _enter(book, order, command, is_counted=order.display_quantity is None)
    return events + _run_stops(book, events)


def _take_out(book: NaiveBook, order: NaiveOrder, reason: str, command: Command) -> Event:
    """End an open order."""
    shown = order.shown
    book.remove(order)
    return cancelled(book, order, reason, command, shown)


def _ended(
    book: NaiveBook,
    order: NaiveOrder,
    reason: str,
    command: Command,
    *,
    is_counted: bool,
    amount: Decimal | None = None,
) -> Event:
    """End an order that stands nowhere."""
    return cancelled(book, order, reason, command, order.open if is_counted else Decimal(0), amount)
