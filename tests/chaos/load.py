"""A producer of commands that shares the log with the OMS, as the exchange's other producers do."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from forkast_streams.topics import ORDERS_NEW, partition_for
from tests.chaos.exchange import Exchange
from tests.chaos.traders import EXPIRES_MS_MAX
from tests.integration.exchange import PARTITIONS
from tests.support.flows import START_MS, mixed_flow, order_command

# Symbols that only the producer of commands uses, enough of them to reach every partition.
KAFKA_SYMBOLS = range(500, 530)


class KafkaLoad:
    """Mixed commands of many symbols at a steady rate, straight into the log."""

    def __init__(self, exchange: Exchange, seed: int, *, rate: float = 1_000.0) -> None:
        self.rate = rate
        self.extra: list[tuple[int, bytes]] = []
        self._exchange = exchange
        self._flows = {s: self._flow(seed, s) for s in KAFKA_SYMBOLS}
        self._task: asyncio.Task[None] | None = None

    @staticmethod
    def _flow(seed: int, symbol_id: int) -> Iterator[bytes]:
        for round_number in itertools.count():
            for command in mixed_flow(5_000, seed=seed * 7_919 + symbol_id + round_number * 31, symbol_id=symbol_id):
                if "expiresAt" in command:
                    # The flow's time is not the log's: what lies ahead in the one must do so in the other.
                    ahead_ms = (command["expiresAt"] - START_MS) % EXPIRES_MS_MAX
                    command = command | {"expiresAt": int(time.time() * 1_000) + ahead_ms}
                yield json.dumps(command).encode()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; what was sent and not acknowledged may be in the log or not."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            # A producer that lost its place in an outage is of no use any more.
            with suppress(KafkaError, OSError, TimeoutError):
                async with _producer(self._exchange) as producer:
                    await self._produce(producer)
            await asyncio.sleep(0.2)

    async def _produce(self, producer: AIOKafkaProducer) -> None:
        interval = 0.05
        while True:
            began = time.monotonic()
            symbols = random.Random(began).sample(list(KAFKA_SYMBOLS), 10)
            each = max(1, int(self.rate * interval / len(symbols)))
            records = [(s, next(self._flows[s])) for s in symbols for _ in range(each)]
            extra, self.extra = self.extra, []
            await send_all(producer, records + extra)
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))


async def send_all(producer: AIOKafkaProducer, records: list[tuple[int, bytes]]) -> list[Any]:
    """Send records to their symbols' partitions and return their metadata, in this order."""
    sent = [
        await producer.send(
            ORDERS_NEW, value, key=str(symbol_id).encode(), partition=partition_for(symbol_id, PARTITIONS)
        )
        for symbol_id, value in records
    ]
    return await asyncio.gather(*sent)


@asynccontextmanager
async def _producer(exchange: Exchange) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=exchange.env["KAFKA_BROKERS"],
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=8_000,
        metadata_max_age_ms=5_000,
    )
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()


async def send(exchange: Exchange, records: list[tuple[int, bytes]]) -> list[Any]:
    """Send records with a producer of their own; see `send_all`."""
    async with _producer(exchange) as producer:
        return await send_all(producer, records)


def probe_orders() -> list[tuple[int, bytes]]:
    """One order for each partition that rests far from everything else."""
    homes: dict[int, int] = {}
    for symbol_id in KAFKA_SYMBOLS:
        homes.setdefault(partition_for(symbol_id, PARTITIONS), symbol_id)
    assert len(homes) == PARTITIONS, "the symbols do not reach every partition"
    return [
        (symbol_id, json.dumps(order_command(symbol_id, id=str(uuid.uuid4()), userId=7, price="1.00")).encode())
        for symbol_id in homes.values()
    ]
