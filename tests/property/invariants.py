"""What must be true of any stream of events, whatever the commands were; checked from the events alone."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.unit.exchanges import Resting


@dataclass(eq=False)
class LiveOrder:
    """An order that is not at its end; ``place`` grows with the time at which it got its place in the queue."""

    id: str
    side: str
    price: Decimal | None
    quantity: Decimal
    place: int
    filled: Decimal = Decimal(0)

    @property
    def open(self) -> Decimal:
        return self.quantity - self.filled

    def priority(self) -> tuple[Decimal, int]:
        """Smaller trades first."""
        assert self.price is not None, "a market order rests"
        return (-self.price if self.side == "BUY" else self.price), self.place


class Invariants:
    """Follows one symbol's events and asserts, at each of them, what must hold."""

    def __init__(self) -> None:
        self.live: dict[str, LiveOrder] = {}
        self.ended: set[str] = set()
        self.sequence = 0
        self.place = 0
        self.traded = {"BUY": Decimal(0), "SELL": Decimal(0)}

    def follow(self, envelopes: list[dict[str, Any]]) -> None:
        """Take the events of one command."""
        for index, envelope in enumerate(envelopes):
            self.sequence += 1
            assert envelope["sequence"] == self.sequence, "sequences have a gap"
            source = envelope["source"]
            assert (source["index"], source["count"]) == (index, len(envelopes))
            getattr(self, f"_{envelope['type'].lower()}")(envelope["data"], envelope["sequence"])
        self._check_book_at_rest()

    def resting(self) -> list[Resting]:
        """The bids, then the asks, each in the order in which they must trade."""
        return [
            Resting(order.side, order.price or Decimal(0), order.open, order.id)
            for side in ("BUY", "SELL")
            for order in self._queue(side)
        ]

    def _order(self, data: dict[str, Any], _sequence: int) -> None:
        assert data["id"] not in self.live, "an id is used twice"
        assert data["id"] not in self.ended, "an order came back after its end"
        assert (data["filledQuantity"], data["status"]) == ("0", "PENDING")
        self.place += 1
        price = None if data["price"] is None else Decimal(data["price"])
        self.live[data["id"]] = LiveOrder(data["id"], data["side"], price, Decimal(data["quantity"]), self.place)

    def _trade(self, data: dict[str, Any], sequence: int) -> None:
        taker_side = data["takerSide"]
        buyer, seller = self.live[data["buyOrderId"]], self.live[data["sellOrderId"]]
        taker, maker = (buyer, seller) if taker_side == "BUY" else (seller, buyer)
        price, quantity = Decimal(data["price"]), Decimal(data["quantity"])
        assert data["tradeId"].endswith(f"-{sequence:012x}")
        assert (buyer.side, seller.side) == ("BUY", "SELL")
        assert maker is self._queue(maker.side)[0], "another order was first"
        assert price == maker.price, "not the maker's price"
        assert (None if data["takerPrice"] is None else Decimal(data["takerPrice"])) == taker.price
        if taker.price is not None:
            assert price <= taker.price if taker_side == "BUY" else price >= taker.price
        assert quantity == min(taker.open, maker.open), "a trade takes all that both have"
        for order, side in ((buyer, "buy"), (seller, "sell")):
            order.filled += quantity
            self.traded[order.side] += quantity
            assert Decimal(data[f"{side}FilledQuantity"]) == order.filled
            assert data[f"{side}Status"] == ("PARTIALLY_FILLED" if order.open else "FILLED")
            if not order.open:
                self._end(order)

    def _cancel(self, data: dict[str, Any], _sequence: int) -> None:
        order = self.live[data["id"]]
        assert Decimal(data["quantity"]) == order.open > 0
        assert Decimal(data["filledQuantity"]) == order.filled
        self._end(order)

    def _amend(self, data: dict[str, Any], _sequence: int) -> None:
        order = self.live[data["id"]]
        price, quantity = Decimal(data["price"]), Decimal(data["quantity"])
        assert (Decimal(data["previousPrice"]), Decimal(data["previousQuantity"])) == (order.price, order.quantity)
        assert Decimal(data["filledQuantity"]) == order.filled < quantity
        assert data["keptPriority"] == (price == order.price and quantity <= order.quantity)
        if not data["keptPriority"]:
            self.place += 1
            order.place = self.place
        order.price, order.quantity = price, quantity

    def _reject(self, data: dict[str, Any], _sequence: int) -> None:
        """Nothing changes."""

    def _symbol(self, data: dict[str, Any], _sequence: int) -> None:
        """Nothing changes in the book."""

    def _queue(self, side: str) -> list[LiveOrder]:
        return sorted((order for order in self.live.values() if order.side == side), key=LiveOrder.priority)

    def _end(self, order: LiveOrder) -> None:
        del self.live[order.id]
        self.ended.add(order.id)

    def _check_book_at_rest(self) -> None:
        bids, asks = self._queue("BUY"), self._queue("SELL")
        if bids and asks:
            assert (bids[0].price or 0) < (asks[0].price or 0), "the book is crossed"
        assert self.traded["BUY"] == self.traded["SELL"]
