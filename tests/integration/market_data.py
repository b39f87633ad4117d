"""What tests of published market data need: a keeper without Kafka, and a client that follows a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.market_data.hub import Hubs
from forkast_streams.market_data.keys import COMPLETE
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.storage.redis import connect
from tests.support.flows import order_command, records_of
from tests.support.market_events import HOME, PARTITIONS, SYMBOL, EnginePartition, EventRecord
from web import errors
from web.market_data import TradesView
from web.order_book import OrderBookView
from web.streams import OrderBookStream

STREAM = f"/order-book/{SYMBOL}/stream"


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, *, within_s: float = 10.0) -> Any:
    """Poll ``condition`` until it gives something that is true; return that."""
    deadline = time.monotonic() + within_s
    while not (result := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {within_s:g} s")
        await asyncio.sleep(0.02)
    return result


class Keeper:
    """Engine, fold and publisher in one, fed with commands; ``feed`` gets what is published, for streams beside it."""

    def __init__(self, redis_url: str, feed: LocalFeed | None = None) -> None:
        self.redis: Redis = connect(redis_url)
        self.publisher = RedisPublisher(redis_url, feed or LocalFeed())
        self.engine = EnginePartition(HOME, PARTITIONS)
        self.state = MarketDataState(HOME)
        self._events = 0

    async def __aenter__(self) -> Keeper:
        self.own()
        await self.publisher.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.publisher.stop()
        await self.redis.aclose()

    def own(self) -> None:
        """Publish the books of the only partition, which has read all of its log."""
        self.publisher.own({HOME: self.state.books}, 1)
        self.publisher.caught_up(HOME)

    def feed(self, commands: list[dict[str, Any]]) -> None:
        """Process ``commands`` and hand over what changed."""
        outputs = self.engine.process(records_of(commands, first_offset=self.engine.next_offset))
        records = [EventRecord(at, event.value) for at, event in enumerate(outputs.events, start=self._events)]
        self._events += len(records)
        self.publisher.publish(self.state.apply(records), self.state.books)

    async def is_published(self, symbol_id: int) -> None:
        """Return when Redis has the symbol's book as it is here."""
        wanted = str(self.state.books[symbol_id].published).encode()

        async def has_it() -> bool:
            return int(await self.redis.hget(f"book:{symbol_id}:meta", "sequence") or 0) >= int(wanted)

        await eventually(has_it, f"sequence {wanted.decode()} in Redis")

    async def is_complete(self) -> None:
        """Return when Redis is known to have all books."""

        async def is_marked() -> bool:
            return await self.redis.hget(COMPLETE, str(HOME)) == b"1"

        await eventually(is_marked, "the mark of a complete partition")

    async def stored_depth(self, symbol_id: int) -> dict[str, dict[str, tuple[str, int]]]:
        """The depth in Redis, as ``depth_of`` gives it."""
        depth: dict[str, dict[str, tuple[str, int]]] = {}
        for side in ("BUY", "SELL"):
            levels = await self.redis.hgetall(f"book:{symbol_id}:{side.lower()}")
            parts = {price.decode(): value.decode().split() for price, value in levels.items()}
            depth[side] = {price: (quantity, int(orders)) for price, (quantity, orders) in parts.items()}
        return depth


class BookFollower:
    """Holds a book by the rule of the stream: a snapshot whole, then the levels of each change."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.kinds: list[str] = []
        self.sequence = 0
        self.event_id = ""
        self.sides: dict[str, dict[str, dict[str, Any]]] = {"buy": {}, "sell": {}}

    async def next(self) -> dict[str, Any]:
        """Apply the next event and return it."""
        event_id = ""
        while line := await asyncio.wait_for(self.response.content.readline(), 10):
            if line.startswith(b"id: "):
                event_id = line[4:].decode().strip()
            if line.startswith(b"data: "):
                data: dict[str, Any] = json.loads(line[6:])
                assert str(data["orderBookSnapShotId"]) == event_id.partition("-")[0]
                self._apply(data)
                self.event_id = event_id
                return data
        raise ConnectionResetError("the stream has ended")

    async def until(self, sequence: int) -> None:
        """Follow until the book is at ``sequence``."""
        while self.sequence < sequence:
            await self.next()

    def book(self) -> dict[str, Any]:
        """The book as ``GET /order-book/{symbolId}`` shows it."""

        def side(name: str, *, reverse: bool) -> list[dict[str, Any]]:
            return sorted(self.sides[name].values(), key=lambda level: float(level["price"]), reverse=reverse)

        return {"buy": side("buy", reverse=True), "sell": side("sell", reverse=False)}

    def _apply(self, data: dict[str, Any]) -> None:
        self.kinds.append(data["type"])
        if data["type"] == "snapshot":
            self.sides = {"buy": {}, "sell": {}}
        else:
            assert data["previousSnapShotId"] <= self.sequence < data["orderBookSnapShotId"]
        for side, levels in self.sides.items():
            for level in data[side]:
                if level["quantity"] == "0":
                    levels.pop(level["price"], None)
                else:
                    levels[level["price"]] = level
        self.sequence = data["orderBookSnapShotId"]


@dataclass
class Exchange:
    """A keeper and the web part, on one Redis."""

    keeper: Keeper
    client: TestClient[Any, Any]
    hubs: Hubs
    lets_in: bool = True
    looks: int = 0

    async def may_go_on(self, _: web.Request) -> bool:
        """Whether the credential of a stream is still good."""
        self.looks += 1
        return self.lets_in

    async def follow(self, **headers: str) -> BookFollower:
        """Open a stream."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return BookFollower(await self.client.get(STREAM, headers=headers))

    async def get(self, path: str) -> Any:
        """The JSON of a path."""
        async with self.client.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def feed(self, commands: list[dict[str, Any]], *, size: int = 10) -> None:
        """Process ``commands`` in batches; return when Redis has them."""
        for at in range(0, len(commands), size):
            self.keeper.feed(commands[at : at + size])
            await self.keeper.is_published(SYMBOL)


@asynccontextmanager
async def run_exchange(
    redis_url: str, *, size_max: int = 1_000, feed: LocalFeed | None = None
) -> AsyncIterator[Exchange]:
    """An exchange without Kafka; the web part closes as it does in a worker.

    With a ``feed`` the streams are those of the keeper's own process, else of another one.
    """
    reader = MarketDataReader(connect(redis_url))
    hubs = Hubs(reader, feed or LocalFeed(), size_max=size_max)
    exchange: Exchange

    async def may_go_on(request: web.Request) -> bool:
        return await exchange.may_go_on(request)

    stream = OrderBookStream(reader, hubs, may_go_on, heartbeat_s=0.2)
    app = web.Application()
    errors.install(app)
    app.router.add_get("/order-book/{symbolId}", OrderBookView(reader).get)
    app.router.add_get("/order-book/{symbolId}/stream", stream.get)
    app.router.add_get("/trades/{symbolId}", TradesView(reader).get)
    app.on_shutdown.append(stream.close)
    async with Keeper(redis_url, feed) as keeper, TestClient(TestServer(app)) as client:
        exchange = Exchange(keeper, client, hubs)
        yield exchange
    await reader.close()


def sides(book: dict[str, Any]) -> dict[str, Any]:
    """The two sides of a book."""
    return {side: book[side] for side in ("buy", "sell")}


def rest_at(price: str, number: int) -> dict[str, Any]:
    """A limit order to buy that finds no counterpart."""
    return order_command(SYMBOL, id=f"00000000-0000-0000-0001-{number:012x}", price=price)
