"""Reads books, changes and trades from Redis; see ``keys`` for where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from forkast_streams.errors import Unavailable
from forkast_streams.limits import REDIS_BLOCK_S_MAX, REDIS_TIMEOUT_S
from forkast_streams.market_data.keys import COMPLETE, SymbolKeys
from forkast_streams.market_data.shared_books import SharedBooks, beside_the_loop
from forkast_streams.market_data.stored_book import Position, StoredBook, StoredChange

T = TypeVar("T")

_CHANGES_WAIT_MS = int(REDIS_BLOCK_S_MAX * 1000)
# Bytes of changes that are sent to who missed them. One that missed more gets the book, which all share.
_MISSED_BYTES_MAX = 256 * 1024
_MISSED_AT_ONCE = 100
_POSITION = ["born", "sequence", "rewritten"]


class MarketDataReader:
    """The market data in Redis.

    All methods raise ``Unavailable`` when Redis does not answer in time or has lost the books, and answer None for an
    unknown symbol.

    Args:
        redis: the client.
        waiting: one for what waits for changes, a connection for each symbol: it must not take those of all others.
    """

    def __init__(self, redis: Redis, waiting: Redis | None = None) -> None:
        self._redis = redis
        self._waiting = waiting or redis
        self._books = SharedBooks(self._read_book)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._waiting.aclose()

    async def position(self, symbol_id: int) -> Position | None:
        """Where the symbol's book is."""
        return _position(await _answer(self._redis.hmget(SymbolKeys.of(symbol_id).meta, _POSITION)))

    async def book(self, symbol_id: int) -> StoredBook | None:
        """The whole book at one moment, no earlier than that of the call."""
        return await self._books.get(symbol_id)

    async def _read_book(self, symbol_id: int, known: StoredBook | None) -> StoredBook | None:
        keys = SymbolKeys.of(symbol_id)
        if known is not None and await self.position(symbol_id) == known.position:
            return known
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.meta, [*_POSITION, "timestamp"])
            pipeline.hgetall(keys.buy)
            pipeline.hgetall(keys.sell)
            meta, buy, sell = await _answer(pipeline.execute())
        position = _position(meta)
        if position is None:
            await self._require_books()
            return None
        size = len(buy) + len(sell)
        return await beside_the_loop(size, StoredBook.of, symbol_id, position, int(meta[-1]), buy, sell)

    async def trades(self, symbol_id: int, limit: int) -> list[bytes] | None:
        """The last ``limit`` trades as JSON, newest first."""
        keys = SymbolKeys.of(symbol_id)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.exists(keys.meta)
            pipeline.xrevrange(keys.trades, count=limit)
            exists, entries = await _answer(pipeline.execute())
        if not exists:
            await self._require_books()
            return None
        return [fields[b"json"] for _, fields in entries]

    async def _require_books(self) -> None:
        complete = [int(partitions) for partitions in await _answer(self._redis.hvals(COMPLETE))]
        if not complete or 0 in complete or len(complete) < max(complete):
            raise Unavailable("not all books are in Redis yet, or it has lost some")

    async def changes_since(self, symbol_id: int, earlier: Position) -> list[StoredChange] | None:
        """Exactly what a reader that has the book at ``earlier`` has missed.

        None when that is not known any more, or is long.
        """
        keys = SymbolKeys.of(symbol_id)
        missed: list[StoredChange] = []
        reached, size = earlier, 0
        while True:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hmget(keys.meta, _POSITION)
                pipeline.xrange(keys.changes, min=f"({reached.sequence}-0", count=_MISSED_AT_ONCE)
                meta, entries = await _answer(pipeline.execute())
            position = _position(meta)
            if position is None or not position.continues(reached):
                return None
            for change in map(StoredChange.of, entries):
                size += len(change.json)
                if size > _MISSED_BYTES_MAX or not change.continues(reached):
                    return None
                missed.append(change)
                reached = change.position
            if len(entries) < _MISSED_AT_ONCE:
                return missed if reached == position else None

    async def wait_for_changes(self, symbol_id: int, sequence: int) -> list[StoredChange]:
        """The changes behind ``sequence``, waiting about a second for the first; empty when there is none."""
        key = SymbolKeys.of(symbol_id).changes
        read = self._waiting.xread({key: f"{sequence}-0"}, block=_CHANGES_WAIT_MS)
        streams: Any = await _answer(read, within_s=_CHANGES_WAIT_MS / 1000 + REDIS_TIMEOUT_S)
        return [StoredChange.of(entry) for _, entries in streams or () for entry in entries]


async def _answer(command: Awaitable[T], *, within_s: float = REDIS_TIMEOUT_S) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await command
    except (RedisError, OSError, TimeoutError) as exc:
        raise Unavailable(f"Redis does not answer: {exc!r}") from exc


def _position(meta: list[Any]) -> Position | None:
    born, sequence, rewritten = meta[:3]
    return None if born is None or sequence is None else Position(int(born) + int(rewritten or 0), int(sequence))
