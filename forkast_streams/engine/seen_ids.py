"""Order ids that were used, so that an order sent twice is one order.

Ids are kept in two generations. When the newer one is full or a window old, the older one is forgotten: an id is
remembered for at least one window unless the partition takes more orders than a generation holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from forkast_streams.limits import SEEN_IDS_MAX, SEEN_WINDOW_MS

_ID_CHARS: Final = 36
# Of a bucket on average: fewer would take more memory, more would take longer to search.
_BUCKET_IDS: Final = 8


class IdSet:
    """Texts of order ids in 44 bytes each; in a set of Python's it would be 140.

    A bucket is its ids one behind the other. Which bucket an id belongs to depends on Python's hash, which nobody
    outside of the process knows. The table grows by linear hashing, a bucket at a time, so that no order waits until
    a million ids have been put elsewhere.
    """

    __slots__ = ("_buckets", "_count", "_mask")

    def __init__(self, expected: int = 0) -> None:
        """Empty, with the buckets that ``expected`` ids need."""
        count = max(1, -(-expected // _BUCKET_IDS))
        self._buckets: list[str] = [""] * count
        self._count = 0
        # The bits of a hash that tell the bucket, where there is such a bucket yet; else one bit less.
        self._mask = (1 << count.bit_length()) - 1

    def __len__(self) -> int:
        return self._count

    def __contains__(self, order_id: str) -> bool:
        # No id is found across two others: their dashes stand in other places.
        return order_id in self._buckets[self._place(order_id)]

    def add(self, order_id: str) -> None:
        """Put in an id that is not there."""
        at = self._place(order_id)
        self._buckets[at] = self._buckets[at] + order_id
        self._count += 1
        if self._count > len(self._buckets) * _BUCKET_IDS:
            self._split()

    def ids(self) -> set[str]:
        """All of them."""
        return {order_id for bucket in self._buckets for order_id in _ids_of(bucket)}

    def _place(self, order_id: str) -> int:
        mask = self._mask
        at = hash(order_id) & mask
        return at if at < len(self._buckets) else at & (mask >> 1)

    def _split(self) -> None:
        """Divide the next bucket into itself and a new one at the end, by one more bit of the hashes."""
        mask = self._mask
        at = len(self._buckets) & (mask >> 1)
        staying: list[str] = []
        moving: list[str] = []
        for order_id in _ids_of(self._buckets[at]):
            (staying if hash(order_id) & mask == at else moving).append(order_id)
        self._buckets[at] = "".join(staying)
        self._buckets.append("".join(moving))
        if len(self._buckets) > mask:
            self._mask = 2 * mask + 1


def _ids_of(bucket: str) -> list[str]:
    return [bucket[at : at + _ID_CHARS] for at in range(0, len(bucket), _ID_CHARS)]


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

    def reset(self, generation: int, started: int, current: int, previous: int) -> None:
        """Forget everything, to ``restore`` so many ids of the two generations of a checkpoint."""
        self.generation, self.started = generation, started
        self.current = IdSet(min(current, SEEN_IDS_MAX))
        self.previous = IdSet(min(previous, SEEN_IDS_MAX))
        self.fresh = {}

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
