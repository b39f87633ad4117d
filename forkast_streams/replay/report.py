"""What came of a replayed recording: the exchange's events held against the file they were made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from forkast_streams.replay.depth import OPPOSITE, Depth
from forkast_streams.replay.flow import Execution, Flow
from forkast_streams.replay.lobster import BookState
from forkast_streams.replay.order_book_file import OrderBookComparison


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a replay.

    Attributes:
        rows: messages in the file; ``skipped`` of them change no visible book.
        orders_unseen: orders that the file only knows from their end.
        commands: commands made of the rest; ``answered`` of them have all their events.
        rejections: refused commands by code.
        events: new events of the symbol, ``trades`` of them trades.
        executions: visible executions in the file.
        at_file_price: executions that came out in full, and at the file's price alone.
        at_head: those that met the file's maker order at the head of its queue, without help.
        passed_over: executions before which other orders had to be sent to the back of the queue.
        trades_elsewhere: trades that the file does not have.
        crossed: commands after which the best bid would have traded with the best ask.
        final_levels: levels of the file's book or ours at the end; ``final_levels_equal`` of them are in both alike.
        states: states of the order book file after the first, ``states_equal`` of them as ours.
        state_levels: levels in them, ``state_levels_taken`` of them taken from the file as they came into view.
    """

    rows: int
    skipped: int
    orders_unseen: int
    commands: int
    answered: int
    rejections: dict[str, int]
    events: int
    trades: int
    executions: int
    at_file_price: int
    at_head: int
    passed_over: int
    trades_elsewhere: int
    crossed: int
    final_levels: int
    final_levels_equal: int
    states: int
    states_equal: int
    state_levels: int
    state_levels_taken: int


class ReplayReport:
    """Folds the events of one symbol, from the first of the replay on.

    Args:
        flow: what was sent.
        depth: the book at the start; it is kept up to date here.
        states: the order book file, if there is one.
    """

    def __init__(self, flow: Flow, depth: Depth | None = None, states: list[BookState] | None = None) -> None:
        self._flow = flow
        self._depth = Depth() if depth is None else depth
        self._comparison = OrderBookComparison(states or [])
        self._answering: int | None = None
        self._trades: list[Mapping[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._rejections: Counter[str] = Counter()
        self._executions: Counter[str] = Counter()
        self._crossed = 0
        self.answered = 0

    @property
    def is_complete(self) -> bool:
        """Whether every command has all its events."""
        return self.answered == len(self._flow.steps)

    @property
    def comparison(self) -> OrderBookComparison:
        """The comparison with the order book file."""
        return self._comparison

    def add(self, event: Mapping[str, Any]) -> None:
        """Fold the envelope of an event; repeats change nothing.

        Raises:
            CorruptLog: events of the symbol are missing.
        """
        if not self._depth.apply(event):
            return
        source, data = event["source"], event["data"]
        self._counts[event["type"]] += 1
        if source["index"] == 0:
            self._answering = self._step_number(data.get("commandId"))
            self._trades = []
        if event["type"] == "TRADE":
            self._trades.append(data)
        elif event["type"] == "REJECT":
            self._rejections[data["code"]] += 1
        if source["index"] == source["count"] - 1:
            self._end_command()

    def summary(self) -> Summary:
        """The figures so far."""
        flow, comparison = self._flow, self._comparison
        final_levels, final_levels_equal = self._final_levels()
        return Summary(
            rows=flow.rows,
            skipped=flow.skipped,
            orders_unseen=flow.unseen,
            commands=len(flow.steps),
            answered=self.answered,
            rejections=dict(self._rejections),
            events=self._counts.total(),
            trades=self._counts["TRADE"],
            executions=len(flow.executions),
            at_file_price=self._executions["at_file_price"],
            at_head=self._executions["at_head"],
            passed_over=sum(execution.passed_over for execution in flow.executions.values()),
            trades_elsewhere=self._executions["elsewhere"],
            crossed=self._crossed,
            final_levels=final_levels,
            final_levels_equal=final_levels_equal,
            states=comparison.compared,
            states_equal=comparison.equal,
            state_levels=comparison.levels,
            state_levels_taken=comparison.levels_taken,
        )

    def _step_number(self, command_id: str | None) -> int | None:
        """Number of the command that is answered; None if it is not one of ours."""
        prefix = self._flow.command_prefix
        return int(command_id[len(prefix) :]) if command_id and command_id.startswith(prefix) else None

    def _end_command(self) -> None:
        if self._depth.is_crossed():
            self._crossed += 1
        number, steps = self._answering, self._flow.steps
        if number is None:
            return
        self.answered += 1
        execution = self._flow.executions.get(steps[number].command.get("id", ""))
        if execution is None:
            self._executions["elsewhere"] += len(self._trades)
        else:
            self._judge(execution)
        next_row = steps[number + 1].row if number + 1 < len(steps) else self._flow.rows
        self._comparison.advance(next_row, self._depth.levels)

    def _judge(self, execution: Execution) -> None:
        trades = self._trades
        quantity = sum(Decimal(trade["quantity"]) for trade in trades)
        if quantity != execution.quantity or any(Decimal(trade["price"]) != execution.price for trade in trades):
            return
        self._executions["at_file_price"] += 1
        makers = {trade[_ORDER_ID_OF[OPPOSITE[trade["takerSide"]]]] for trade in trades}
        if makers == {execution.maker_id} and not execution.passed_over:
            self._executions["at_head"] += 1

    def _final_levels(self) -> tuple[int, int]:
        """Levels in the file's book or ours at the end, and how many of them are the same in both."""
        total = equal = 0
        for side, theirs in self._flow.final_levels.items():
            ours = self._depth.levels[side]
            prices = theirs.keys() | ours.keys()
            total += len(prices)
            equal += sum(ours.get(price) == theirs.get(price) for price in prices)
        return total, equal


_ORDER_ID_OF = {"BUY": "buyOrderId", "SELL": "sellOrderId"}
