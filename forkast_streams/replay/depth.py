"""The price levels of one symbol, kept from its events alone by the lines of docs/wire.md."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from forkast_streams.errors import CorruptLog

OPPOSITE = {"BUY": "SELL", "SELL": "BUY"}


class Depth:
    """Open quantity by side, then price; no level is empty.

    Attributes:
        last_sequence: sequence of the last event that was applied.
    """

    def __init__(self) -> None:
        self.levels: dict[str, dict[Decimal, Decimal]] = {"BUY": {}, "SELL": {}}
        self.last_sequence = 0

    def apply(self, event: Mapping[str, Any]) -> bool:
        """Apply the envelope of an event; return whether it was new. A repeat changes nothing.

        Raises:
            CorruptLog: events between the last one and this one are missing.
        """
        if event["sequence"] <= self.last_sequence:
            return False
        if event["sequence"] != self.last_sequence + 1:
            raise CorruptLog(
                f"symbol {event['symbolId']} goes on with sequence {event['sequence']} after {self.last_sequence}; "
                "events are missing."
            )
        self.last_sequence = event["sequence"]
        data = event["data"]
        match event["type"]:
            case "ORDER" if "stopPrice" not in data and "displayQuantity" not in data:
                self._add(data["side"], data["price"], data["quantity"])
            case "TRADE":
                self._take(OPPOSITE[data["takerSide"]], data["price"], data["quantity"])
                self._take(data["takerSide"], data["takerPrice"], data["quantity"])
            case "SHOW":
                self._add(data["side"], data["price"], data["quantity"])
            case "CANCEL":
                self._take(data["side"], data["price"], data.get("shownQuantity", data["quantity"]))
            case "AMEND":
                before, after = _open(data, "previousQuantity"), _open(data, "quantity")
                self._take(data["side"], data["previousPrice"], data.get("previousShownQuantity", before))
                self._add(data["side"], data["price"], data.get("shownQuantity", after))
        return True

    def is_empty(self) -> bool:
        """Whether nothing rests on either side."""
        return not any(self.levels.values())

    def is_crossed(self) -> bool:
        """Whether the best bid would trade with the best ask."""
        bids, asks = self.levels["BUY"], self.levels["SELL"]
        return bool(bids and asks) and max(bids) >= min(asks)

    def _add(self, side: str, price: str | None, quantity: str | Decimal | None) -> None:
        if price is None or quantity is None:
            # Without a limit, and for an amount, an order is in no level.
            return
        levels, level = self.levels[side], Decimal(price)
        total = levels.get(level, Decimal(0)) + Decimal(quantity)
        if total:
            levels[level] = total
        else:
            levels.pop(level, None)

    def _take(self, side: str, price: str | None, quantity: str | Decimal | None) -> None:
        self._add(side, price, None if quantity is None else -Decimal(quantity))


def _open(data: Mapping[str, Any], total: str) -> Decimal:
    return Decimal(data[total]) - Decimal(data["filledQuantity"])
