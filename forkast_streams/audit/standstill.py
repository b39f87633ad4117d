"""Notices that the engine or the sink stands still with work before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Seconds within which whoever is alive gets on.
STANDSTILL_S = 60.0


class Standstill:
    """How long each partition has been where it is.

    Args:
        who: what is to get on, for the sentence.
        clock: seconds that never go back.
    """

    def __init__(self, who: str, clock: Callable[[], float]) -> None:
        self._who = who
        self._clock = clock
        self._since: dict[int, tuple[int, float]] = {}

    def look(self, reached: Mapping[int, int], ends: Mapping[int, int]) -> str | None:
        """Take note of how far it is; a sentence if a partition has stood still before its end for too long."""
        now, stands = self._clock(), None
        for partition, end in ends.items():
            position = reached.get(partition, 0)
            if position >= end:
                self._since.pop(partition, None)
                continue
            before, since = self._since.get(partition, (position, now))
            self._since[partition] = position, since if before == position else now
            if before == position and now - since > STANDSTILL_S and stands is None:
                stands = f"{self._who} has stood at {position} of {end} of partition {partition} for over"
                stands = f"{stands} {STANDSTILL_S:g} s."
        return stands
