"""The matching engine as a book to measure beside others, called from Python with plain values."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import Decimal

from benchmarks.book_flows import Step
from forkast_streams.engine.commands import BUY, SELL, Command, cancel_order, limit_order
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import TradeExecuted
from forkast_streams.engine.matching_engine import MatchingEngine


class Ours:
    """The matching engine, with its changes drained as often as checkpoints do."""

    def __init__(self) -> None:
        self._engine = MatchingEngine()
        rules = DefineSymbol(1, "S1", Decimal("0.01"), Decimal(1), "TRADING", None)
        self._engine.process(rules, 0, 0)
        self._offset = 0
        self._prices: dict[int, Decimal] = {}

    def prepare(self, steps: Sequence[Step]) -> list[tuple[str, int, str, int, Decimal]]:
        """Order id, user, side, quantity and price as they are decoded: the same Decimal for the same price.

        Buyers and sellers are different users.
        """
        sides, prices = {True: BUY, False: SELL}, self._prices
        return [
            (
                str(uuid.UUID(int=step.number << 64)),
                1 + step.number % 500 + 500 * step.is_buy,
                sides[step.is_buy],
                step.quantity,
                prices.setdefault(step.cents, Decimal(step.cents) / 100),
            )
            for step in steps
        ]

    def apply(self, inputs: list[tuple[str, int, str, int, Decimal]]) -> int:
        """See Book."""
        process, traded = self._engine.process, 0
        for offset, (order_id, user_id, side, quantity, price) in enumerate(inputs, self._offset + 1):
            command: Command
            if quantity:
                command = limit_order(1, order_id, user_id, side, quantity, price)
            else:
                command = cancel_order(1, order_id, user_id)
            for event in process(command, offset, offset):
                if type(event) is TradeExecuted:
                    traded += event.quantity
        self._offset += len(inputs)
        self._engine.changes.drain()
        self._engine.seen.drain_fresh()
        return traded
