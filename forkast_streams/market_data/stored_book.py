"""Books and changes as Redis holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from forkast_streams.market_data.keys import LEVEL_JSON

_LEVEL = LEVEL_JSON.encode()
_EVENT_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a symbol is: its log and the sequence there.

    Attributes:
        born: names the log, by the time of its first event in milliseconds; one more for each time it was written anew.
    """

    born: int
    sequence: int

    def continues(self, earlier: Position) -> bool:
        """Whether this is ``earlier`` or behind it in the same log."""
        return self.born == earlier.born and self.sequence >= earlier.sequence

    def is_reached_from(self, earlier: Position, previous: int | None) -> bool:
        """Whether a change to here that begins at ``previous`` can be applied to the book at ``earlier``.

        Where ``previous`` is None, there is no change, but a whole book.
        """
        return self.born == earlier.born and previous is not None and previous <= earlier.sequence < self.sequence

    @property
    def event_id(self) -> str:
        """The position as the id of a server-sent event."""
        return f"{self.sequence}-{self.born}"

    @classmethod
    def of_event_id(cls, event_id: str) -> Self | None:
        """The position that an event's id names; None when it is no such id."""
        parts = _EVENT_ID.fullmatch(event_id)
        return cls(born=int(parts[2]), sequence=int(parts[1])) if parts else None


@dataclass(frozen=True, slots=True)
class StoredSide:
    """One side of a book.

    Attributes:
        prices: best first.
        levels: what is open at each of them, as "quantity orders".
    """

    prices: list[bytes]
    levels: dict[bytes, bytes]

    @classmethod
    def of(cls, levels: dict[bytes, bytes], *, best_is_high: bool) -> Self:
        """Put ``levels`` in order."""
        # The prices of a symbol have one number of decimals, so of two the longer is the higher. Sorting twice needs a
        # third of the time of sorting pairs.
        prices = sorted(sorted(levels), key=len)
        if best_is_high:
            prices.reverse()
        return cls(prices, levels)

    def json(self, depth: int | None = None) -> bytes:
        """The best ``depth`` levels (default: all) as a JSON array."""
        levels = self.levels
        parts = [_LEVEL % (price, *levels[price].split(b" ")) for price in self.prices[:depth]]
        return b"[%b]" % b",".join(parts)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class StoredBook:
    """A book at one moment; ``timestamp`` in milliseconds."""

    symbol_id: int
    position: Position
    timestamp: int
    buy: StoredSide
    sell: StoredSide

    @classmethod
    def of(
        cls, symbol_id: int, position: Position, timestamp: int, buy: dict[bytes, bytes], sell: dict[bytes, bytes]
    ) -> Self:
        """From the hashes of its sides."""
        buy_side, sell_side = StoredSide.of(buy, best_is_high=True), StoredSide.of(sell, best_is_high=False)
        return cls(symbol_id, position, timestamp, buy_side, sell_side)

    @property
    def size(self) -> int:
        """The number of levels."""
        return len(self.buy.prices) + len(self.sell.prices)

    def members(self, depth: int | None = None) -> bytes:
        """The book with the best ``depth`` levels a side (default: all) as the members of a JSON object."""
        return b'"orderBookSnapShotId":%d,"symbolId":%d,"timestamp":%d,"buy":%b,"sell":%b' % (
            self.position.sequence,
            self.symbol_id,
            self.timestamp,
            self.buy.json(depth),
            self.sell.json(depth),
        )


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change of one log, from any sequence from ``previous`` on to ``sequence``.

    Attributes:
        previous: None when the book was written anew: what readers have is not to be continued.
    """

    born: int
    sequence: int
    previous: int | None
    json: bytes

    @classmethod
    def of(cls, entry: tuple[bytes, dict[bytes, bytes]]) -> Self:
        """From a stream's entry."""
        entry_id, fields = entry
        previous = fields.get(b"previous")
        return cls(
            int(fields.get(b"born", b"-1")),
            int(entry_id.partition(b"-")[0]),
            None if previous is None else int(previous),
            fields.get(b"json", b""),
        )

    @property
    def position(self) -> Position:
        """Where the book is with this change."""
        return Position(self.born, self.sequence)

    def continues(self, position: Position) -> bool:
        """Whether a reader that has the book at ``position`` can apply this change."""
        return self.position.is_reached_from(position, self.previous)
