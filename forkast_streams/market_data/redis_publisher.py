"""Publishes book changes to Redis, each symbol's change whole or not at all.

Redis may lose everything at any time: it is told which sequence a change begins at and says so when it is not there,
and then gets the whole book. An outage costs the agent a bounded wait a batch; what was missed is made up for later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import msgspec
from mode import Service

from forkast_streams.limits import CHANGES_KEPT, TAPE_TRADES_MAX
from forkast_streams.market_data.messages import change_message
from forkast_streams.market_data.state import BookChange, LevelView, MarketDataState
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient, connect

log = logging.getLogger(__name__)

_PUBLISH_S_MAX = 1.0
_REPAIR_EVERY_S = 1.0


class RedisPublisher(Service):
    """Keeps Redis at the state of the books this worker owns.

    Args:
        redis_url: where.
        is_caught_up: whether the worker has processed all its input; a Redis that is ahead even then holds another
            history, and is overwritten.
    """

    def __init__(self, redis_url: str, is_caught_up: Callable[[], bool], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._redis: RedisClient = connect(redis_url)
        self._script = self._redis.register_script(
            resources.files("forkast_streams.market_data").joinpath("publish.lua").read_text()
        )
        self._is_caught_up = is_caught_up
        self._states: Mapping[int, MarketDataState] = {}
        self._stale: set[int] = set()
        self._away = False
        self._busy = asyncio.Lock()

    @property
    def why_not_ready(self) -> str | None:
        """A sentence while Redis does not have the books as they are."""
        if self._away:
            return "Redis is not reachable"
        return f"{len(self._stale)} books are still to be published" if self._stale else None

    async def own(self, states: Mapping[int, MarketDataState]) -> None:
        """Take over the books of ``states``: they are published whole, as Redis may be anywhere."""
        self._states = states
        self._stale = {symbol_id for state in states.values() for symbol_id in state.books}

    async def publish(self, changes: Iterable[BookChange]) -> None:
        """Publish ``changes``; what cannot be published now is made up for by a repair."""
        wanted = [change for change in changes if change.symbol_id not in self._stale]
        if not wanted:
            return
        async with self._busy:
            try:
                async with asyncio.timeout(_PUBLISH_S_MAX):
                    async with self._redis.pipeline(transaction=False) as pipeline:
                        for change in wanted:
                            await self._add(pipeline, change, "delta")
                        answers = await pipeline.execute()
            except REDIS_AWAY as exc:
                self._note_outage(exc)
                self._stale.update(change.symbol_id for change in wanted)
                return
            self._away = False
            self._stale.update(
                change.symbol_id for change, answer in zip(wanted, answers, strict=True) if answer == b"RESYNC"
            )

    @Service.task
    async def _repair_in_time(self) -> None:
        """Publish stale books whole, and notice a Redis that lost them."""
        while not self.should_stop:
            await self.sleep(_REPAIR_EVERY_S)
            try:
                await self._notice_losses()
                for symbol_id in sorted(self._stale):
                    await self._publish_whole(symbol_id)
                if not self._stale:
                    await self._redis.set("books:published", 1)
                self._away = False
            except REDIS_AWAY as exc:
                self._note_outage(exc)

    async def _notice_losses(self) -> None:
        if not self._states or self._stale:
            return
        async with asyncio.timeout(_PUBLISH_S_MAX):
            if not await self._redis.exists("books:published"):
                await self.own(self._states)

    async def _publish_whole(self, symbol_id: int) -> None:
        async with self._busy:
            book = next((s.books[symbol_id] for s in self._states.values() if symbol_id in s.books), None)
            whole = book.whole() if book is not None else None
            if whole is None:
                return
            mode = "force" if self._is_caught_up() else "whole"
            async with asyncio.timeout(_PUBLISH_S_MAX):
                async with self._redis.pipeline(transaction=False) as pipeline:
                    await self._add(pipeline, whole, mode)
                    answers = await pipeline.execute()
            if answers[0] != b"AHEAD":
                self._stale.discard(symbol_id)

    async def _add(self, pipeline: Any, change: BookChange, mode: str) -> None:
        arguments: list[Any] = [
            mode,
            change.previous,
            change.sequence,
            change.timestamp,
            change.last_price or "",
            change_message(change),
            CHANGES_KEPT,
            TAPE_TRADES_MAX,
        ]
        for levels in (change.buy, change.sell):
            arguments.append(len(levels))
            for level in levels:
                arguments += (level.price, f"{level.quantity} {level.orders}" if level.orders else "")
        arguments.append(len(change.trades))
        for trade in change.trades:
            arguments += (trade.sequence, msgspec.json.encode(trade))
        await self._script(keys=book_keys(change.symbol_id), args=arguments, client=pipeline)

    def _note_outage(self, exc: BaseException) -> None:
        if not self._away:
            log.warning("Redis is away, the books are published when it is back: %r", exc)
        self._away = True

    async def on_stop(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def book_keys(symbol_id: int) -> list[str]:
    """The keys of a symbol: meta, bids, asks, changes, trades."""
    base = f"book:{symbol_id}"
    return [f"{base}:meta", f"{base}:buy", f"{base}:sell", f"{base}:changes", f"trades:{symbol_id}"]


def level_of(price: bytes, value: bytes) -> LevelView:
    """A level as Redis has it."""
    quantity, _, orders = value.decode().partition(" ")
    return LevelView(price.decode(), quantity, int(orders))
