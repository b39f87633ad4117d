"""The depth of a book as docs/wire.md tells a reader to keep it who knows no orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

Level = tuple[str, Decimal]


class DepthReader:
    """Quantity and number of orders at each price, from events alone."""

    def __init__(self) -> None:
        self._quantities: dict[Level, Decimal] = {}
        self._orders: dict[Level, int] = {}

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Take the next event."""
        side = data.get("side", "")
        match kind:
            case "ORDER" if data["price"] is not None and "stopPrice" not in data and "displayQuantity" not in data:
                self._move(side, data["price"], Decimal(data["quantity"]), 1)
            case "SHOW":
                self._move(side, data["price"], Decimal(data["quantity"]), 0 if data["refill"] else 1)
            case "TRADE":
                for name, status in (("BUY", data["buyStatus"]), ("SELL", data["sellStatus"])):
                    price = data["takerPrice"] if name == data["takerSide"] else data["price"]
                    self._move(name, price, -Decimal(data["quantity"]), -1 if status == "FILLED" else 0)
            case "CANCEL" if data["price"] is not None:
                shown = Decimal(data.get("shownQuantity", data["quantity"]))
                self._move(side, data["price"], -shown, -1 if shown else 0)
            case "AMEND":
                filled = Decimal(data["filledQuantity"])
                before = Decimal(data.get("previousShownQuantity", Decimal(data["previousQuantity"]) - filled))
                after = Decimal(data.get("shownQuantity", Decimal(data["quantity"]) - filled))
                self._move(side, data["previousPrice"], -before, -1 if before else 0)
                self._move(side, data["price"], after, 1 if after else 0)

    def levels(self) -> dict[Level, tuple[Decimal, int]]:
        """What is open; only between two commands, when no level is empty."""
        return {level: (quantity, self._orders[level]) for level, quantity in self._quantities.items()}

    def _move(self, side: str, price: str | None, quantity: Decimal, orders: int) -> None:
        if price is None:
            return
        level = side, Decimal(price)
        self._quantities[level] = self._quantities.get(level, Decimal(0)) + quantity
        self._orders[level] = self._orders.get(level, 0) + orders
        assert self._quantities[level] >= 0, "more is taken off a level than is there"
        assert self._orders[level] >= 0, "more orders leave a level than are there"
        if not self._orders[level]:
            assert not self._quantities[level], "a level has quantity without an order"
            del self._quantities[level], self._orders[level]
