"""Keeps Redis at the books of this worker: changes while it answers, whole books when it lost something.

What Redis holds can always be written again from the books, so a Redis that is away stops nothing: changes are merged
while it is, and a symbol of which a write has failed is written whole when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from itertools import islice
from typing import Any

import msgspec
from mode import Service
from redis.exceptions import AuthenticationError, ResponseError

from forkast_streams.limits import PROBED_SYMBOLS_MAX, REDIS_WRITE_S_MAX
from forkast_streams.market_data.book import SymbolBook
from forkast_streams.market_data.changes import BookChange, LevelState
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.keys import COMPLETE, LEVEL_JSON, SymbolKeys
from forkast_streams.market_data.stored_book import StoredChange
from forkast_streams.storage.redis import REDIS_AWAY, connect

log = logging.getLogger(__name__)

_PUBLISH = (files(__package__) / "publish.lua").read_text()
_PROBE = (files(__package__) / "probe.lua").read_text()
# Of partitions whose books were found, unless Redis was flushed since it was begun to look for them.
_MARK_COMPLETE = """
for at = 2, #ARGV do
    if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 1 then
        redis.call('HSET', KEYS[1], ARGV[at], ARGV[1])
    end
end
"""
_PROBE_INTERVAL_S = 0.5
_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 1.0
_STOP_S_MAX = 1.5
# What one round trip carries: it must stay well within its time.
_CHANGES_AT_ONCE = 200
_WHOLE_LEVELS_AT_ONCE = 20_000
# Changed levels of a symbol that wait, above the number of its levels, before the whole book is less.
_WAITING_LEVELS_MAX = 1_000

_encode = msgspec.json.Encoder().encode


class RedisPublisher(Service):
    """Sends what ``publish`` hands over from a task of its own; nobody waits for Redis.

    While one round trip is under way changes are merged, so that there is always one at most behind them.

    Args:
        redis_url: where Redis is.
        feed: gets what Redis has taken.
    """

    def __init__(self, redis_url: str, feed: LocalFeed, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._redis = connect(redis_url, answer_s_max=REDIS_WRITE_S_MAX)
        self._feed = feed
        self._books: dict[int, SymbolBook] = {}
        self._changes: dict[int, BookChange] = {}
        # By symbol the script's mode.
        self._rewrites: dict[int, str] = {}
        self._ahead: dict[int, int] = {}
        self._wholes_under_way = 0
        self._foreign: set[int] = set()
        self._is_foreign_told = False
        self._probe_next: list[int] = []
        self._probe_at = 0.0
        self._partitions = 0
        self._caught_up: set[int] = set()
        # Partitions that are marked when the probe has found all books.
        self._unmarked: list[int] = []
        self._publish_sha = self._probe_sha = ""
        self._is_eviction_told = False
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        # Why Redis cannot be written; None while it can.
        self._lost: Exception | None = None

    def own(self, books: Mapping[int, Mapping[int, SymbolBook]], partitions: int) -> None:
        """Publish ``books`` from now on, and no others; those that Redis is behind of are found by the probe.

        Args:
            books: by partition and symbol.
            partitions: how many there are in all.
        """
        self._books = {symbol_id: book for of_partition in books.values() for symbol_id, book in of_partition.items()}
        self._partitions = partitions
        self._caught_up, self._unmarked = set(), []
        self._changes.clear()
        self._rewrites.clear()
        self._foreign.clear()
        self._ahead.clear()
        self._probe_anew()
        self._feed.own(self._books)
        self._wake.set()

    def publish(self, changes: Iterable[BookChange], books: Mapping[int, SymbolBook]) -> None:
        """Take over ``changes`` of ``books``; they reach Redis when it answers."""
        for change in changes:
            symbol_id = change.symbol_id
            if symbol_id in self._rewrites:
                # The whole book will have it, and nothing grows however long Redis is away.
                continue
            waiting = self._changes.get(symbol_id)
            if waiting is None:
                self._books[symbol_id] = books[symbol_id]
                self._changes[symbol_id] = change
                continue
            waiting.merge(change)
            levels = sum(books[symbol_id].size)
            if self._lost is not None and len(waiting.buy) + len(waiting.sell) > levels + _WAITING_LEVELS_MAX:
                del self._changes[symbol_id]
                self._rewrites[symbol_id] = "whole"
        self._wake.set()

    def caught_up(self, partition: int) -> None:
        """Take the books of ``partition`` for all that there are: when Redis has them, it knows all of its symbols."""
        self._caught_up.add(partition)

    def ahead(self) -> set[int]:
        """The symbols of which Redis has sequences that this keeper has not reached.

        To be expected while it catches up, and otherwise never: their log has lost its end.
        """
        return {symbol_id for symbol_id, sequence in self._ahead.items() if sequence > self._books[symbol_id].sequence}

    def write_anew(self, symbol_ids: Iterable[int]) -> None:
        """Write the whole books of ``symbol_ids`` over whatever Redis has of their logs; streams go on with them."""
        for symbol_id in symbol_ids:
            if symbol_id in self._books:
                self._rewrites[symbol_id] = "anew"
        self._wake.set()

    def why_not_ready(self) -> str | None:
        """A sentence while Redis does not hold the books."""
        if isinstance(self._lost, ResponseError | AuthenticationError):
            return f"Redis refuses to be written: {self._lost!r}"
        if self._lost is not None:
            return "Redis is out of reach; start it or set REDIS_URL"
        if self._foreign:
            return (
                f"Redis holds books of a newer log, of {len(self._foreign)} symbols such as {min(self._foreign)}; "
                "give each exchange a Redis of its own, or flush this one"
            )
        missing = len(self._rewrites) + self._wholes_under_way
        return f"{missing} books are not in Redis yet" if missing else None

    @Service.task
    async def _run(self) -> None:
        backoff = _BACKOFF_FIRST_S
        while not self.should_stop:
            try:
                await self._send()
                self._set_lost(None)
                backoff = _BACKOFF_FIRST_S
            except REDIS_AWAY as exc:
                self._publish_sha = ""
                self._set_lost(exc)
                await self.sleep(backoff)
                backoff = min(2 * backoff, _BACKOFF_MAX_S)
            else:
                await self._wait_for_work()

    async def _wait_for_work(self) -> None:
        # A probe of many symbols goes on at once, so that it begins twice a second with any number of them.
        if self._changes or self._rewrites or self._probe_next:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_INTERVAL_S):
                await self._wake.wait()

    async def on_stop(self) -> None:
        """Send what is left, if Redis answers soon."""
        try:
            async with asyncio.timeout(_STOP_S_MAX):
                while self._lost is None and (self._changes or self._rewrites):
                    await self._send()
        except REDIS_AWAY as exc:
            log.warning("the last changes are not in Redis; the next start brings them (%r)", exc)
        await self._redis.aclose()

    async def _send(self) -> None:
        """One round trip: changes and whole books that are due, and a look at what Redis holds."""
        async with self._sending, asyncio.timeout(REDIS_WRITE_S_MAX):
            await self._send_due()

    async def _send_due(self) -> None:
        self._wake.clear()
        if not self._publish_sha:
            await self._tell_of_eviction()
            self._probe_sha = await self._redis.script_load(_PROBE)
            self._publish_sha = await self._redis.script_load(_PUBLISH)
        await self._probe()
        due = self._take_due()
        if not due:
            return
        # Whatever becomes of the round trip, a symbol is clean only when Redis has answered for it.
        unanswered = set(due)
        self._wholes_under_way = sum(mode != "change" for mode, _ in due.values())
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for symbol_id, (mode, change) in due.items():
                    pipeline.evalsha(self._publish_sha, 5, *SymbolKeys.of(symbol_id), *_arguments(mode, change))
                answers = await pipeline.execute(raise_on_error=False)
            failure = None
            for (symbol_id, (mode, change)), answer in zip(due.items(), answers, strict=True):
                if isinstance(answer, Exception):
                    failure = answer
                elif answer != b"RESYNC":
                    unanswered.remove(symbol_id)
                    if mode == "anew":
                        self._ahead.pop(symbol_id, None)
                    self._set_foreign(symbol_id, is_foreign=answer == b"FOREIGN")
                    self._hand_on(symbol_id, change, answer)
        finally:
            self._wholes_under_way = 0
            # Some may be another keeper's by now.
            for symbol_id in unanswered & self._books.keys():
                self._rewrites.setdefault(symbol_id, "anew" if due[symbol_id][0] == "anew" else "whole")
        if failure is not None:
            raise failure

    async def _tell_of_eviction(self) -> None:
        """Warn, once, of a Redis that throws away what is old: of what is gone then a probe sees only a part."""
        if self._is_eviction_told:
            return
        with suppress(ResponseError):
            memory = await self._redis.info("memory")
            policy = str(memory.get("maxmemory_policy"))
            # Others take only what has a time to live, and books have none.
            if memory.get("maxmemory") and policy.startswith("allkeys"):
                self._is_eviction_told = True
                log.warning(
                    "Redis throws away books when its memory is full (maxmemory-policy %s): set volatile-ttl or "
                    "noeviction", policy,
                )  # fmt: skip

    def _hand_on(self, symbol_id: int, change: BookChange, answer: Any) -> None:
        """Tell this process's own streams what Redis tells all others."""
        if symbol_id not in self._books:
            # It went to another keeper meanwhile.
            return
        if isinstance(answer, list):
            log_name, *applied = answer
            previous, json = applied or (None, b"")
            stored = StoredChange(int(log_name), change.sequence, None if previous is None else int(previous), json)
            self._feed.publish(symbol_id, stored)

    def _take_due(self) -> dict[int, tuple[str, BookChange]]:
        due: dict[int, tuple[str, BookChange]] = {}
        levels = 0
        while self._rewrites and levels < _WHOLE_LEVELS_AT_ONCE:
            symbol_id, mode = self._rewrites.popitem()
            self._changes.pop(symbol_id, None)
            whole = self._books[symbol_id].whole()
            levels += len(whole.buy) + len(whole.sell) + len(whole.trades)
            due[symbol_id] = (mode, whole)
        for symbol_id in list(islice(self._changes, _CHANGES_AT_ONCE)):
            if symbol_id not in self._rewrites:
                due[symbol_id] = ("change", self._changes.pop(symbol_id))
        return due

    async def _probe(self) -> None:
        """Find symbols of which Redis has lost something: it was flushed, or came back with an older state."""
        # By the clock and not when nothing is to be sent: a busy symbol must not keep a quiet one from being found.
        if not self._probe_next:
            if (now := time.monotonic()) < self._probe_at:
                return
            self._probe_next, self._probe_at = list(self._books), now + _PROBE_INTERVAL_S
            await self._look_for_marks()
        probed, self._probe_next = self._probe_next[:PROBED_SYMBOLS_MAX], self._probe_next[PROBED_SYMBOLS_MAX:]
        if probed:
            await self._probe_symbols(probed)
        if self._unmarked and not self._probe_next and not self._rewrites:
            marked, self._unmarked = self._unmarked, []
            await self._redis.eval(_MARK_COMPLETE, 1, COMPLETE, self._partitions, *marked)

    async def _look_for_marks(self) -> None:
        caught_up, self._unmarked = self._caught_up, []
        partitions = sorted(caught_up)
        if not partitions:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition in partitions:
                pipeline.hsetnx(COMPLETE, partition, 0)
            pipeline.hmget(COMPLETE, partitions)
            *_, marks = await pipeline.execute()
        if self._caught_up is not caught_up:
            # They are other ones by now, and are looked at anew.
            return
        wanted = str(self._partitions).encode()
        self._unmarked = [partition for partition, mark in zip(partitions, marks, strict=True) if mark != wanted]

    async def _probe_symbols(self, probed: list[int]) -> None:
        # A change that waits explains why Redis is behind.
        behind = {symbol_id: self._expected(symbol_id) for symbol_id in probed}
        sizes = {symbol_id: self._books[symbol_id].size for symbol_id in probed if symbol_id not in self._changes}
        keys = [key for symbol_id in probed for key in SymbolKeys.of(symbol_id)[:3]]
        answers = await self._redis.evalsha(self._probe_sha, len(keys), *keys)
        for symbol_id, (born, sequence, *size) in zip(probed, answers, strict=True):
            expected, found = behind[symbol_id], (born, sequence)
            self._set_foreign(symbol_id, is_foreign=born > expected[0])
            book = self._books.get(symbol_id)
            if book is None:
                continue
            # A side that is gone by itself was evicted, or somebody has deleted it.
            is_damaged = found == expected and size != sizes.get(symbol_id, size)
            if expected[1] and (found < expected or is_damaged):
                self._rewrites.setdefault(symbol_id, "whole")
                self._unmarked = []
            if born == book.born and sequence > book.sequence:
                self._ahead[symbol_id] = sequence
            else:
                self._ahead.pop(symbol_id, None)

    def _set_foreign(self, symbol_id: int, *, is_foreign: bool) -> None:
        """Remember whether Redis has a newer log of the symbol than this keeper, which nothing is written over."""
        if not is_foreign or symbol_id not in self._books:
            self._foreign.discard(symbol_id)
            return
        self._foreign.add(symbol_id)
        if not self._is_foreign_told:
            self._is_foreign_told = True
            log.error("%s", self.why_not_ready())

    def _expected(self, symbol_id: int) -> tuple[int, int]:
        """The log and the sequence that Redis should be at."""
        book, waiting = self._books[symbol_id], self._changes.get(symbol_id)
        return book.born, book.published if waiting is None else waiting.previous

    def _set_lost(self, lost: Exception | None) -> None:
        if lost is not None and self._lost is None:
            log.warning("Redis cannot be written, books are kept and tried again: %r", lost)
        elif lost is None and self._lost is not None:
            log.info("Redis is written again")
            self._probe_anew()
        self._lost = lost

    def _probe_anew(self) -> None:
        self._probe_next, self._probe_at = [], 0.0


def _arguments(mode: str, change: BookChange) -> list[Any]:
    """The script's arguments."""
    arguments: list[Any] = [
        mode,
        change.born,
        change.previous,
        change.sequence,
        change.timestamp,
        f'"buy":{_changed_json(change.buy)},"sell":{_changed_json(change.sell)}}}' if mode == "change" else "",
        2 * len(change.buy),
        2 * len(change.sell),
    ]
    for levels in (change.buy, change.sell):
        for price, (quantity, orders) in levels.items():
            arguments += (price, f"{quantity} {orders}" if orders else "")
    for trade in change.trades:
        arguments += (trade.sequence, _encode(trade))
    return arguments


def _changed_json(levels: dict[str, LevelState]) -> str:
    parts = [LEVEL_JSON % (price, quantity, orders) for price, (quantity, orders) in levels.items()]
    return f"[{','.join(parts)}]"
