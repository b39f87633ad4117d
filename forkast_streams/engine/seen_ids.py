"""Order ids that were used, so that an order sent twice is one order.

Ids are kept in two generations. When the newer one is full or a window old, the older one is forgotten: an id is
remembered for at least one window unless the partition takes more orders than a generation holds.
"""

from __future__ import annotations

from librt.strings import BytesWriter

from forkast_streams.engine.id_keys import OrderKey, write_key
from forkast_streams.engine.id_set import IdSet
from forkast_streams.limits import SEEN_IDS_MAX, SEEN_WINDOW_MS


class SeenIds:
    """The ids of the current and the previous generation.

    Attributes:
        generation: number of the current generation.
        started: time of its first id in milliseconds, 0 while it has none.
    """

    __slots__ = ("_fresh", "_writer", "current", "generation", "previous", "started")

    def __init__(self) -> None:
        self.generation = 1
        self.started = 0
        self.current = IdSet()
        self.previous = IdSet()
        self._fresh: dict[int, BytesWriter] = {}
        # That of the current generation; None until there is one.
        self._writer: BytesWriter | None = None

    def add(self, key: OrderKey, timestamp: int) -> bool:
        """Remember the id with this key, used at ``timestamp`` (milliseconds); return whether it was not known."""
        current = self.current
        if self.previous.has(key):
            return False
        if len(current) and (len(current) >= SEEN_IDS_MAX or timestamp - self.started >= SEEN_WINDOW_MS):
            if current.has(key):
                return False
            self.previous = current
            self.current = current = IdSet()
            self.generation += 1
            self._writer = None
        if not current.add(key):
            return False
        if len(current) == 1:
            self.started = timestamp
        fresh = self._writer
        if fresh is None:
            fresh = self._writer = self._fresh[self.generation] = BytesWriter()
        write_key(fresh, key)
        return True

    def drain_fresh(self) -> list[tuple[int, bytes]]:
        """The ids added since the last call, by generation, `ID_BYTES` each."""
        fresh, self._fresh, self._writer = self._fresh, {}, None
        return [(generation, ids.getvalue()) for generation, ids in fresh.items()]

    def reset(self, generation: int, started: int, current: int, previous: int) -> None:
        """Forget everything, to ``restore`` so many ids of the two generations of a checkpoint."""
        self.generation, self.started = generation, started
        self.current = IdSet(min(current, SEEN_IDS_MAX))
        self.previous = IdSet(min(previous, SEEN_IDS_MAX))
        self._fresh, self._writer = {}, None

    def restore(self, generation: int, ids: bytes) -> None:
        """Put back what ``drain_fresh`` gave, ids of generations that are forgotten aside."""
        if generation == self.generation:
            self.current.add_all(ids)
        elif generation == self.generation - 1:
            self.previous.add_all(ids)
