"""Where market data is in Redis, and how its levels are written there and in JSON.

A symbol has five keys. ``book:ID:meta`` is a hash with ``born``, ``sequence``, ``timestamp`` and ``rewritten``, how
often its log was written anew with sequences that had other events before;
``book:ID:buy`` and ``book:ID:sell`` are hashes from price to "quantity orders"; ``book:ID:changes`` is a stream of
changes and ``trades:ID`` one of trades, whose entries have the ids ``SEQUENCE-0``.
"""

from __future__ import annotations

from typing import NamedTuple

# A hash from partition to the number of partitions, "0" while its books are looked at. Those of a partition that has
# that number are all there; as long as one has not, a symbol that is not there may exist all the same.
COMPLETE = "books:complete"

# A level in JSON, of its price, quantity and number of orders.
LEVEL_JSON = '{"price":"%s","quantity":"%s","orders":%s}'


class SymbolKeys(NamedTuple):
    """The keys of one symbol, in the order the script takes them."""

    meta: str
    buy: str
    sell: str
    changes: str
    trades: str

    @classmethod
    def of(cls, symbol_id: int) -> SymbolKeys:
        """The keys of ``symbol_id``."""
        book = f"book:{symbol_id}"
        return cls(f"{book}:meta", f"{book}:buy", f"{book}:sell", f"{book}:changes", f"trades:{symbol_id}")
