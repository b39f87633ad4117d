"""The naive exchange as the reference of one partition, remembering ids as long as the engine does."""

from __future__ import annotations

from collections.abc import Container
from functools import lru_cache
from typing import Any, cast

from forkast_streams.audit.commands import Command
from forkast_streams.audit.window import OrderIdWindow
from forkast_streams.naive_book import NaiveExchange

Event = tuple[str, dict[str, Any]]


class Reference:
    """What the exchange must answer.

    Attributes:
        window: the order ids that are known.
        symbols: the symbols that were defined.
    """

    def __init__(self, window: OrderIdWindow | None = None) -> None:
        self._exchange = NaiveExchange()
        self.window = OrderIdWindow() if window is None else window
        self._exchange.used_ids = cast("set[str]", self.window)
        self.symbols: set[int] = set()

    def knows_id(self, command: Command, resting: Container[str], now: int) -> bool:
        """Whether the new order's id is that of an order the exchange remembers."""
        self.window.now, self.window.resting = now, resting
        order_id = command.get("id")
        return isinstance(order_id, str) and order_id.lower() in self.window

    def process(self, command: Command, resting: Container[str], now: int) -> list[Event] | None:
        """The events that must answer a valid command; None when there is nothing to compare with.

        Args:
            command: as ``CommandReader`` reads it.
            resting: ids of the live orders of its symbol.
            now: the time of the log, milliseconds.
        """
        self.window.now, self.window.resting = now, resting
        if command.get("command") == "SYMBOL":
            self.symbols.add(command["symbolId"])
        return self._exchange.process(command, now)


class NoReference(Reference):
    """Knows ids and symbols and leaves the answers open, for books too deep for a matcher of plain lists."""

    def process(self, command: Command, resting: Container[str], now: int) -> list[Event] | None:
        """Nothing to compare with."""
        self.window.now, self.window.resting = now, resting
        if command.get("command") == "SYMBOL":
            self.symbols.add(command["symbolId"])
        elif command.get("command") in (None, "REPLACE"):
            self.window.add(command["id"].lower())
        return None


_SYMBOL = {"command": "SYMBOL", "symbolId": 1, "symbol": "X", "tickSize": 1, "lotSize": 1, "status": "TRADING"}


@lru_cache(maxsize=1)
def knows_lifecycle() -> bool:
    """Whether the reference, and so the exchange, takes the commands that came with stops and icebergs."""
    exchange = NaiveExchange()
    exchange.process(_SYMBOL, 1)
    try:
        events = exchange.process({"command": "CANCEL_ALL", "symbolId": 1, "userId": 1}, 2)
    except (KeyError, ValueError):
        return False
    return [kind for kind, _ in events] == ["CANCEL_ALL"]


@lru_cache(maxsize=1)
def prevents_self_trade() -> bool:
    """Whether an order may trade with one of the same user when nothing else is said."""
    exchange = NaiveExchange()
    exchange.process(_SYMBOL, 1)
    kinds: list[str] = []
    for number, side in enumerate(("BUY", "SELL"), start=1):
        order = {"id": f"00000000-0000-0000-0000-{number:012x}", "userId": 1, "symbolId": 1, "type": "LIMIT"}
        events = exchange.process(order | {"side": side, "quantity": 1, "price": 1}, number)
        kinds += [kind for kind, _ in events]
    return "TRADE" not in kinds
