"""Whoever asks for a book gets one that is new enough, and of all who ask at once one reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from forkast_streams.errors import Unavailable
from forkast_streams.market_data import shared_books
from forkast_streams.market_data.shared_books import SharedBooks
from forkast_streams.market_data.stored_book import Position, StoredBook


class Source:
    """Books that can be held up; each read finds the sequence that there is when it begins."""

    def __init__(self) -> None:
        self.sequence = 1
        self.known: list[StoredBook | None] = []
        self.failure: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def read(self, symbol_id: int, known: StoredBook | None) -> StoredBook:
        """The book as it was when this began."""
        self.known.append(known)
        book = StoredBook.of(symbol_id, Position(1, self.sequence), 0, {}, {})
        await self.may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return book


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)


async def _asked(books: SharedBooks, times: int) -> list[asyncio.Task[StoredBook | None]]:
    tasks = [asyncio.create_task(books.get(7)) for _ in range(times)]
    await asyncio.sleep(0)
    return tasks


async def _begun(source: Source, books: SharedBooks) -> asyncio.Task[StoredBook | None]:
    """Whoever asked for a book that is being read, until the source may answer."""
    source.may_answer.clear()
    (first,) = await _asked(books, 1)
    await _until(lambda: len(source.known) == 1)
    return first


async def test_who_asks_during_a_read_shares_the_next_one() -> None:
    """That which is under way may have begun before what they have seen; a single other one serves them all."""
    source = Source()
    books = SharedBooks(source.read)
    first = await _begun(source, books)
    source.sequence = 2
    later = await _asked(books, 50)
    source.may_answer.set()
    found = [book.position.sequence for book in await asyncio.gather(first, *later) if book is not None]
    assert found == [1] + [2] * 50
    assert len(source.known) == 2


async def test_a_book_that_is_known_is_handed_to_the_next_read() -> None:
    """Which may answer it when nothing has changed."""
    source = Source()
    books = SharedBooks(source.read)
    book = await books.get(7)
    await books.get(7)
    assert source.known == [None, book]


async def test_a_failure_is_shared_and_forgotten() -> None:
    """Nobody waits in a line of requests each of which finds out for itself that Redis is away."""
    source = Source()
    books = SharedBooks(source.read)
    first = await _begun(source, books)
    source.failure = Unavailable("Redis does not answer")
    later = await _asked(books, 50)
    source.may_answer.set()
    failures = await asyncio.gather(first, *later, return_exceptions=True)
    assert [type(failure) for failure in failures] == [Unavailable] * 51
    assert len(source.known) == 2
    source.failure = None
    assert await books.get(7) is not None


async def test_a_reader_that_is_gone_leaves_the_others_a_read_of_their_own() -> None:
    """Its client has closed the connection in the middle of it."""
    source = Source()
    books = SharedBooks(source.read)
    gone = await _begun(source, books)
    waiting = await _asked(books, 2)
    gone.cancel()
    source.may_answer.set()
    assert all(await asyncio.gather(*waiting))
    assert len(source.known) == 2


async def test_reads_take_half_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """After one that took long there is none for as long, and who asks then shares the next one."""
    now = 100.0
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def read(symbol_id: int, _known: StoredBook | None) -> StoredBook:
        nonlocal now
        now += 0.25
        return StoredBook.of(symbol_id, Position(1, 1), 0, {}, {})

    monkeypatch.setattr(shared_books, "monotonic", lambda: now)
    monkeypatch.setattr(shared_books, "sleep", sleep)
    books = SharedBooks(read)
    await books.get(7)
    now += 0.1
    await books.get(7)
    now += 10
    await books.get(7)
    assert slept == pytest.approx([0.0, 0.15, 0.0])


async def test_a_book_nobody_asks_for_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many symbols are asked for, the memory is that of the last moment."""
    monkeypatch.setattr(shared_books, "_KEPT_S", 0.001)
    books = SharedBooks(Source().read)
    await books.get(7)
    async with asyncio.timeout(10):
        while books._reads:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)
