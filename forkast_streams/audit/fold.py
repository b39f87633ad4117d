"""Folds the events of one symbol and checks at each of them what must hold, from the events alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from forkast_streams.audit.queues import ZERO, LiveOrder, QueueSide
from forkast_streams.audit.rows import REJECTED_WITH_ROW, OrderRow, RowKeeper, Rows

Data = dict[str, Any]
Violate = Callable[[str, str], None]
Levels = list[tuple[Decimal, Decimal, int]]

_OTHER = {"BUY": "SELL", "SELL": "BUY"}
_ENDED_EARLY = ("CANCELLED", "EXPIRED")
_EXPIRING_REASONS = ("EXPIRED", "SELF_TRADE")


class SymbolFold:
    """Live orders, queues and rows of one symbol.

    Args:
        symbol_id: the symbol.
        violate: called with an invariant and a sentence.
        later_columns: see `RowKeeper`.

    Attributes:
        live: orders that have not ended, by id.
        sequence: of the last event.
        visible_sequence: of the last event that may have changed the published book.
        at_rest: whether the last event was the last of its command.
    """

    def __init__(self, symbol_id: int, violate: Violate, later_columns: Sequence[str] = ()) -> None:
        self.id = symbol_id
        self._violate = violate
        self.live: dict[str, LiveOrder] = {}
        self.sides = {"BUY": QueueSide(is_bid=True), "SELL": QueueSide(is_bid=False)}
        self.rows = RowKeeper(symbol_id, later_columns)
        self.sequence = 0
        self.timestamp = 0
        self.visible_sequence = 0
        self.at_rest = True
        self.events = 0
        self.trades = 0
        self.commands = 0
        self._tick = self._lot = Decimal(1)
        # The last trade's price, and the highest and lowest since before the command.
        self._last_price: Decimal | None = None
        self._highest: Decimal | None = None
        self._lowest: Decimal | None = None
        self._active: list[LiveOrder] = []
        self._numbers: dict[str, Decimal] = {}
        self._handlers: dict[str, Callable[[Data], None]] = {
            "ORDER": self._order, "TRADE": self._trade, "TRIGGER": self._trigger, "SHOW": self._show,
            "CANCEL": self._cancel, "AMEND": self._amend, "REJECT": self._reject, "SYMBOL": self._define,
            "CANCEL_ALL": self._nothing, "CANCEL_AFTER": self._nothing,
        }  # fmt: skip

    def apply(self, kind: str, data: Data, sequence: int, timestamp: int, *, is_last: bool) -> None:
        """Take the next event; ``is_last`` says that it is the last one of its command.

        Raises:
            KeyError, TypeError, ValueError, ArithmeticError: the event lacks a field or has an odd one.
        """
        self.sequence = sequence
        self.timestamp = timestamp
        self.events += 1
        handler = self._handlers.get(kind)
        if handler is None:
            self._violate("I-2", f"no command has an event of type {kind}.")
        else:
            handler(data)
            if kind not in ("REJECT", "CANCEL_AFTER", "CANCEL_ALL"):
                self.visible_sequence = sequence
        self.at_rest = is_last
        if is_last:
            self._check_at_rest()

    def levels(self, side: str) -> Levels:
        """Price, quantity and number of orders of each level, best first."""
        queue = self.sides[side]
        prices = reversed(queue.prices) if queue.is_bid else queue.prices
        return [(price, queue.levels[price].quantity, len(queue.levels[price].orders)) for price in prices]

    def table_rows(self) -> Rows:
        """The sums of the rows that the tables must have now."""
        return self.rows.sums(list(self.live.values()), self.sequence)

    def _order(self, data: Data) -> None:
        price, quantity = self._price(data["price"]), self._quantity(data["quantity"])
        order = LiveOrder(data, price, quantity)
        order.row = OrderRow(data, self.sequence, self.timestamp)
        if order.id in self.live:
            self._violate("I-19", f"order {order.id} was accepted again while it is live.")
            self.sides[self.live[order.id].side].remove(self.live[order.id])
        if data["filledQuantity"] != "0" or data["status"] != "PENDING":
            self._violate("I-6", f"order {order.id} is new and not without fills.")
        self.live[order.id] = order
        self._active.append(order)
        if price is not None and not order.is_waiting and data.get("displayQuantity") is None:
            self.sides[order.side].push(order, quantity or ZERO)

    def _trade(self, data: Data) -> None:
        self.trades += 1
        self.rows.traded(data, self.sequence)
        taker_side = data["takerSide"]
        buyer, seller = self._find(data["buyOrderId"]), self._find(data["sellOrderId"])
        price, quantity = self._price(data["price"]), self._quantity(data["quantity"]) or ZERO
        self._last_price = price
        if price is not None:
            self._highest = price if self._highest is None else max(self._highest, price)
            self._lowest = price if self._lowest is None else min(self._lowest, price)
        if buyer is None or seller is None:
            for order, side in ((buyer, "buy"), (seller, "sell")):
                if order is not None:
                    self._fill(order, side, data, quantity)
            return
        taker, maker = (buyer, seller) if taker_side == "BUY" else (seller, buyer)
        self._check_price(data, taker, maker, price)
        self._check_priority(maker)
        if maker.shown < quantity:
            self._violate("I-6", f"maker {maker.id} showed {maker.shown} and traded {quantity}.")
        self._fill(buyer, "buy", data, quantity)
        self._fill(seller, "sell", data, quantity)

    def _check_price(self, data: Data, taker: LiveOrder, maker: LiveOrder, price: Decimal | None) -> None:
        if taker.side != data["takerSide"] or maker.side != _OTHER[taker.side] or taker is maker:
            self._violate("I-7", f"{taker.id} and {maker.id} are not on the sides that the trade says.")
        if taker not in self._active:
            self._violate("I-7", f"taker {taker.id} did not come, change or trigger in this command.")
        if price != maker.price or price is None:
            self._violate("I-7", f"the trade's price {price} is not that of its maker, {maker.price}.")
        elif taker.price is not None and (price > taker.price if taker.side == "BUY" else price < taker.price):
            self._violate("I-7", f"the trade's price {price} is beyond the taker's limit {taker.price}.")
        taker_price = data["takerPrice"]
        if taker_price is not None and self._number(taker_price) != taker.price:
            self._violate("I-7", f"takerPrice is {taker_price}, the taker's limit {taker.price}.")
        if (taker_price is not None) != taker.is_queued:
            self._violate("I-12", "takerPrice must be there just when the taker's quantity is in its level.")
        if taker.user_id == maker.user_id and taker.prevention != "NONE":
            self._violate("I-7", f"user {taker.user_id} traded with itself.")

    def _check_priority(self, maker: LiveOrder) -> None:
        first = self.sides[maker.side].first()
        if first is not maker:
            shown = "none" if first is None else f"{first.id} at {first.price}"
            self._violate("I-8", f"maker {maker.id} at {maker.price} traded, the first in the queue was {shown}.")

    def _fill(self, order: LiveOrder, side: str, data: Data, quantity: Decimal) -> None:
        """Count a fill of ``order``, which the trade names as its ``side``."""
        order.filled += quantity
        self._check_user(order, data[f"{side}UserId"])
        if self._number(data[f"{side}FilledQuantity"]) != order.filled:
            self._violate("I-6", f"order {order.id} has {order.filled} filled, the trade says otherwise.")
        status, left = data[f"{side}Status"], order.open
        if left is not None and (left < 0 or (status == "FILLED") != (left == 0)):
            self._violate("I-6", f"order {order.id} has {left} open and is {status}.")
        self.sides[order.side].reduce(order, quantity)
        row: OrderRow = order.row
        row.executed_at = self.timestamp
        self._touch(order, status)
        if status == "FILLED":
            self._end(order)

    def _trigger(self, data: Data) -> None:
        order = self._find(data["id"])
        if order is None:
            return
        self._check_user(order, data["userId"])
        stop, last = self._number(data["stopPrice"]), self._number(data["lastPrice"])
        # Any trade of the command may be the one that triggers it; more may have followed before its turn came.
        reached = self._highest if order.side == "BUY" else self._lowest
        is_due = reached is not None and (reached >= stop if order.side == "BUY" else reached <= stop)
        if not order.is_waiting or not is_due or last != self._last_price:
            self._violate("I-8", f"stop {order.id} was triggered at {last}, the last trade was at {self._last_price}.")
        if data["quantity"] is not None and self._number(data["quantity"]) != order.open:
            self._violate("I-6", f"stop {order.id} has {order.open} open, its TRIGGER says {data['quantity']}.")
        order.is_waiting = False
        order.row.triggered_at = self.timestamp
        self._touch(order, "PENDING")
        self._active.append(order)

    def _show(self, data: Data) -> None:
        order = self._find(data["id"])
        if order is None:
            return
        self._check_user(order, data["userId"])
        shown, left = self._number(data["quantity"]), order.open
        if order.is_queued or order.is_waiting or self._number(data["price"]) != order.price:
            self._violate("I-12", f"order {order.id} is shown at {data['price']}, where it is or cannot be already.")
            self.sides[order.side].remove(order)
        if left is not None and not 0 < shown <= left:
            self._violate("I-6", f"order {order.id} shows {shown} of {left}.")
        if order.price is not None:
            self.sides[order.side].push(order, shown)

    def _cancel(self, data: Data) -> None:
        order = self._find(data["id"])
        if order is None:
            return
        self._check_user(order, data["userId"])
        if data["side"] != order.side or self._price(data["price"]) != order.price:
            self._violate("I-6", f"order {order.id} is a {order.side} at {order.price}, its CANCEL says otherwise.")
        if self._quantity(data["quantity"]) != order.open or self._number(data["filledQuantity"]) != order.filled:
            self._violate("I-6", f"order {order.id} has {order.filled} filled and {order.open} open when cancelled.")
        shown = data.get("shownQuantity", data["quantity"])
        if order.price is not None and shown is not None and self._number(shown) != order.shown:
            self._violate("I-12", f"order {order.id} shows {order.shown} when cancelled, its CANCEL says {shown}.")
        status = data["status"]
        if status not in _ENDED_EARLY or (status == "EXPIRED") != (data["reason"] in _EXPIRING_REASONS):
            self._violate("I-10", f"order {order.id} was cancelled and is {status}.")
        if order.time_in_force == "FOK" and order.filled:
            self._violate("I-9", f"order {order.id} is filled at once or not at all, and has {order.filled} filled.")
        self.sides[order.side].remove(order)
        order.row.reason = data["reason"]
        self._touch(order, status)
        self._end(order)

    def _amend(self, data: Data) -> None:
        order = self._find(data["id"])
        if order is None:
            return
        self._check_user(order, data["userId"])
        self._check_amended(order, data)
        price, quantity = self._price(data["price"]), self._quantity(data["quantity"])
        side, keeps = self.sides[order.side], data["keptPriority"]
        left = (quantity or ZERO) - order.filled
        shown = self._number(data["shownQuantity"]) if "shownQuantity" in data else left
        if keeps and order.is_queued and price == order.price and shown <= order.shown:
            side.reduce(order, order.shown - shown)
        else:
            side.remove(order)
        order.price, order.quantity = price, quantity
        if shown and not order.is_queued and not order.is_waiting and price is not None:
            side.push(order, shown)
        order.stop_price = data.get("stopPrice", order.stop_price)
        order.row.quantity = data["quantity"]
        self._touch(order, data["status"])
        self._active.append(order)

    def _check_amended(self, order: LiveOrder, data: Data) -> None:
        """Hold what the event says was before against what was."""
        price, quantity = self._price(data["price"]), self._quantity(data["quantity"])
        before = self._price(data["previousPrice"]), self._quantity(data["previousQuantity"])
        if before != (order.price, order.quantity) or data["side"] != order.side:
            self._violate("I-6", f"order {order.id} was {order.quantity} at {order.price}, its AMEND says otherwise.")
        if self._number(data["filledQuantity"]) != order.filled or (quantity or ZERO) <= order.filled:
            self._violate("I-6", f"order {order.id} has {order.filled} filled, its AMEND makes it {quantity}.")
        shown = data.get("previousShownQuantity")
        if not order.is_waiting and (order.open if shown is None else self._number(shown)) != order.shown:
            self._violate("I-12", f"order {order.id} shows {order.shown} when amended, its AMEND says otherwise.")
        if order.is_waiting or quantity is None or order.quantity is None:
            return
        if data["keptPriority"] and (price != order.price or quantity > order.quantity):
            self._violate("I-8", f"order {order.id} kept its place with a new price or a larger quantity.")

    def _reject(self, data: Data) -> None:
        if data["command"] in REJECTED_WITH_ROW and data["code"] != "DUPLICATE_ORDER" and "side" in data:
            self.rows.rejected(data, self.sequence, self.timestamp)

    def _define(self, data: Data) -> None:
        self._tick, self._lot = Decimal(data["tickSize"]), Decimal(data["lotSize"])
        self._numbers.clear()

    def _nothing(self, data: Data) -> None:
        """The event changes no order."""

    def _check_at_rest(self) -> None:
        """What holds between two commands: a book that is not crossed, and no order in it that may not rest."""
        self.commands += 1
        bid, ask = self.sides["BUY"].best(), self.sides["SELL"].best()
        if bid is not None and ask is not None and bid >= ask:
            self._violate("I-9", f"after the command the best bid is {bid} and the best ask {ask}.")
        for order in self._active:
            if self.live.get(order.id) is not order or order.is_waiting:
                continue
            if order.never_rests:
                self._violate("I-9", f"order {order.id}, {order.type} {order.time_in_force}, is left in the book.")
            elif not order.is_queued:
                self._violate("I-9", f"order {order.id} is live and in no queue after its command.")
        self._active.clear()
        self._highest = self._lowest = self._last_price

    def _find(self, order_id: str) -> LiveOrder | None:
        order = self.live.get(order_id)
        if order is None:
            self._violate("I-10", f"order {order_id} has ended or was never accepted, and has an event.")
        return order

    def _check_user(self, order: LiveOrder, user_id: int) -> None:
        if order.user_id != user_id:
            self._violate("I-17", f"order {order.id} is user {order.user_id}'s, the event names user {user_id}.")

    def _touch(self, order: LiveOrder, status: str) -> None:
        row: OrderRow = order.row
        row.status, row.sequence, row.updated_at = status, self.sequence, self.timestamp
        order.row_hash = None

    def _end(self, order: LiveOrder) -> None:
        self.sides[order.side].remove(order)
        del self.live[order.id]
        self.rows.ended(order)

    def _number(self, text: str) -> Decimal:
        number = self._numbers.get(text)
        if number is None:
            if len(self._numbers) > 100_000:
                self._numbers.clear()
            number = self._numbers[text] = Decimal(text)
        return number

    def _price(self, text: str | None) -> Decimal | None:
        """A price; None is no price."""
        if text is None:
            return None
        price = self._number(text)
        if price <= 0 or price % self._tick:
            self._violate("I-7", f"{text} is not a multiple of the tick size {self._tick} above 0.")
        return price

    def _quantity(self, text: str | None) -> Decimal | None:
        """A quantity; None is that of an order by amount of money."""
        if text is None:
            return None
        quantity = self._number(text)
        if quantity <= 0 or quantity % self._lot:
            self._violate("I-6", f"{text} is not a multiple of the lot size {self._lot} above 0.")
        return quantity
