"""Time limits of one length for many waits, with one timer of the event loop for all of them.

``asyncio.timeout`` makes a timer for each wait, and most waits end long before it: of an order that was a twentieth.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol


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
        waits = self._waits
        while waits and waits[0][1].is_over():
            waits.popleft()
        waits.append((time.monotonic() + seconds, wait))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        waits, self._timer = self._waits, None
        now = time.monotonic()
        while waits and (waits[0][0] <= now or waits[0][1].is_over()):
            _, wait = waits.popleft()
            if not wait.is_over():
                wait.expire()
        if waits:
            self._timer = asyncio.get_running_loop().call_later(waits[0][0] - now, self._expire)
