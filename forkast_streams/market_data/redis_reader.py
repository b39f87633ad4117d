"""Reads books, changes and trades from Redis; see ``keys`` for where they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from forkast_streams.errors import Unavailable
from forkast_streams.limits import REDIS_BLOCK_S_MAX, REDIS_TIMEOUT_S
from forkast_streams.market_data.keys import PUBLISHED, SymbolKeys, levels_json

T = TypeVar("T")

_CHANGES_WAIT_MS = int(REDIS_BLOCK_S_MAX * 1000)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a symbol is: its log, by the time of its first event in milliseconds, and the sequence there."""

    born: int
    sequence: int

    def continues(self, earlier: Position) -> bool:
        """Whether this is ``earlier`` or behind it in the same log."""
        return self.born == earlier.born and self.sequence >= earlier.sequence


@dataclass(frozen=True, slots=True)
class StoredBook:
    """A book as Redis holds it; sides best first, each level as price, quantity, number of orders."""

    symbol_id: int
    position: Position
    timestamp: int
    buy: list[tuple[str, str, str]]
    sell: list[tuple[str, str, str]]

    def sides_json(self, depth: int | None = None) -> str:
        """The best ``depth`` levels a side (default: all) as members of a JSON object."""
        return f'"buy":{levels_json(self.buy[:depth])},"sell":{levels_json(self.sell[:depth])}'


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A change, from any sequence from ``previous`` on to ``sequence``.

    Attributes:
        previous: None when the book was written anew: what readers have is not to be continued.
    """

    sequence: int
    previous: int | None
    json: bytes

    @classmethod
    def of(cls, entry: tuple[bytes, dict[bytes, bytes]]) -> Self:
        """From a stream's entry."""
        entry_id, fields = entry
        previous = fields.get(b"previous")
        return cls(
            int(entry_id.partition(b"-")[0]), None if previous is None else int(previous), fields.get(b"json", b"")
        )

    def continues(self, sequence: int) -> bool:
        """Whether a reader that has the book at ``sequence`` can apply this change."""
        return self.previous is not None and self.previous <= sequence < self.sequence


class MarketDataReader:
    """The market data in Redis.

    All methods raise ``Unavailable`` when Redis does not answer in time or has lost the books, and answer None for an
    unknown symbol.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def position(self, symbol_id: int) -> Position | None:
        """Where the symbol's book is."""
        return _position(await _answer(self._redis.hmget(SymbolKeys.of(symbol_id).meta, ["born", "sequence"])))

    async def book(self, symbol_id: int) -> StoredBook | None:
        """The whole book at one moment."""
        keys = SymbolKeys.of(symbol_id)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.meta, ["born", "sequence", "timestamp"])
            pipeline.hgetall(keys.buy)
            pipeline.hgetall(keys.sell)
            meta, buy, sell = await _answer(pipeline.execute())
        position = _position(meta)
        if position is None:
            await self._require_books()
            return None
        return StoredBook(symbol_id, position, int(meta[2]), _levels(buy, best_is_high=True), _levels(sell))

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
        if not await _answer(self._redis.exists(PUBLISHED)):
            raise Unavailable("the books are not in Redis yet, or it has lost them")

    async def changes_since(self, symbol_id: int, sequence: int) -> list[StoredChange] | None:
        """Exactly what a reader that has the book at ``sequence`` has missed; None when that is not known any more."""
        keys = SymbolKeys.of(symbol_id)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.meta, ["born", "sequence"])
            pipeline.xrange(keys.changes, min=f"({sequence}-0")
            meta, entries = await _answer(pipeline.execute())
        position = _position(meta)
        if position is None or sequence > position.sequence:
            return None
        changes = [StoredChange.of(entry) for entry in entries]
        reached = sequence
        for change in changes:
            if not change.continues(reached):
                return None
            reached = change.sequence
        return changes if reached == position.sequence else None

    async def wait_for_changes(self, symbol_id: int, sequence: int) -> list[StoredChange]:
        """The changes behind ``sequence``, waiting about a second for the first; empty when there is none."""
        key = SymbolKeys.of(symbol_id).changes
        read = self._redis.xread({key: f"{sequence}-0"}, block=_CHANGES_WAIT_MS)
        streams: Any = await _answer(read, within_s=_CHANGES_WAIT_MS / 1000 + REDIS_TIMEOUT_S)
        return [StoredChange.of(entry) for _, entries in streams or () for entry in entries]


async def _answer(command: Awaitable[T], *, within_s: float = REDIS_TIMEOUT_S) -> T:
    try:
        async with asyncio.timeout(within_s):
            return await command
    except (RedisError, OSError, TimeoutError) as exc:
        raise Unavailable(f"Redis does not answer: {exc!r}") from exc


def _position(meta: list[Any]) -> Position | None:
    return None if meta[0] is None or meta[1] is None else Position(int(meta[0]), int(meta[1]))


def _levels(stored: dict[bytes, bytes], *, best_is_high: bool = False) -> list[tuple[str, str, str]]:
    levels = []
    # The prices of a symbol have one number of decimals, so of two the longer is the higher.
    for price in sorted(stored, key=lambda text: (len(text), text), reverse=best_is_high):
        quantity, _, orders = stored[price].partition(b" ")
        levels.append((price.decode(), quantity.decode(), orders.decode()))
    return levels
