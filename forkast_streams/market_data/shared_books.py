"""One read of a book for all who ask for it at the same time: a book may have hundreds of thousands of levels."""

from __future__ import annotations

import asyncio
from asyncio import sleep
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, ParamSpec, TypeVar

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
        next: one that has not begun, for whoever asks now.
        current: one that has.
        book: what the last one found.
        not_before: when the next one may begin.
        forgotten: when all this is thrown away.
    """

    next: asyncio.Task[StoredBook | None] | None = None
    current: asyncio.Task[StoredBook | None] | None = None
    book: StoredBook | None = None
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
        # One that has begun may have missed what the caller has seen of the book already.
        if reads.next is None:
            reads.next = shared_task(self._read_next(symbol_id, reads))
        return await asyncio.shield(reads.next)

    async def _read_next(self, symbol_id: int, reads: _Reads) -> StoredBook | None:
        if reads.current is not None:
            await asyncio.wait({reads.current})
        await sleep(max(0.0, reads.not_before - monotonic()))
        reads.current, reads.next = reads.next, None
        began = monotonic()
        known, reads.book = reads.book, None
        try:
            reads.book = await self._read(symbol_id, known)
            return reads.book
        finally:
            ended = monotonic()
            reads.not_before = ended + (ended - began)
            reads.current = None
            if reads.forgotten is not None:
                reads.forgotten.cancel()
            reads.forgotten = asyncio.get_running_loop().call_later(_KEPT_S, self._forget, symbol_id, reads)

    def _forget(self, symbol_id: int, reads: _Reads) -> None:
        # A read comes past here again.
        if reads.next is None and reads.current is None:
            del self._reads[symbol_id]


def shared_task(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task for whoever waits for it; when nobody does any more, its failure is nobody's either."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


async def beside_the_loop(levels: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do ``work`` with so many levels, of many of them in a thread, so that no other request waits for all of it."""
    if levels <= _LEVELS_AT_ONCE:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
