"""Live orders and the queues in which they stand, as the events tell them."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from decimal import Decimal
from typing import Any

ZERO = Decimal(0)


class LiveOrder:
    """An order that has not ended.

    Attributes:
        price: limit; None has none.
        quantity: the total with what is filled; None for an order by amount of money.
        filled: what is traded of it.
        shown: what of it stands in the queue at its price; an iceberg shows a part, a taker outside the book nothing.
        is_queued: whether it is in the queue at its price.
        stop_price: of a stop order, also after it was triggered.
        is_waiting: whether it is a stop order that was not triggered yet.
        row: what the table of orders has and the matching does not need; see `rows`.
        row_hash: of the row as it is; None when it has changed since it was computed.
    """

    __slots__ = (
        "filled", "id", "is_queued", "is_waiting", "prevention", "price", "quantity", "row", "row_hash", "shown",
        "side", "stop_price", "time_in_force", "type", "user_id",
    )  # fmt: skip

    def __init__(self, data: dict[str, Any], price: Decimal | None, quantity: Decimal | None) -> None:
        self.id: str = data["id"]
        self.user_id: int = data["userId"]
        self.type: str = data["type"]
        self.side: str = data["side"]
        self.time_in_force: str = data.get("timeInForce", "GTC")
        self.prevention: str = data.get("selfTradePrevention", "EXPIRE_TAKER")
        self.price = price
        self.quantity = quantity
        self.filled = ZERO
        self.shown = ZERO
        self.is_queued = False
        self.stop_price: str | None = data.get("stopPrice")
        self.is_waiting = self.stop_price is not None
        self.row: Any = None
        self.row_hash: int | None = None

    @property
    def open(self) -> Decimal | None:
        """What is not filled; None for an order by amount of money."""
        return None if self.quantity is None else self.quantity - self.filled

    @property
    def never_rests(self) -> bool:
        """Whether what does not trade at once must be cancelled."""
        return self.type in ("MARKET", "STOP") or self.time_in_force in ("IOC", "FOK")


class Level:
    """The orders at one price, the first to trade first, and what they show together."""

    __slots__ = ("orders", "quantity")

    def __init__(self) -> None:
        # A plain dict would walk over every order that has left to find the first one.
        self.orders: OrderedDict[str, LiveOrder] = OrderedDict()
        self.quantity = ZERO


class QueueSide:
    """The levels of one side of a book."""

    __slots__ = ("is_bid", "levels", "prices")

    def __init__(self, *, is_bid: bool) -> None:
        self.is_bid = is_bid
        self.levels: dict[Decimal, Level] = {}
        self.prices: list[Decimal] = []

    def best(self) -> Decimal | None:
        """The price that trades first."""
        if not self.prices:
            return None
        return self.prices[-1] if self.is_bid else self.prices[0]

    def first(self) -> LiveOrder | None:
        """The order that trades first."""
        best = self.best()
        return None if best is None else next(iter(self.levels[best].orders.values()))

    def push(self, order: LiveOrder, shown: Decimal) -> None:
        """Put ``order`` at the end of the queue at its price, with ``shown`` of it."""
        price = order.price
        assert price is not None, "only an order with a price can be queued"
        level = self.levels.get(price)
        if level is None:
            level = self.levels[price] = Level()
            self.prices.insert(bisect_left(self.prices, price), price)
        level.orders[order.id] = order
        level.quantity += shown
        order.shown, order.is_queued = shown, True

    def reduce(self, order: LiveOrder, quantity: Decimal) -> None:
        """Show less of ``order``; when nothing is left it leaves the queue."""
        if not order.is_queued:
            return
        assert order.price is not None
        taken = min(quantity, order.shown)
        order.shown -= taken
        self.levels[order.price].quantity -= taken
        if not order.shown:
            self.remove(order)

    def remove(self, order: LiveOrder) -> None:
        """Take ``order`` out of its queue, if it is in one."""
        if not order.is_queued:
            return
        assert order.price is not None
        level = self.levels[order.price]
        del level.orders[order.id]
        level.quantity -= order.shown
        order.shown, order.is_queued = ZERO, False
        if not level.orders:
            del self.levels[order.price]
            del self.prices[bisect_left(self.prices, order.price)]
