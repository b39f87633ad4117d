"""Moments at which something is due, in the log's time."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

# The largest number that compiled code has without an object.
NEVER: Final = (1 << 62) - 1


class Timers:
    """One moment (milliseconds) a key, the earliest at hand.

    Attributes:
        moments: by key.
    """

    __slots__ = ("_heap", "moments")

    def __init__(self) -> None:
        self.moments: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def set(self, key: int, moment: int) -> None:
        """Let ``key`` be due at ``moment`` and at no other."""
        self.moments[key] = moment
        heappush(self._heap, (moment, key))
        # What was dropped stays in the heap until it comes up; timers that are set again and again must not pile up.
        if len(self._heap) > 2 * len(self.moments) + 64:
            self._heap = [(moment, key) for key, moment in self.moments.items()]
            heapify(self._heap)

    def drop(self, key: int) -> None:
        """Forget ``key``, if it is known."""
        self.moments.pop(key, None)

    def first(self) -> int:
        """The earliest moment; NEVER when there is none."""
        heap, moments = self._heap, self.moments
        while heap and moments.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else NEVER

    def drain_due(self, now: int) -> list[int]:
        """Remove and return the keys that are due at ``now``: the earliest first, then the smallest key."""
        due: list[int] = []
        while self.first() <= now:
            _, key = heappop(self._heap)
            del self.moments[key]
            due.append(key)
        return due
