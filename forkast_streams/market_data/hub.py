"""Hands a symbol's changes to any number of subscribers, with one follower a symbol.

It reads Redis, or, where this process publishes the symbol itself, what that hands over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from forkast_streams.errors import Unavailable
from forkast_streams.limits import REDIS_BLOCK_S_MAX, STREAM_BYTES_WAITING_MAX
from forkast_streams.market_data.feed import Follower, LocalFeed
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.market_data.shared_books import beside_the_loop, shared_task
from forkast_streams.market_data.stored_book import Position, StoredBook, StoredChange

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Update:
    """A change, or a whole book where the changes do not go on.

    Attributes:
        position: where a reader is that has it.
        previous: the first sequence at which a reader can apply it; None for a whole book.
        frame: the server-sent event.
    """

    position: Position
    previous: int | None
    frame: bytes

    @classmethod
    def of_change(cls, change: StoredChange) -> Update:
        """A change as an event."""
        return cls(change.position, change.previous, _frame(change.position, change.json))

    @classmethod
    def of_book(cls, book: StoredBook) -> Update:
        """A whole book as an event."""
        json = b'{"type":"snapshot",%b}' % book.members()
        return cls(book.position, None, _frame(book.position, json))

    @property
    def is_snapshot(self) -> bool:
        """Whether it is a whole book."""
        return self.previous is None


class Snapshots:
    """Whole books as updates; one that may be long is made once for all who get it."""

    def __init__(self, reader: MarketDataReader) -> None:
        self._reader = reader
        self._made: WeakKeyDictionary[StoredBook, asyncio.Task[Update]] = WeakKeyDictionary()

    async def get(self, symbol_id: int) -> Update | None:
        """The book as it is now, or was a moment ago; None when the symbol is unknown.

        Raises:
            Unavailable: Redis does not answer.
        """
        book = await self._reader.book(symbol_id)
        if book is None:
            return None
        making = self._made.get(book)
        if making is None:
            making = self._made[book] = shared_task(beside_the_loop(book.size, Update.of_book, book))
        try:
            return await asyncio.shield(making)
        except Exception:
            self._made.pop(book, None)
            raise


class Subscription:
    """The updates of one symbol for one reader.

    Args:
        size_max: updates that may wait; a reader that lets more wait, or too many bytes of changes, is cut.
        cut: called, once, to cut it.
    """

    def __init__(self, symbol_id: int, size_max: int, cut: Callable[[], None]) -> None:
        self.symbol_id = symbol_id
        self._waiting: list[Update] = []
        self._waiting_bytes = 0
        self._size_max = size_max
        self._cut = cut
        self._arrived = asyncio.Event()
        self._is_closed = False

    async def take(self, within_s: float) -> list[Update] | None:
        """All updates that wait, none if none came within ``within_s``; None when there will be no more."""
        try:
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        except TimeoutError:
            return []
        if self._is_closed:
            return None
        self._arrived.clear()
        taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return taken

    def put(self, update: Update) -> None:
        """Let ``update`` wait; cut the reader when too many do."""
        if self._is_closed:
            return
        if update.is_snapshot:
            # Nobody needs what came before it.
            self._waiting.clear()
            self._waiting_bytes = 0
        else:
            self._waiting_bytes += len(update.frame)
        if len(self._waiting) >= self._size_max or self._waiting_bytes > STREAM_BYTES_WAITING_MAX:
            self.close()
            self._cut()
            return
        self._waiting.append(update)
        self._arrived.set()

    def close(self) -> None:
        """End the subscription; what still waits is forgotten."""
        self._is_closed = True
        self._waiting.clear()
        self._arrived.set()


class _SymbolHub:
    """Follows one symbol and broadcasts; goes on with a snapshot where the changes have a hole."""

    def __init__(
        self,
        reader: MarketDataReader,
        snapshots: Snapshots,
        feed: LocalFeed,
        follower: Follower,
        symbol_id: int,
        position: Position,
    ) -> None:
        self.subscriptions: set[Subscription] = set()
        self._reader = reader
        self._snapshots = snapshots
        self._feed = feed
        self._follower = follower
        self._symbol_id = symbol_id
        self._position = position
        self._is_current = True
        self.task = asyncio.create_task(self._follow(), name=f"changes of symbol {symbol_id}")

    async def _follow(self) -> None:
        backoff = _BACKOFF_FIRST_S
        while True:
            try:
                await self._advance()
                backoff = _BACKOFF_FIRST_S
            except Exception as exc:
                # Redis may come back with another state, or with none at first. Whatever else it is, followers must
                # not be left with a book that only looks quiet.
                if not isinstance(exc, Unavailable):
                    log.exception("the changes of symbol %d cannot be followed; trying again", self._symbol_id)
                self._is_current = False
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _BACKOFF_MAX_S)

    async def _advance(self) -> None:
        if not self._is_current:
            await self._start_anew()
            return
        changes = await self._next_changes()
        if not changes:
            # A Redis that lost something, or that has another log by now, would leave us waiting for ever.
            stored = await self._reader.position(self._symbol_id)
            if stored is None or not stored.continues(self._position):
                self._is_current = False
            elif stored.sequence > self._position.sequence:
                changes = await self._reader.changes_since(self._symbol_id, self._position) or []
                self._is_current = bool(changes)
        for change in changes:
            if change.previous is not None and self._position.continues(change.position):
                # What this process has published, and what was read already.
                continue
            if not change.continues(self._position):
                self._is_current = False
                return
            self._position = change.position
            self._broadcast(Update.of_change(change))

    async def _next_changes(self) -> list[StoredChange]:
        """What comes next, waiting about a second for it."""
        if self._feed.publishes(self._symbol_id):
            return await self._follower.take(REDIS_BLOCK_S_MAX)
        self._follower.clear()
        return await self._reader.wait_for_changes(self._symbol_id, self._position.sequence)

    def close(self) -> None:
        """End following."""
        self.task.cancel()
        self._feed.leave(self._follower)

    async def _start_anew(self) -> None:
        snapshot = await self._snapshots.get(self._symbol_id)
        if snapshot is None:
            raise Unavailable("the book is not in Redis any more; the keeper brings it back")
        self._position = snapshot.position
        self._is_current = True
        self._broadcast(snapshot)

    def _broadcast(self, update: Update) -> None:
        for subscription in self.subscriptions:
            subscription.put(update)


class Hubs:
    """The hubs of the symbols that somebody follows.

    Args:
        reader: where changes come from.
        feed: of those that this process publishes itself.
        size_max: updates that may wait for a subscriber.

    Attributes:
        snapshots: whole books, for subscribers to begin with.
    """

    def __init__(self, reader: MarketDataReader, feed: LocalFeed, *, size_max: int) -> None:
        self.snapshots = Snapshots(reader)
        self._reader = reader
        self._feed = feed
        self._size_max = size_max
        self._hubs: dict[int, _SymbolHub] = {}
        self._opening: dict[int, asyncio.Task[bool]] = {}
        # Those who wait for a hub to open: one that nobody has subscribed to yet is not to be closed before they have.
        self._subscribing: Counter[int] = Counter()
        self._is_closed = False

    @property
    def followed(self) -> dict[int, int]:
        """Number of subscribers by symbol."""
        return {symbol_id: len(hub.subscriptions) for symbol_id, hub in self._hubs.items()}

    async def subscribe(self, symbol_id: int, cut: Callable[[], None]) -> Subscription | None:
        """Subscribe to a symbol; None when it is unknown.

        A snapshot that is asked for after this call goes on with the subscription's updates, without a hole.

        Raises:
            Unavailable: Redis does not answer, or this process stops.
        """
        self._subscribing[symbol_id] += 1
        try:
            while (hub := self._hubs.get(symbol_id)) is None:
                if self._is_closed:
                    raise Unavailable("this process stops")
                if not await self._is_opened(symbol_id):
                    return None
            subscription = Subscription(symbol_id, self._size_max, cut)
            hub.subscriptions.add(subscription)
            return subscription
        finally:
            self._subscribing[symbol_id] -= 1
            self._close_unused(symbol_id)

    async def _is_opened(self, symbol_id: int) -> bool:
        """Open the symbol's hub, once for all who wait for it; False when the symbol is unknown."""
        opening = self._opening.get(symbol_id)
        if opening is None:
            opening = self._opening[symbol_id] = shared_task(self._open(symbol_id))
            opening.add_done_callback(lambda _: self._opening.pop(symbol_id))
        return await asyncio.shield(opening)

    async def _open(self, symbol_id: int) -> bool:
        # Followed before its position is read, so that no change gets lost in between.
        follower = self._feed.follow(symbol_id)
        try:
            position = await self._reader.position(symbol_id)
        except BaseException:
            self._feed.leave(follower)
            raise
        if position is None or self._is_closed:
            self._feed.leave(follower)
            return position is not None
        self._hubs[symbol_id] = _SymbolHub(self._reader, self.snapshots, self._feed, follower, symbol_id, position)
        self._close_unused(symbol_id)
        return True

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; the last one of a symbol ends its reader."""
        hub = self._hubs.get(subscription.symbol_id)
        if hub is not None:
            hub.subscriptions.discard(subscription)
            self._close_unused(subscription.symbol_id)

    def _close_unused(self, symbol_id: int) -> None:
        if self._subscribing[symbol_id]:
            return
        del self._subscribing[symbol_id]
        hub = self._hubs.get(symbol_id)
        if hub is not None and not hub.subscriptions:
            del self._hubs[symbol_id]
            hub.close()

    async def close(self) -> None:
        """End all subscriptions and readers."""
        self._is_closed = True
        hubs = list(self._hubs.values())
        self._hubs.clear()
        for hub in hubs:
            hub.close()
            for subscription in hub.subscriptions:
                subscription.close()
        await asyncio.gather(*(hub.task for hub in hubs), *self._opening.values(), return_exceptions=True)


def _frame(position: Position, json: bytes) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (position.event_id.encode(), json)
