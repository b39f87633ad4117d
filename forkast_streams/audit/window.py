"""Which order ids are known, by the rule of the exchange, for a reference that remembers no more than the engine does.

The rule (docs/wire.md): ids are kept in two generations. A new generation begins with the id that finds the current
one full or a day old by the time of the log; then the generation before it is forgotten.
"""

from __future__ import annotations

from collections.abc import Container

DAY_MS = 86_400_000
GENERATION_IDS = 1_000_000


class OrderIdWindow:
    """What the reference has in place of the set of all ids ever used.

    An id is also known while its order rests, however long ago it was accepted.

    Attributes:
        now: time of the log in milliseconds; to be set before each command.
        resting: the ids that are live in the partition; to be set before each command.
    """

    def __init__(self, *, generation_ids: int = GENERATION_IDS) -> None:
        self.now = 0
        self.resting: Container[str] = ()
        self._generation_ids = generation_ids
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._began = 0

    def __contains__(self, order_id: str) -> bool:
        packed = bytes.fromhex(order_id.replace("-", ""))
        return packed in self._newer or packed in self._older or order_id in self.resting

    def __len__(self) -> int:
        return len(self._newer) + len(self._older)

    def add(self, order_id: str) -> None:
        """Remember an id; one that is known already keeps its generation."""
        if order_id in self:
            return
        newer = self._newer
        if newer and (len(newer) >= self._generation_ids or self.now - self._began >= DAY_MS):
            self._older = newer
            self._newer = newer = set()
        if not newer:
            self._began = self.now
        newer.add(bytes.fromhex(order_id.replace("-", "")))
