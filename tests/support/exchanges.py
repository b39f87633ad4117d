"""The engine and the naive exchange behind one interface, so that one test judges both."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.naive_book import NaiveExchange, read_command
from tests.support.flows import START_MS, Record

Event = tuple[str, dict[str, Any]]


class Resting(NamedTuple):
    """A resting order; ``name`` is its id, or what a ladder calls it, ``quantity`` what it shows."""

    side: str
    price: Decimal
    quantity: Decimal
    name: str
    hidden: Decimal = Decimal(0)


class Exchange(Protocol):
    """Commands in, events out; time goes on by a millisecond with each command."""

    def process(self, command: dict[str, Any]) -> list[Event]:
        """Apply a command as it stands on the wire; a REJECT comes without its wording."""

    def resting(self, symbol_id: int) -> list[Resting]:
        """The bids, then the asks, each in the order in which they will trade."""

    def waiting(self, symbol_id: int) -> set[Resting]:
        """The stop orders that were not triggered, at their stop prices."""


class Engine:
    """The engine, from JSON to JSON, on the only partition."""

    def __init__(self) -> None:
        self.state = EnginePartition(0, 1)
        self.envelopes: list[dict[str, Any]] = []

    def process(self, command: dict[str, Any]) -> list[Event]:
        offset = self.state.next_offset
        record = Record(offset, START_MS + offset, str(command["symbolId"]).encode(), wire(command))
        envelopes = [json.loads(event.value or b"") for event in self.state.process([record]).events]
        self.envelopes += envelopes
        return [(envelope["type"], _without_wording(envelope["data"])) for envelope in envelopes]

    def resting(self, symbol_id: int) -> list[Resting]:
        symbol, book = self.state.engine.markets[symbol_id].symbol, self.state.engine.markets[symbol_id].book
        return [
            Resting(
                order.side,
                Decimal(symbol.ticks.text(order.price_ticks)),
                Decimal(symbol.lots.text(order.shown)),
                order.id,
                Decimal(symbol.lots.text(order.hidden)),
            )
            for side in (book.bids, book.asks)
            for order in side
        ]

    def waiting(self, symbol_id: int) -> set[Resting]:
        symbol, book = self.state.engine.markets[symbol_id].symbol, self.state.engine.markets[symbol_id].book
        return {
            Resting(
                order.side,
                Decimal(symbol.ticks.text(order.price_ticks)),
                Decimal(symbol.lots.text(order.remaining)),
                order.id,
            )
            for side in (book.buy_stops, book.sell_stops)
            for order in side
        }


class Naive:
    """The naive exchange."""

    def __init__(self) -> None:
        self.exchange = NaiveExchange()
        self.clock = START_MS

    def process(self, command: dict[str, Any]) -> list[Event]:
        events = self.exchange.process(read_command(wire(command)), self.clock)
        self.clock += 1
        return events

    def resting(self, symbol_id: int) -> list[Resting]:
        sides = self.exchange.books[symbol_id].sides
        return [
            Resting(order.side, order.price or Decimal(0), order.shown, order.id, order.hidden)
            for side in ("BUY", "SELL")
            for order in sides[side]
        ]

    def waiting(self, symbol_id: int) -> set[Resting]:
        return {
            Resting(order.side, order.stop_price or Decimal(0), order.open, order.id)
            for order in self.exchange.books[symbol_id].stops
        }


def wire(command: dict[str, Any]) -> bytes:
    """The command as JSON."""
    return json.dumps(command).encode()


def _without_wording(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != "message"}
