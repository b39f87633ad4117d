"""Tells an event that comes again, byte for byte, from another event with its sequence.

An engine that starts again repeats events its predecessor has sent, and readers drop them. What they would drop without
a word is an engine that answers otherwise the second time: then the log tells two stories, and whoever reads it from
the start believes the first. The values themselves are remembered, not digests of them: to keep a reference costs a
few nanoseconds, a digest of each event would cost a fifth of a reader's time.
"""

from __future__ import annotations

from collections import deque

import msgspec
from msgspec import Struct

from forkast_streams.errors import CorruptLog
from forkast_streams.limits import REPEATS_EVENTS_MAX
from forkast_streams.undecodable import UNDECODABLE


class _Place(Struct, gc=False, rename="camel"):
    """All that is read of an event to find it again."""

    symbol_id: int
    sequence: int


_decode_place = msgspec.json.Decoder(_Place).decode


class RecentEvents:
    """The last events of one partition, some ``REPEATS_EVENTS_MAX`` of them, for comparison with what comes again.

    It is empty after a restart: a repeat of something older passes, and `forkast audit` reads the whole log.
    """

    def __init__(self) -> None:
        self._batches: deque[list[bytes | None]] = deque()
        self._count = 0
        # First value by symbol and sequence; there only while events come again, and one batch longer.
        self._index: dict[tuple[int, int], bytes] | None = None
        self._is_checked = False

    def remember(self, values: list[bytes | None]) -> None:
        """Take the values of a batch before it is looked at; some may be no events at all."""
        if self._index is not None:
            if self._is_checked:
                _add(self._index, values)
            else:
                self._index = None
        self._is_checked = False
        self._batches.append(values)
        self._count += len(values)
        while self._count > REPEATS_EVENTS_MAX and len(self._batches) > 1:
            self._count -= len(self._batches.popleft())

    def check(self, symbol_id: int, sequence: int, value: bytes | None) -> None:
        """Compare an event that comes again with the one that is remembered, if it still is.

        Raises:
            CorruptLog: they differ.
        """
        self._is_checked = True
        if self._index is None:
            self._index = {}
            for values in self._batches:
                _add(self._index, values)
        first = self._index.get((symbol_id, sequence), value)
        if first != value:
            raise CorruptLog(
                f"symbol {symbol_id} has two different events with sequence {sequence}: first {_start(first)}, then "
                f"{_start(value)}; an engine answered otherwise when it ran again: stop all engines, run `forkast "
                "audit` to see which of the two the readers hold, and let no two versions of the engine write."
            )


def _add(index: dict[tuple[int, int], bytes], values: list[bytes | None]) -> None:
    for value in values:
        try:
            place = _decode_place(value or b"")
        except UNDECODABLE:
            # The reader stops at it with an error of its own as soon as it gets there.
            continue
        index.setdefault((place.symbol_id, place.sequence), value or b"")


def _start(value: bytes | None) -> str:
    return (value or b"")[:300].decode(errors="replace")
