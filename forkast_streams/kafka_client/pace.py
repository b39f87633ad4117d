"""How often a consumer fetches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to let more come between two fetches of a consumer that keeps up.

    Attributes:
        seconds: behind a fetch with records; 0: none. One that comes later than this anyway does not wait.
        busy_seconds: behind one with many; None: as behind any.
        busy_bytes: how many.
    """

    seconds: float = 0.0
    busy_seconds: float | None = None
    busy_bytes: int = 0

    def seconds_after(self, size: int) -> float:
        """How long to wait behind a fetch of ``size`` bytes."""
        return self.seconds if self.busy_seconds is None or size < self.busy_bytes else self.busy_seconds
