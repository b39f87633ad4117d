"""Order ids that were used, so that an order sent twice is one order.

Ids are kept in two generations. When the newer one is full or a window old, the older one is forgotten: an id is
remembered for at least one window unless the partition takes more orders than a generation holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from forkast_streams.limits import SEEN_IDS_MAX, SEEN_WINDOW_MS

_ID_CHARS: Final = 36
_BUCKETS: Final = 1 << 14
_LAST: Final = _BUCKETS - 1


class IdSet:
    """Texts of order ids in 40 bytes each; in a set of Python's it would be 140.

    A bucket is its ids one behind the other, some sixty in a full generation. Which bucket an id belongs to depends on
    Python's hash, which nobody outside of the process knows.
    """

    __slots__ = ("_buckets", "_count")

    def __init__(self) -> None:
        self._buckets: list[str] = [""] * _BUCKETS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, order_id: str) -> bool:
        if not self._count:
            return False
        # No id is found across two others: their dashes stand in other places.
        return order_id in self._buckets[hash(order_id) & _LAST]

    def add(self, order_id: str) -> None:
        """Put in an id that is not there."""
        at = hash(order_id) & _LAST
        self._buckets[at] = self._buckets[at] + order_id
        self._count += 1

    def ids(self) -> set[str]:
        """All of them."""
        return {bucket[at : at + _ID_CHARS] for bucket in self._buckets for at in range(0, len(bucket), _ID_CHARS)}


class SeenIds:
    """The ids of the current and the previous generation.

    Attributes:
        generation: number of the current generation.
        started: time of its first id in milliseconds, 0 while it has none.
        fresh: ids added since the last checkpoint, by generation.
    """

    __slots__ = ("current", "fresh", "generation", "previous", "started")

    def __init__(self) -> None:
        self.generation = 1
        self.started = 0
        self.current = IdSet()
        self.previous = IdSet()
        self.fresh: dict[int, list[str]] = {}

    def __contains__(self, order_id: str) -> bool:
        return order_id in self.current or order_id in self.previous

    def add(self, order_id: str, timestamp: int) -> None:
        """Remember ``order_id``, which is not known, used at ``timestamp`` (milliseconds)."""
        current = self.current
        if len(current) and (len(current) >= SEEN_IDS_MAX or timestamp - self.started >= SEEN_WINDOW_MS):
            self.previous = current
            self.current = current = IdSet()
            self.generation += 1
        if not len(current):
            self.started = timestamp
        current.add(order_id)
        fresh = self.fresh.get(self.generation)
        if fresh is None:
            fresh = self.fresh[self.generation] = []
        fresh.append(order_id)

    def restore(self, generation: int, ids: Iterable[str]) -> None:
        """Put back ids of a checkpoint, those of generations that are forgotten aside."""
        if generation == self.generation:
            target = self.current
        elif generation == self.generation - 1:
            target = self.previous
        else:
            return
        for order_id in ids:
            if order_id not in target:
                target.add(order_id)
