"""What must be true of any stream of events, whatever the commands were; checked from the events alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from tests.property.depth_rule import DepthReader
from tests.support.exchanges import Resting

Data = dict[str, Any]

_COMMANDS = {"NEW", "CANCEL", "AMEND", "REPLACE", "CANCEL_ALL", "CANCEL_AFTER", "SYMBOL"}


@dataclass(eq=False)
class LiveOrder:
    """An order that is not at its end.

    Attributes:
        data: of its ORDER event.
        amount: what a quote order has to spend or to earn; its quantity is None.
        stop: the price it waits for, None when it waits for none or was triggered.
        display: the most of an iceberg that may be shown.
        shown: what of it stands in its level.
        place: grows with the time at which it got its place in the queue.
    """

    data: Data
    price: Decimal | None
    quantity: Decimal | None
    amount: Decimal | None
    stop: Decimal | None
    display: Decimal | None
    shown: Decimal
    place: int
    filled: Decimal = Decimal(0)
    spent: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        self.id = str(self.data["id"])
        self.side = str(self.data["side"])
        self.user_id = int(self.data["userId"])

    @property
    def open(self) -> Decimal:
        assert self.quantity is not None, "a quote order has no open quantity"
        return self.quantity - self.filled

    def slice(self) -> Decimal:
        """The most of it that may be shown."""
        return self.open if self.display is None else min(self.open, self.display)

    def priority(self) -> tuple[Decimal, int]:
        """Smaller trades first."""
        assert self.price is not None, "a market order rests"
        return (-self.price if self.side == "BUY" else self.price), self.place

    def is_reached(self, price: Decimal) -> bool:
        """Whether a trade at ``price`` triggers it."""
        assert self.stop is not None, "it waits for no price"
        return price >= self.stop if self.side == "BUY" else price <= self.stop


class Invariants:
    """Follows one symbol's events and asserts, at each of them, what must hold."""

    def __init__(self) -> None:
        self.live: dict[str, LiveOrder] = {}
        self.ended: set[str] = set()
        self.sequence = 0
        self.now = 0
        self.place = 0
        self.traded: Counter[str] = Counter()
        self.depth = DepthReader()
        self.rules: Data = {}
        self.last: Decimal | None = None
        self.deadlines: dict[int, int] = {}
        # Of the command in hand: prices that stop orders have seen, cancellations by user and reason, and who is due.
        self.seen_prices: list[Decimal] = []
        self.cancelled: Counter[tuple[int, str]] = Counter()
        self.replaced: set[str] = set()
        self.due: set[int] = set()
        self.must_end: set[str] = set()

    def follow(self, envelopes: list[dict[str, Any]]) -> None:
        """Take the events of one command."""
        # Amounts of money have more digits than Decimal calculates with by default.
        with localcontext(prec=80):
            self._follow(envelopes)

    def _follow(self, envelopes: list[dict[str, Any]]) -> None:
        if envelopes:
            self._begin(envelopes[0]["timestamp"])
        for index, envelope in enumerate(envelopes):
            self.sequence += 1
            assert envelope["sequence"] == self.sequence, "sequences have a gap"
            assert envelope["timestamp"] == self.now, "the events of a command have one time"
            source = envelope["source"]
            assert (source["index"], source["count"]) == (index, len(envelopes))
            data = envelope["data"]
            getattr(self, f"_{envelope['type'].lower()}")(data)
            self.depth.take(envelope["type"], data)
        self._check_orders_at_rest()
        self._check_book_at_rest()

    def resting(self) -> list[Resting]:
        """The bids, then the asks, each in the order in which they must trade."""
        return [
            Resting(order.side, order.price or Decimal(0), order.shown, order.id, order.open - order.shown)
            for side in ("BUY", "SELL")
            for order in sorted(self._queue(side), key=LiveOrder.priority)
        ]

    def waiting(self) -> set[Resting]:
        """The stop orders that were not triggered, at their stop prices."""
        return {
            Resting(order.side, order.stop, order.open, order.id)
            for order in self.live.values()
            if order.stop is not None
        }

    def _begin(self, now: int) -> None:
        assert now >= self.now, "time goes back"
        self.now = now
        self.seen_prices = [] if self.last is None else [self.last]
        self.cancelled.clear()
        self.replaced.clear()
        is_halted = self.rules.get("status") == "HALTED"
        self.due = {user for user, deadline in self.deadlines.items() if deadline <= now and not is_halted}
        for user in self.due:
            del self.deadlines[user]
        self.must_end = {order.id for order in self.live.values() if order.user_id in self.due} if self.due else set()

    def _order(self, data: Data) -> None:
        assert self.rules["status"] == "TRADING", "an order was accepted while the symbol does not trade"
        assert data["id"] not in self.live, "an id is used twice"
        assert data["id"] not in self.ended, "an order came back after its end"
        assert (data["filledQuantity"], data["status"]) == ("0", "PENDING")
        assert (data["quantity"] is None) == ("quoteQuantity" in data), "either a quantity or an amount"
        assert (data["price"] is not None) == (data["type"] in ("LIMIT", "STOP_LIMIT"))
        assert ("stopPrice" in data) == (data["type"] in ("STOP", "STOP_LIMIT"))
        assert data.get("expiresAt", self.now + 1) > self.now, "it has expired already"
        assert data.get("replaces") in {None, *self.replaced}, "what it replaces is still there"
        price, quantity = _number(data["price"]), _number(data["quantity"])
        stop, amount = _number(data.get("stopPrice")), _number(data.get("quoteQuantity"))
        display = _number(data.get("displayQuantity"))
        is_plain = price is not None and stop is None and display is None
        shown = quantity if is_plain and quantity is not None else Decimal(0)
        self.live[data["id"]] = LiveOrder(data, price, quantity, amount, stop, display, shown, self._next_place())

    def _trigger(self, data: Data) -> None:
        order = self._find(data)
        assert order.stop is not None, "it waits for no price"
        assert any(map(order.is_reached, self.seen_prices)), "no trade has reached its stop price"
        assert Decimal(data["lastPrice"]) == self.last
        assert (data["type"], _number(data["price"])) == (order.data["type"], order.price)
        assert (Decimal(data["stopPrice"]), Decimal(data["quantity"])) == (order.stop, order.open)
        assert order.filled == 0, "a stop order that waits has traded"
        order.stop = None

    def _show(self, data: Data) -> None:
        order = self._find(data)
        assert order.stop is None, "a stop order that waits is shown"
        assert order.shown == 0, "what is shown is shown again"
        assert Decimal(data["price"]) == order.price
        assert Decimal(data["quantity"]) == order.slice() > 0
        assert not data["refill"] or order.display is not None, "only an iceberg has a next slice"
        order.shown = order.slice()
        order.place = self._next_place()

    def _trade(self, data: Data) -> None:
        assert data["tradeId"].endswith(f"-{self.sequence:012x}")
        buyer, seller = self._live(data["buyOrderId"]), self._live(data["sellOrderId"])
        taker, maker = (buyer, seller) if data["takerSide"] == "BUY" else (seller, buyer)
        price, quantity = Decimal(data["price"]), Decimal(data["quantity"])
        assert (buyer.side, seller.side) == ("BUY", "SELL")
        assert (data["buyUserId"], data["sellUserId"]) == (buyer.user_id, seller.user_id)
        assert maker is min(self._queue(maker.side), key=LiveOrder.priority), "another order was first"
        assert price == maker.price, "not the maker's price"
        assert taker.stop is None, "a stop order that waits takes"
        assert "postOnly" not in taker.data, "a post-only order takes"
        is_own = taker.user_id == maker.user_id
        assert not is_own or taker.data.get("selfTradePrevention") == "NONE", "a user trades with himself"
        assert _number(data["takerPrice"]) == (taker.price if taker.shown else None)
        if taker.price is not None:
            assert price <= taker.price if taker.side == "BUY" else price >= taker.price
        self._check_taken(taker, maker, price, quantity)
        for order, side in ((buyer, "buy"), (seller, "sell")):
            order.filled += quantity
            order.spent += quantity * price
            order.shown -= quantity if order.shown else 0
            self.traded[order.side] += quantity
            assert Decimal(data[f"{side}FilledQuantity"]) == order.filled
            is_filled = self._is_filled(order, price)
            assert data[f"{side}Status"] == ("FILLED" if is_filled else "PARTIALLY_FILLED")
            if is_filled:
                self._end(order)
        self.last = price
        self.seen_prices.append(price)

    def _check_taken(self, taker: LiveOrder, maker: LiveOrder, price: Decimal, quantity: Decimal) -> None:
        if taker.amount is None:
            assert quantity == min(taker.open, maker.shown), "a trade takes all that both have"
        else:
            left = taker.amount - taker.spent - quantity * price
            assert left >= 0, "more was spent than there was"
            is_enough = left < self._lot() * price or taker.filled + quantity == self._largest()
            assert quantity == maker.shown or is_enough, "it could have taken more"

    def _is_filled(self, order: LiveOrder, price: Decimal) -> bool:
        if order.amount is None:
            return not order.open
        return order.amount - order.spent < self._lot() * price or order.filled == self._largest()

    def _largest(self) -> Decimal | None:
        """The largest quantity of an order, by the rule that the symbol has."""
        most = _number(self.rules.get("maxQuantity"))
        return None if most is None else most // self._lot() * self._lot()

    def _cancel(self, data: Data) -> None:
        order, reason = self._find(data), data["reason"]
        assert self.rules["status"] != "HALTED" or reason == "EXPIRED", "only expiry goes on while the symbol is halted"
        assert data["status"] == ("EXPIRED" if reason in ("EXPIRED", "SELF_TRADE") else "CANCELLED")
        assert _number(data["price"]) == order.price
        assert Decimal(data["filledQuantity"]) == order.filled
        assert _number(data.get("stopPrice")) == order.stop
        if order.amount is not None:
            assert data["quantity"] is None, "a quote order has no open quantity"
            assert Decimal(data["quoteQuantity"]) == order.amount - order.spent > 0
        else:
            assert Decimal(data["quantity"]) == order.open > 0
            if order.price is not None:
                assert Decimal(data.get("shownQuantity", data["quantity"])) == order.shown
        self._check_reason(order, reason)
        self.cancelled[order.user_id, reason] += 1
        if reason == "REPLACED":
            self.replaced.add(order.id)
        self._end(order)

    def _check_reason(self, order: LiveOrder, reason: str) -> None:
        assert order.data["timeInForce"] != "FOK" or not order.filled, "it is all or nothing"
        match reason:
            case "IOC" | "FOK":
                assert order.data["timeInForce"] == reason
            case "MARKET" | "COLLAR":
                assert order.data["type"] in ("MARKET", "STOP")
            case "POST_ONLY":
                assert order.data["postOnly"]
            case "EXPIRED":
                assert order.data["expiresAt"] <= self.now
            case "CANCEL_AFTER":
                assert order.user_id in self.due, "the user's deadline has not passed"
            case _:
                assert reason in ("USER", "AMEND", "REPLACED", "SELF_TRADE", "CANCEL_ALL")

    def _amend(self, data: Data) -> None:
        assert self.rules["status"] == "TRADING", "an amendment was accepted while the symbol does not trade"
        order = self._find(data)
        price, quantity, stop = _number(data["price"]), Decimal(data["quantity"]), _number(data.get("stopPrice"))
        before = (
            _number(data["previousPrice"]),
            Decimal(data["previousQuantity"]),
            _number(data.get("previousStopPrice")),
        )
        assert before == (order.price, order.quantity, order.stop)
        assert Decimal(data["filledQuantity"]) == order.filled < quantity
        assert data["status"] == ("PARTIALLY_FILLED" if order.filled else "PENDING")
        assert Decimal(data.get("previousShownQuantity", order.open)) == order.shown
        assert (price is None, stop is None) == (order.price is None, order.stop is None)
        keeps = (price, stop) == (order.price, order.stop) and order.quantity is not None and quantity <= order.quantity
        assert data["keptPriority"] == keeps
        if not keeps:
            order.place = self._next_place()
        shown, order.price, order.quantity, order.stop = order.shown, price, quantity, stop
        order.shown = Decimal(data.get("shownQuantity", order.open))
        if order.stop is not None or (order.display is not None and not keeps):
            assert order.shown == 0, "it shows itself later, if at all"
        else:
            assert order.shown == (min(shown, order.open) if order.display is not None else order.open)

    def _cancel_all(self, data: Data) -> None:
        user_id = data["userId"]
        assert data["count"] == self.cancelled[user_id, "CANCEL_ALL"]
        assert all(order.user_id != user_id for order in self.live.values()), "an order was left"

    def _cancel_after(self, data: Data) -> None:
        self.deadlines.pop(data["userId"], None)
        if data["deadline"] is not None:
            assert data["deadline"] > self.now
            self.deadlines[data["userId"]] = data["deadline"]

    def _reject(self, data: Data) -> None:
        """Nothing changes."""
        assert data["command"] in _COMMANDS
        assert data["code"]
        assert ("replaces" in data) == (data["command"] == "REPLACE")

    def _symbol(self, data: Data) -> None:
        """Nothing changes in the book; prices on another grid are no prices for stop orders."""
        grids = [(Decimal(rules["tickSize"]), Decimal(rules["lotSize"])) for rules in (self.rules, data) if rules]
        if len(set(grids)) == 2:
            assert not self.live, "orders are left on the old grid"
            self.last = None
        self.rules = data

    def _lot(self) -> Decimal:
        return Decimal(self.rules["lotSize"])

    def _next_place(self) -> int:
        self.place += 1
        return self.place

    def _live(self, order_id: str) -> LiveOrder:
        assert order_id in self.live, f"{order_id} is unknown or has ended"
        return self.live[order_id]

    def _find(self, data: Data) -> LiveOrder:
        order = self._live(data["id"])
        assert (data["userId"], data["side"]) == (order.user_id, order.side)
        return order

    def _queue(self, side: str) -> list[LiveOrder]:
        return [order for order in self.live.values() if order.side == side and order.shown]

    def _end(self, order: LiveOrder) -> None:
        del self.live[order.id]
        self.ended.add(order.id)

    def _check_orders_at_rest(self) -> None:
        for order in self.live.values():
            if order.stop is not None:
                assert not any(map(order.is_reached, self.seen_prices)), "a stop order missed its price"
                assert order.shown == 0, "a stop order that waits is shown"
            else:
                assert order.price is not None, "an order without a price rests"
                assert order.data["timeInForce"] in ("GTC", "GTD"), "it may not rest"
                assert 0 < order.shown <= order.slice(), "it shows nothing, or more than it may"
                assert order.display is not None or order.shown == order.open
            assert order.data.get("expiresAt", self.now + 1) > self.now, "it should have expired"
            assert order.id not in self.must_end, "its user's deadline has passed"

    def _check_book_at_rest(self) -> None:
        expected: Counter[tuple[str, Decimal]] = Counter()
        orders: Counter[tuple[str, Decimal]] = Counter()
        for order in self._queue("BUY") + self._queue("SELL"):
            assert order.price is not None, "an order without a price is shown"
            expected[order.side, order.price] += order.shown  # type: ignore[assignment]
            orders[order.side, order.price] += 1
        assert self.depth.levels() == {level: (expected[level], orders[level]) for level in expected}
        bids = [price for side, price in expected if side == "BUY"]
        asks = [price for side, price in expected if side == "SELL"]
        assert not (bids and asks) or max(bids) < min(asks), "the book is crossed"
        assert self.traded["BUY"] == self.traded["SELL"]


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
