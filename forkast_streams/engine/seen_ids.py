"""Order ids that were used, so that an order sent twice is one order.

Ids are kept in two generations. When the newer one is full or a window old, the older one is forgotten: an id is
remembered for at least one window unless the partition takes more orders than a generation holds.
"""

from __future__ import annotations

from forkast_streams.limits import SEEN_IDS_MAX, SEEN_WINDOW_MS


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
        self.current: set[str] = set()
        self.previous: set[str] = set()
        self.fresh: dict[int, list[str]] = {}

    def __contains__(self, order_id: str) -> bool:
        return order_id in self.current or order_id in self.previous

    def add(self, order_id: str, timestamp: int) -> None:
        """Remember ``order_id``, used at ``timestamp`` (milliseconds)."""
        current = self.current
        if current and (len(current) >= SEEN_IDS_MAX or timestamp - self.started >= SEEN_WINDOW_MS):
            self.previous = current
            self.current = current = set()
            self.generation += 1
        if not current:
            self.started = timestamp
        current.add(order_id)
        fresh = self.fresh.get(self.generation)
        if fresh is None:
            fresh = self.fresh[self.generation] = []
        fresh.append(order_id)
