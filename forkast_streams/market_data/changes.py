"""What a book publishes: its changes, with levels and trades as the public sees them."""

from __future__ import annotations

from msgspec import Struct

from forkast_streams.limits import TAPE_TRADES

# Quantity as text and number of orders; ("0", 0) says that the level is gone.
LevelState = tuple[str, int]
GONE: LevelState = ("0", 0)


class Trade(Struct, frozen=True, gc=False, rename="camel"):
    """A trade as the public sees it: nobody's user or order ids. ``timestamp`` in milliseconds."""

    trade_id: str
    price: str
    quantity: str
    taker_side: str
    timestamp: int
    sequence: int


class BookChange(Struct):
    """What happened to one symbol between two consistent moments.

    Applied to the book at any sequence from ``previous`` up to below ``sequence`` it gives the book at ``sequence``,
    because its levels are absolute.

    Attributes:
        born: timestamp of the symbol's first event; another one means another log, whose sequences start again.
        buy: changed levels by price.
        sell: changed levels by price.
        trades: oldest first.
    """

    symbol_id: int
    born: int
    previous: int
    sequence: int
    timestamp: int
    buy: dict[str, LevelState]
    sell: dict[str, LevelState]
    trades: list[Trade]

    def merge(self, later: BookChange) -> None:
        """Take in the change that follows this one."""
        self.sequence, self.timestamp = later.sequence, later.timestamp
        self.buy |= later.buy
        self.sell |= later.sell
        self.trades = (self.trades + later.trades)[-TAPE_TRADES:]
