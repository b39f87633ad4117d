"""Measures how long the exchange takes to work again: matching, persisting, showing books, taking orders."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE
from tests.chaos.exchange import Exchange
from tests.chaos.load import probe_orders, send
from tests.chaos.traders import HttpLoad, call, client
from tests.integration.exchange import PARTITIONS

# Longer than every limit: what has not come back by then counts as never.
GIVE_UP_S = 120.0
_POLL_S = 0.05


class Follower:
    """Reads ``orders.exchange`` as it grows and knows how far the input of each partition has been answered.

    Attributes:
        answered: by input partition the largest input offset that has an event.
        events: by partition the offset after the last event read.
        sequences: that of each symbol's last trade, which no book may lack.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.answered: dict[int, int] = {}
        self.events: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)
        self.sequences: dict[int, int] = {}
        self._exchange = exchange
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with suppress(KafkaError, OSError):
                consumer = AIOKafkaConsumer(
                    bootstrap_servers=self._exchange.env["KAFKA_BROKERS"], metadata_max_age_ms=5_000
                )
                try:
                    await consumer.start()
                    await self._follow(consumer)
                finally:
                    await consumer.stop()
            await asyncio.sleep(0.2)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        tps = [TopicPartition(ORDERS_EXCHANGE, partition) for partition in range(PARTITIONS)]
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, self.events[tp.partition])
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                for record in records:
                    event = json.loads(record.value)
                    source, symbol_id = event["source"], event["symbolId"]
                    self.answered[tp.partition] = max(self.answered.get(tp.partition, -1), source["offset"])
                    if event["type"] == "TRADE":
                        # Not of any event: a book's sequence goes on only when there is something to see.
                        self.sequences[symbol_id] = max(self.sequences.get(symbol_id, 0), event["sequence"])
                self.events[tp.partition] = records[-1].offset + 1


class Recovery:
    """Times from a moment to the first success of each function of the exchange after it."""

    def __init__(self, exchange: Exchange, follower: Follower, http: HttpLoad) -> None:
        self._exchange = exchange
        self._follower = follower
        self._http = http

    async def measure(self, since: float) -> dict[str, float]:
        """Seconds from ``since`` (monotonic) until each works; ``inf`` for what does not within ``GIVE_UP_S``."""
        orders = asyncio.create_task(self._timed(since, self._orders_are_taken))
        matching = await self.matching(since)
        # What was matched by now is what the readers must have.
        persisted, book = await asyncio.gather(
            self._timed(since, self._persisted(dict(self._follower.events))),
            self._timed(since, self._shown(dict(self._follower.sequences))),
        )
        return {"matching": matching, "orders": await orders, "persisted": persisted, "book": book}

    async def matching(self, since: float) -> float:
        """Seconds from ``since`` until an order of each partition is answered."""
        return await self._timed(since, self._is_matched)

    async def _timed(self, since: float, wait: Callable[[], Awaitable[None]]) -> float:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                await wait()
        except TimeoutError:
            return float("inf")
        return time.monotonic() - since

    async def _is_matched(self) -> None:
        while True:
            with suppress(KafkaError, OSError):
                sent = await send(self._exchange, probe_orders())
                break
            await asyncio.sleep(_POLL_S)
        for metadata in sent:
            while self._follower.answered.get(metadata.partition, -1) < metadata.offset:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)

    async def _orders_are_taken(self) -> None:
        async with client("jack") as session:
            trader = self._http.trader("jack", session, random.Random(1))
            while (await trader.place()).status != 201:  # noqa: ASYNC110 - it is made true elsewhere
                await asyncio.sleep(_POLL_S)

    def _persisted(self, wanted: dict[int, int]) -> Callable[[], Awaitable[None]]:
        async def wait() -> None:
            async with Postgres(self._exchange.env["DATABASE_URL"], connections=1) as postgres:
                while True:
                    with suppress(Exception):
                        rows = await postgres.fetch('SELECT partition, "nextOffset" FROM "SinkProgress"')
                        reached = {int(row[0]): int(row[1]) for row in rows}
                        if all(reached.get(partition, 0) >= offset for partition, offset in wanted.items()):
                            return
                    await asyncio.sleep(_POLL_S)

        return wait

    def _shown(self, wanted: dict[int, int]) -> Callable[[], Awaitable[None]]:
        async def wait() -> None:
            keeper = self._exchange.member("keeper").url
            async with client("irene") as session:
                for symbol_id, sequence in wanted.items():
                    while await book_sequence(session, keeper, symbol_id) < sequence:  # noqa: ASYNC110
                        await asyncio.sleep(_POLL_S)

        return wait


async def book_sequence(session: aiohttp.ClientSession, keeper: str, symbol_id: int) -> int:
    """The sequence of the symbol's book; -1 when the keeper does not give it."""
    status, body = await call(session, "GET", f"{keeper}/order-book/{symbol_id}?depth=1", None)
    return int(body["orderBookSnapShotId"]) if status == 200 else -1
