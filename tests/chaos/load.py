"""Clients of the exchange under test: HTTP users with a journal, and a producer of commands."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from forkast_streams.topics import ORDERS_NEW, partition_for
from tests.chaos.exchange import Exchange
from tests.integration.exchange import PARTITIONS
from tests.unit.flows import mixed_flow, order_command

_USERS = ("alice", "bob", "carol", "david", "eve", "frank", "grace", "hank")
# Whole lots and prices on the grid for every demo symbol.
_HTTP_SYMBOLS = (1, 2, 3, 4, 5)
# Symbols that only the producer of commands uses, enough of them to reach every partition.
KAFKA_SYMBOLS = range(500, 530)
_REQUEST_S_MAX = 15.0


@dataclass(slots=True)
class Request:
    """A request as its client saw it; status 0 means that no answer came."""

    at: float
    seconds: float
    status: int
    order_id: str | None


@dataclass(slots=True)
class Journal:
    """All requests of a scenario."""

    requests: list[Request] = field(default_factory=list)

    def acknowledged(self) -> list[str]:
        """Ids of the orders that were answered with 201."""
        return [request.order_id for request in self.requests if request.status == 201 and request.order_id]

    def statuses(self) -> Counter[int]:
        """How often each status was answered."""
        return Counter(request.status for request in self.requests)

    def longest_s(self) -> float:
        """The longest any client waited."""
        return max((request.seconds for request in self.requests), default=0.0)

    def quantile_s(self, share: float, *, since: float = 0.0, until: float = float("inf")) -> float:
        """A quantile of the times of the requests answered with 201 that were sent in a span of monotonic seconds."""
        times = sorted(r.seconds for r in self.requests if r.status == 201 and since <= r.at < until)
        return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


class HttpLoad:
    """Users that place, amend and cancel orders, each waiting for its answer before it goes on."""

    def __init__(self, exchange: Exchange, seed: int, *, users: int = 4, pause_s: float = 0.05) -> None:
        self.journal = Journal()
        self._exchange = exchange
        self._seed = seed
        self._users = users
        self._pause_s = pause_s
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        for number in range(self._users):
            name = _USERS[number % len(_USERS)]
            self._tasks.append(asyncio.create_task(self._use(name, random.Random(self._seed * 1_000 + number))))

    async def stop(self) -> None:
        """Let each user finish its request."""
        self._stopping = True
        tasks, self._tasks = self._tasks, []
        await asyncio.gather(*tasks)

    async def _use(self, name: str, chance: random.Random) -> None:
        mine: list[str] = []
        async with client(name) as session:
            while not self._stopping:
                await asyncio.sleep(self._pause_s * (0.5 + chance.random()))
                if mine and chance.random() < 0.2:
                    await self._change(session, mine.pop(chance.randrange(len(mine))), chance)
                else:
                    request = await self.place(session, chance)
                    if request.order_id is not None:
                        mine.append(request.order_id)

    async def place(self, session: aiohttp.ClientSession, chance: random.Random) -> Request:
        """Place one order and note what came of it."""
        body = {
            "symbolId": chance.choice(_HTTP_SYMBOLS),
            "type": "LIMIT",
            "side": chance.choice(["BUY", "SELL"]),
            "quantity": chance.randint(1, 20),
            "price": 100 + chance.randint(-5, 5),
        }
        at = time.monotonic()
        status, answer = await call(session, "POST", f"{self._exchange.member('oms').url}/orders", body)
        request = Request(at, time.monotonic() - at, status, answer.get("orderId") if status == 201 else None)
        self.journal.requests.append(request)
        return request

    async def _change(self, session: aiohttp.ClientSession, order_id: str, chance: random.Random) -> None:
        url = f"{self._exchange.member('oms').url}/orders/{order_id}"
        if chance.random() < 0.5:
            await call(session, "DELETE", url, None)
        else:
            await call(session, "PATCH", url, {"quantity": chance.randint(1, 30)})


def client(name: str) -> aiohttp.ClientSession:
    """A session with a demo user's credentials; an answer may take a while, but not for ever."""
    credentials = base64.b64encode(f"{name}@example.com:{name}@example.com".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=_REQUEST_S_MAX))


async def call(session: aiohttp.ClientSession, method: str, url: str, body: Any) -> tuple[int, dict[str, Any]]:
    """Send a request; status 0 when no answer came."""
    try:
        async with session.request(method, url, json=body) as response:
            return response.status, await response.json()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, {}


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
