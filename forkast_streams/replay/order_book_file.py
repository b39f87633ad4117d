"""Compares a book, state by state, with the order book file that LOBSTER gives beside a message file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from forkast_streams.replay.lobster import BookState, Levels

_NONE = Decimal(0)
_SEES_NOTHING = Decimal("-Infinity")
_SEES_ALL = Decimal("Infinity")
_DIFFERENCES_MAX = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """A price at which the two books have other quantities, after the message of ``row``, counted from 0."""

    row: int
    side: str
    price: Decimal
    file_quantity: Decimal
    our_quantity: Decimal


class _Side:
    """What the file has at each price beyond what we have, and how far its view reaches.

    Orders that were placed before the file starts or outside its levels are in its quantities but in none of its
    messages. The difference they make is taken from the file when a price comes into view, and must then stay as it
    is for as long as the price is in view.
    """

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._beyond: dict[Decimal, Decimal] = {}
        self._view_end = _SEES_NOTHING

    def compare(self, theirs: Levels, depth: int, ours: Levels) -> tuple[list[tuple[Decimal, Decimal, Decimal]], int]:
        """Compare the prices that stayed in view.

        Returns:
            price, file's quantity and ours where these differ; and how many of the file's levels came into view.
        """
        previous_end = self._view_end
        # A side with less levels than the file has room for is seen to its end.
        view_end = max(map(self._rank, theirs)) if len(theirs) >= depth else _SEES_ALL
        self._view_end = view_end
        differences, taken = [], 0
        for price in theirs.keys() | ours.keys() | self._beyond.keys():
            rank = self._rank(price)
            theirs_here, ours_here = theirs.get(price, _NONE), ours.get(price, _NONE)
            if previous_end < rank <= view_end:
                self._beyond[price] = theirs_here - ours_here
                taken += price in theirs
            elif rank <= view_end and ours_here + self._beyond.get(price, _NONE) != theirs_here:
                differences.append((price, theirs_here, ours_here + self._beyond.get(price, _NONE)))
        return differences, taken

    def _rank(self, price: Decimal) -> Decimal:
        """Smaller is nearer to the other side."""
        return price * self._sign


class OrderBookComparison:
    """Holds our book against the file's after each message.

    Attributes:
        compared: states compared; the first one is where both start from.
        equal: those without a difference.
        levels: levels of the file in those states.
        levels_taken: levels that came into view and were taken from the file.
        differences: the first ones found, at most 20.
    """

    def __init__(self, states: list[BookState]) -> None:
        self._states = states
        self._sides = {"BUY": _Side(-1), "SELL": _Side(1)}
        self._next_row = 0
        self.compared = 0
        self.equal = 0
        self.levels = 0
        self.levels_taken = 0
        self.differences: list[Difference] = []

    def advance(self, row_end: int, ours: Mapping[str, Levels]) -> None:
        """Compare the states of all rows before ``row_end`` that were not compared yet with the book as it is."""
        while self._next_row < min(row_end, len(self._states)):
            self._compare(self._next_row, ours)
            self._next_row += 1

    def _compare(self, row: int, ours: Mapping[str, Levels]) -> None:
        state = self._states[row]
        found: list[Difference] = []
        for side, theirs in (("BUY", state.bids), ("SELL", state.asks)):
            differences, taken = self._sides[side].compare(theirs, state.depth, ours[side])
            found += [Difference(row, side, *difference) for difference in differences]
            if row:
                self.levels += len(theirs)
                self.levels_taken += taken
        self.differences += found[: _DIFFERENCES_MAX - len(self.differences)]
        if row:
            self.compared += 1
            self.equal += not found
