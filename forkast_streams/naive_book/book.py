"""Orders and the book they rest in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

Command = Mapping[str, Any]
Data = dict[str, Any]
Event = tuple[str, Data]

# Amounts of money in the smallest units have more digits than Decimal calculates with by default.
WIDE = Context(prec=80)


@dataclass(slots=True, eq=False)
class NaiveOrder:
    """An order.

    Attributes:
        type: as it was sent; a stop order that was triggered is one no more, see ``waiting``.
        price: the limit; None for any price.
        quantity: total with what is filled; what an order with an amount of money can afford changes on its way.
        hidden: what of the open quantity cannot trade yet.
        waiting: a stop order whose price was not reached.
        arrived: how many orders had come before it.
        queued: how many times an order had lined up in the book when this one did last.
    """

    id: str
    user_id: int
    side: str
    type: str
    price: Decimal | None
    quantity: Decimal
    time_in_force: str
    self_trade_prevention: str
    stop_price: Decimal | None
    display_quantity: Decimal | None
    expires_at: int | None
    post_only: bool
    arrived: int
    filled: Decimal = Decimal(0)
    hidden: Decimal = Decimal(0)
    waiting: bool = False
    queued: int = 0

    @property
    def open(self) -> Decimal:
        """What is not filled."""
        return self.quantity - self.filled

    @property
    def shown(self) -> Decimal:
        """What counts at its price."""
        return Decimal(0) if self.waiting else self.open - self.hidden

    @property
    def status(self) -> str:
        """PENDING, PARTIALLY_FILLED or FILLED, by what is filled."""
        if self.open == 0:
            return "FILLED"
        return "PARTIALLY_FILLED" if self.filled else "PENDING"

    def is_reached_by(self, price: Decimal | None) -> bool:
        """Whether a trade at ``price`` triggers the stop order."""
        if price is None or self.stop_price is None:
            return False
        return price >= self.stop_price if self.side == "BUY" else price <= self.stop_price


@dataclass(slots=True)
class NaiveBook:
    """A symbol: its rules, the last sequence it gave out, and its orders.

    Attributes:
        rules: the optional ones, by their names on the wire.
        now: the exchange's time in milliseconds.
        sides: resting orders, next to trade first.
        stops: orders that wait for their stop price.
        triggered: those that it has reached and that are on their way in, the next one first.
        deadlines: when all orders of a user are cancelled, in milliseconds.
    """

    id: int
    name: str
    tick_size: Decimal
    lot_size: Decimal
    status: str
    rules: dict[str, Any]
    sequence: int = 0
    now: int = 0
    last_price: Decimal | None = None
    sides: dict[str, list[NaiveOrder]] = field(default_factory=lambda: {"BUY": [], "SELL": []})
    stops: list[NaiveOrder] = field(default_factory=list)
    triggered: list[NaiveOrder] = field(default_factory=list)
    deadlines: dict[int, int] = field(default_factory=dict)
    lined_up: int = 0

    @property
    def orders(self) -> list[NaiveOrder]:
        """All open orders."""
        return self.sides["BUY"] + self.sides["SELL"] + self.stops + self.triggered

    def find(self, order_id: str, user_id: int) -> NaiveOrder | None:
        """A user's open order."""
        order_id = order_id.lower()
        return next((order for order in self.orders if order.id == order_id and order.user_id == user_id), None)

    def remove(self, order: NaiveOrder) -> None:
        """Take an open order out of wherever it stands."""
        place = self.stops if order.waiting else self.sides[order.side]
        place.remove(order)

    def rest(self, order: NaiveOrder) -> None:
        """Put ``order`` behind every order whose price is as good or better."""
        side = self.sides[order.side]
        place = next((place for place, other in enumerate(side) if _is_better(order, other)), len(side))
        side.insert(place, order)

    def wait(self, order: NaiveOrder) -> None:
        """Let a stop order wait, or come in when its turn is if its stop price is reached already."""
        self.lined_up += 1
        order.waiting, order.queued = True, self.lined_up
        self.stops.append(order)
        if order.is_reached_by(self.last_price):
            self.trigger(order)

    def hide(self, order: NaiveOrder) -> None:
        """Show one slice of an iceberg order, all of any other."""
        rest = Decimal(0) if order.display_quantity is None else order.open - order.display_quantity
        order.hidden = max(Decimal(0), rest)

    def trigger(self, order: NaiveOrder) -> None:
        """Let a stop order come in when its turn is."""
        self.stops.remove(order)
        self.triggered.append(order)

    def triggered_by(self, price: Decimal) -> list[NaiveOrder]:
        """The stop orders that a trade triggers: buys from the lowest stop price, then sells from the highest."""
        reached = [order for order in self.stops if order.is_reached_by(price)]
        buys = [order for order in reached if order.side == "BUY"]
        sells = [order for order in reached if order.side == "SELL"]
        buys.sort(key=lambda order: (order.stop_price, order.queued))
        sells.sort(key=lambda order: (-(order.stop_price or 0), order.queued))
        return buys + sells

    def collar(self) -> tuple[Decimal, Decimal] | None:
        """The lowest and the highest price around the last trade's, at least a tick away."""
        fraction = self.rules.get("priceCollar")
        if fraction is None or self.last_price is None:
            return None
        width = max(self.tick_size, self.last_price * fraction // self.tick_size * self.tick_size)
        return self.last_price - width, self.last_price + width

    def lots_for(self, amount: Decimal, price: Decimal, filled: Decimal) -> Decimal:
        """The largest quantity that ``amount`` buys at ``price`` and ``maxQuantity`` allows beside what is filled."""
        lots = WIDE.divide_int(amount, WIDE.multiply(price, self.lot_size))
        if "maxQuantity" in self.rules:
            lots = min(lots, WIDE.divide_int(self.rules["maxQuantity"] - filled, self.lot_size))
        return WIDE.multiply(lots, self.lot_size)

    def price_text(self, price: Decimal | None) -> str | None:
        """The price with the tick size's decimals."""
        return None if price is None else _text(price, self.tick_size)

    def quantity_text(self, quantity: Decimal) -> str:
        """The quantity with the lot size's decimals."""
        return _text(quantity, self.lot_size)


def plain(value: Decimal) -> str:
    """``value`` without an exponent and without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_better(order: NaiveOrder, other: NaiveOrder) -> bool:
    """Whether ``order`` trades before ``other``, which came earlier: only a better price does that."""
    assert order.price is not None, "a market order never rests"
    assert other.price is not None, "a market order never rests"
    return order.price > other.price if order.side == "BUY" else order.price < other.price


def _text(value: Decimal, step: Decimal) -> str:
    """``value`` with as many decimals as ``step`` needs."""
    _, _, decimals = plain(step).partition(".")
    return f"{value:.{len(decimals)}f}"
