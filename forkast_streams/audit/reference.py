"""The naive exchange as the reference of one partition, remembering ids as long as the engine does."""

from __future__ import annotations

from collections.abc import Container
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
            command: as ``read_input`` reads it.
            resting: ids of the live orders of the partition.
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
