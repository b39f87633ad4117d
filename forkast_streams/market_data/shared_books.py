"""One read of a book for all who ask for it at the same time: a book may have hundreds of thousands of levels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from forkast_streams.errors import Unavailable
from forkast_streams.market_data.stored_book import StoredBook

P = ParamSpec("P")
T = TypeVar("T")

# Levels with which anything is done at once, within some milliseconds.
_LEVELS_AT_ONCE = 5_000
# Seconds a book is kept after somebody has asked for it.
_KEPT_S = 1.0


@dataclass(slots=True)
class _Reads:
    """The reads of one book.

    Attributes:
        lock: held during a read.
        begun: how many there were.
        answered: the number of the last one that was not broken off.
        book: what it found; None when there is no such symbol.
        failure: why it found nothing out, else None.
        not_before: when the next one may begin.
        forgotten: when all this is thrown away.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: int = 0
    answered: int = 0
    book: StoredBook | None = None
    failure: Unavailable | None = None
    not_before: float = 0.0
    forgotten: asyncio.TimerHandle | None = None


class SharedBooks:
    """Reads books. Each is at least as new as the request for it, and read during half of the time at most.

    Args:
        read: reads a book; gets the one that is known, which it may answer if it is still the newest.
    """

    def __init__(self, read: Callable[[int, StoredBook | None], Awaitable[StoredBook | None]]) -> None:
        self._read = read
        self._reads: dict[int, _Reads] = {}

    async def get(self, symbol_id: int) -> StoredBook | None:
        """The book; None when there is no such symbol.

        Raises:
            Unavailable: it cannot be read.
        """
        reads = self._reads.setdefault(symbol_id, _Reads())
        known = reads.begun
        try:
            async with reads.lock:
                # One that began before the call may have missed what the caller has seen of the book already.
                if reads.answered <= known:
                    await self._read_once(symbol_id, reads)
                if reads.failure is not None:
                    raise Unavailable(str(reads.failure)) from reads.failure
                return reads.book
        finally:
            self._forget_later(symbol_id, reads)

    async def _read_once(self, symbol_id: int, reads: _Reads) -> None:
        # Whoever asks while this waits shares the read.
        await asyncio.sleep(max(0.0, reads.not_before - time.monotonic()))
        reads.begun += 1
        began = time.monotonic()
        try:
            reads.book, reads.failure = await self._read(symbol_id, reads.book), None
        except Unavailable as exc:
            reads.book, reads.failure = None, exc
        reads.answered = reads.begun
        ended = time.monotonic()
        reads.not_before = ended + (ended - began)

    def _forget_later(self, symbol_id: int, reads: _Reads) -> None:
        if reads.forgotten is not None:
            reads.forgotten.cancel()
        reads.forgotten = asyncio.get_running_loop().call_later(_KEPT_S, self._forget, symbol_id, reads)

    def _forget(self, symbol_id: int, reads: _Reads) -> None:
        # Whoever holds the lock comes past here again.
        if not reads.lock.locked():
            self._reads.pop(symbol_id, None)


async def beside_the_loop(levels: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do ``work`` with so many levels, of many of them in a thread, so that no other request waits for all of it."""
    if levels <= _LEVELS_AT_ONCE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
