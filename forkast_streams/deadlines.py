"""Time limits of one length for many waits, with one timer of the event loop for all of them.

``asyncio.timeout`` makes a timer for each wait, and most waits end long before it: of an order that was a twentieth.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

# What uvloop's timers count in. One for less is called again and again until the time has come.
_TICK_S = 0.001


class Limited(Protocol):
    """A wait that may last so long."""

    def is_over(self) -> bool:
        """Whether it has ended."""

    def expire(self) -> None:
        """End it: its time is up."""


class Deadlines:
    """Waits in the order they began."""

    def __init__(self) -> None:
        self._waits: deque[tuple[float, Limited]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, wait: Limited, seconds: float) -> None:
        """Expire ``wait`` unless it is over in time; ``seconds`` are the same for all waits."""
        # The loop's clock and no other: that of a simulation is not the machine's.
        loop = asyncio.get_running_loop()
        waits = self._waits
        while waits and waits[0][1].is_over():
            waits.popleft()
        due = loop.time() + seconds
        waits.append((due, wait))
        if self._timer is None:
            self._timer = loop.call_at(due, self._expire)

    def _expire(self) -> None:
        loop, waits = asyncio.get_running_loop(), self._waits
        self._timer = None
        now = loop.time()
        while waits and (waits[0][0] <= now or waits[0][1].is_over()):
            _, wait = waits.popleft()
            if not wait.is_over():
                wait.expire()
        if waits:
            self._timer = loop.call_at(max(waits[0][0], now + _TICK_S), self._expire)
