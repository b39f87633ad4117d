"""Moments at which tables and published books are compared: when the fold of the events is where they were."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

from forkast_streams.audit.evidence import BookAnswer
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.fold import Levels, SymbolFold
from forkast_streams.audit.rows import Rows


class TableWatch:
    """Takes the sums of all rows when the events before an offset are folded.

    Attributes:
        rows: the sums by symbol, once the offset was passed; None before.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Rows] | None = None
        self._target: int | None = None
        self._position = 0

    def watch(self, offset: int, folds: Mapping[int, SymbolFold]) -> bool:
        """Watch for ``offset``; say whether it still lies ahead or is here."""
        self.rows = None
        self._target = offset if offset >= self._position else None
        is_ahead = self._target is not None
        self.passed(self._position, folds)
        return is_ahead

    def passed(self, position: int, folds: Mapping[int, SymbolFold]) -> None:
        """The events before ``position`` are folded."""
        self._position = position
        if self._target is not None and position >= self._target:
            self._target = None
            self.rows = {symbol_id: fold.table_rows() for symbol_id, fold in folds.items() if fold.sequence}


class BookWatch:
    """Compares answers of the book API when the fold is at their sequence."""

    def __init__(self, folds: Mapping[int, SymbolFold], findings: Findings) -> None:
        self._folds = folds
        self._findings = findings
        self._waiting: dict[int, deque[BookAnswer]] = {}

    def add(self, answers: list[BookAnswer]) -> list[BookAnswer]:
        """Compare ``answers``, now or later; return those that show less than is folded already."""
        stale = []
        for answer in sorted(answers, key=lambda each: each.sequence):
            fold = self._folds.get(answer.symbol_id)
            if fold is None or answer.sequence > fold.sequence:
                self._waiting.setdefault(answer.symbol_id, deque()).append(answer)
            elif answer.sequence >= fold.visible_sequence and fold.at_rest:
                self._compare(fold, answer)
            else:
                stale.append(answer)
        return stale

    def passed(self, fold: SymbolFold) -> None:
        """``fold`` is at the end of a command."""
        waiting = self._waiting.get(fold.id)
        while waiting and waiting[0].sequence <= fold.sequence:
            answer = waiting.popleft()
            if answer.sequence == fold.sequence:
                self._compare(fold, answer)
            else:
                self._violate(answer, "is that of the middle of a command." if answer.sequence else "is not there.")

    def expect_none(self) -> None:
        """Call when the events were read beyond all answers."""
        for waiting in self._waiting.values():
            for answer in waiting:
                if answer.sequence:
                    self._violate(answer, "is beyond the last event.")
        self._waiting.clear()

    def _compare(self, fold: SymbolFold, answer: BookAnswer) -> None:
        self._findings.looked["I-12"] += 1
        for name, side, shown in (("buy", "BUY", answer.buy), ("sell", "SELL", answer.sell)):
            levels: Levels = [(Decimal(price), Decimal(quantity), orders) for price, quantity, orders in shown]
            wanted = fold.levels(side)
            if answer.is_cut:
                wanted = wanted[: len(levels)]
            if levels != wanted:
                at = next((n for n, pair in enumerate(zip(levels, wanted, strict=False)) if pair[0] != pair[1]), None)
                at = min(len(levels), len(wanted)) if at is None else at
                told, is_so = (_level(each[at]) if at < len(each) else "none" for each in (levels, wanted))
                self._violate(answer, f"has {name} level {at + 1} as {told}, the events make it {is_so}.")

    def _violate(self, answer: BookAnswer, what: str) -> None:
        self._findings.violate("I-12", f"the book of symbol {answer.symbol_id} at sequence {answer.sequence} {what}")


def _level(level: tuple[Decimal, Decimal, int]) -> str:
    price, quantity, orders = level
    return f"{price} x {quantity} ({orders} orders)"
