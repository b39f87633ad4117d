"""Long books, and clients of a stream that do not read what they are sent."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from forkast_streams.market_data.feed import LocalFeed
from tests.integration.market_data import STREAM, BookFollower, Exchange, eventually, rest_at, run_exchange, sides
from tests.support.flows import symbol_command
from tests.support.market_events import SYMBOL
from web import streams


def connect_without_reading(exchange: Exchange) -> socket.socket:
    """A client of the stream that never reads what it is sent."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    slow.connect((exchange.client.host, exchange.client.port))
    slow.sendall(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % STREAM.encode())
    return slow


async def test_stop_does_not_wait_for_a_client_that_does_not_read(stack_env: dict[str, str]) -> None:
    """Its blocked connection is ended with the process."""
    async with run_exchange(stack_env["REDIS_URL"], size_max=1_000_000) as exchange:
        await exchange.keeper.redis.flushall()
        await exchange.feed([symbol_command(SYMBOL)])
        slow = connect_without_reading(exchange)

        async def follows() -> bool:
            return exchange.hubs.followed == {SYMBOL: 1}

        await eventually(follows, "the client")
        (subscription,) = exchange.hubs._hubs[SYMBOL].subscriptions
        number = 0
        while len(subscription._waiting) < 3:
            await exchange.feed([rest_at(f"{price}", number + price) for price in range(1, 1_001)], size=1_000)
            number += 1_000
            assert exchange.hubs.followed == {SYMBOL: 1}, "the client was cut before anything waited for it"
        async with asyncio.timeout(5):
            await exchange.client.server.close()
        slow.close()


async def test_slow_client_is_cut_and_others_go_on(stack_env: dict[str, str], feed: LocalFeed | None) -> None:
    """A client that reads nothing loses its connection; what waits for it is bounded."""
    async with run_exchange(stack_env["REDIS_URL"], size_max=20, feed=feed) as exchange:
        await exchange.keeper.redis.flushall()
        await exchange.feed([symbol_command(SYMBOL)])
        slow = connect_without_reading(exchange)
        follower = await exchange.follow()
        await follower.next()

        async def both_follow() -> bool:
            return exchange.hubs.followed == {SYMBOL: 2}

        await eventually(both_follow, "two clients")
        number = 0
        while exchange.hubs.followed != {SYMBOL: 1}:
            # Changes of a thousand levels each fill the buffers of the system before the queue of the client.
            await exchange.feed([rest_at(f"{price}", number + price) for price in range(1, 1_001)], size=1_000)
            number += 1_000
            await follower.until(exchange.keeper.state.books[SYMBOL].published)
            assert number < 1_000_000, "the slow client was never cut"
        assert follower.book() == sides(await exchange.get(f"/order-book/{SYMBOL}"))
        slow.close()


async def store_long_book(exchange: Exchange, levels: int) -> None:
    """Let Redis have a book of so many levels, as a keeper would after as many orders."""
    await exchange.feed([symbol_command(SYMBOL)])
    prices = {f"{price}.00": "1 1" for price in range(1, levels + 1)}
    await exchange.keeper.redis.hset(f"book:{SYMBOL}:buy", mapping=prices)


async def test_a_long_book_comes_whole_and_its_best_levels_alone(exchange: Exchange) -> None:
    """A snapshot has all of 20,000 levels, an answer as many as were asked for, best first."""
    await store_long_book(exchange, 20_000)
    async with exchange.client.get(STREAM, read_bufsize=2**24) as response:
        follower = BookFollower(response)
        await follower.next()
    assert len(follower.sides["buy"]) == 20_000
    best = (await exchange.get(f"/order-book/{SYMBOL}?depth=3"))["buy"]
    assert [level["price"] for level in best] == ["20000.00", "19999.00", "19998.00"]


async def test_clients_that_come_at_once_share_one_read_and_one_snapshot(exchange: Exchange) -> None:
    """What a book costs does not depend on how many ask for it."""
    await store_long_book(exchange, 20_000)
    snapshots = await asyncio.gather(*(exchange.hubs.snapshots.get(SYMBOL) for _ in range(100)))
    assert len(set(map(id, snapshots))) == 1


async def test_client_that_takes_no_snapshot_is_cut(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing changes that would fill its queue."""
    await store_long_book(exchange, 200_000)
    monkeypatch.setattr(streams, "RESPONSE_WRITE_S_MAX", 0.2)
    slow = connect_without_reading(exchange)

    async def follows() -> bool:
        return exchange.hubs.followed == {SYMBOL: 1}

    await eventually(follows, "the client")

    async def is_gone() -> bool:
        return exchange.hubs.followed == {}

    await eventually(is_gone, "its end")
    slow.close()


async def test_slow_client_ends_with_its_credential(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes a long snapshot bit by bit does not outlive it."""
    await store_long_book(exchange, 200_000)
    monkeypatch.setattr(streams, "STREAM_RECHECK_S", 0.0)
    exchange.lets_in = False
    async with exchange.client.get(STREAM) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()
