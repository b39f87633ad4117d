"""Hands what this process publishes to its own streams, without the way back from Redis.

A change is handed over once Redis has it, as Redis has it, so a client sees the same whichever process it asks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from forkast_streams.market_data.stored_book import StoredChange

# As many changes, and bytes of them, as Redis keeps or less: a hub that lets more wait reads the book.
_WAITING_MAX = 1_000
_WAITING_BYTES_MAX = 16 * 1024 * 1024


class Follower:
    """What was published of one symbol and is not taken yet."""

    def __init__(self, symbol_id: int) -> None:
        self.symbol_id = symbol_id
        self._waiting: list[StoredChange] = []
        self._waiting_bytes = 0
        self._arrived: asyncio.Future[None] | None = None

    def put(self, change: StoredChange) -> None:
        """Let ``change`` wait; of too many only the last one does, and it is a hole."""
        self._waiting_bytes += len(change.json)
        if len(self._waiting) >= _WAITING_MAX or self._waiting_bytes > _WAITING_BYTES_MAX:
            self._waiting.clear()
            self._waiting_bytes = len(change.json)
        self._waiting.append(change)
        self.wake()

    def wake(self) -> None:
        """End a wait."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._waiting_bytes = 0

    async def take(self, within_s: float) -> list[StoredChange]:
        """All changes that wait, oldest first; none if none came within ``within_s`` or somebody else publishes."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            self._arrived = loop.create_future()
            timer = loop.call_later(within_s, self.wake)
            try:
                await self._arrived
            finally:
                timer.cancel()
                self._arrived = None
        taken, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return taken


class LocalFeed:
    """The symbols that this process publishes, and who follows them here."""

    def __init__(self) -> None:
        self._published: set[int] = set()
        self._followers: defaultdict[int, set[Follower]] = defaultdict(set)

    def own(self, symbol_ids: Iterable[int]) -> None:
        """From now on this process publishes ``symbol_ids`` and no others."""
        self._published = set(symbol_ids)
        for followers in self._followers.values():
            for follower in followers:
                follower.wake()

    def publishes(self, symbol_id: int) -> bool:
        """Whether the symbol's changes are handed over here."""
        return symbol_id in self._published

    def publish(self, symbol_id: int, change: StoredChange) -> None:
        """Hand over a change that Redis has."""
        self._published.add(symbol_id)
        for follower in self._followers.get(symbol_id, ()):
            follower.put(change)

    def follow(self, symbol_id: int) -> Follower:
        """Follow a symbol from here on, whoever publishes it."""
        follower = Follower(symbol_id)
        self._followers[symbol_id].add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no more."""
        followers = self._followers[follower.symbol_id]
        followers.discard(follower)
        if not followers:
            del self._followers[follower.symbol_id]
