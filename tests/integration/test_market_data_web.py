"""Book, tape and stream over HTTP, from a real Redis."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.redis import Redis as RedisServer
from forkast_streams.market_data.feed import LocalFeed
from tests.integration.market_data import STREAM, Exchange, eventually, rest_at, run_exchange, sides
from tests.support.flows import order_command, symbol_command
from tests.support.market_events import NEIGHBOUR, SYMBOL, two_symbol_flow
from web import streams

# Below the number of connections that aiohttp's client opens at most.
CLIENTS_MAX = 50


async def test_stream_ends_with_its_credential(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on as long as the credential is good, looked at now and then, and then it is closed."""
    monkeypatch.setattr(streams, "STREAM_RECHECK_S", 0.05)
    await exchange.feed([symbol_command(SYMBOL), rest_at("9.50", 1)])
    follower = await exchange.follow()
    await follower.next()
    async with asyncio.timeout(10):
        while not exchange.looks:  # noqa: ASYNC110 - the stream tells nobody
            await asyncio.sleep(0.01)
    await exchange.feed([rest_at("9.51", 2)])
    await follower.next()
    exchange.lets_in = False
    with pytest.raises(ConnectionResetError, match="has ended"):
        await follower.next()
    follower.response.close()


async def test_book_and_tape(exchange: Exchange) -> None:
    """The book is best first and can be limited; the tape is newest first; neither names an order or a user."""
    orders = [rest_at("9.50", 1), rest_at("100", 2), rest_at("9.50", 3)]
    sell = order_command(SYMBOL, side="SELL", quantity=4, price="100")
    await exchange.feed([symbol_command(SYMBOL), *orders, sell])
    best = {"price": "100.00", "quantity": "6", "orders": 1}
    book = await exchange.get(f"/order-book/{SYMBOL}")
    assert (book["orderBookSnapShotId"], book["symbolId"]) == (6, SYMBOL)
    assert sides(book) == {"buy": [best, {"price": "9.50", "quantity": "20", "orders": 2}], "sell": []}
    assert (await exchange.get(f"/order-book/{SYMBOL}?depth=1"))["buy"] == [best]
    [trade] = (await exchange.get(f"/trades/{SYMBOL}"))["trades"]
    assert trade.keys() == {"tradeId", "price", "quantity", "takerSide", "timestamp", "sequence"}
    assert (trade["price"], trade["quantity"], trade["takerSide"], trade["sequence"]) == ("100.00", "4", "SELL", 6)


async def test_trades_come_newest_first_and_limited(exchange: Exchange) -> None:
    """``limit`` gives the newest trades."""
    await exchange.feed(two_symbol_flow(400))
    trades = (await exchange.get(f"/trades/{SYMBOL}?limit=5"))["trades"]
    expected = [trade.sequence for trade in exchange.keeper.state.books[SYMBOL].tape()[:-6:-1]]
    assert [trade["sequence"] for trade in trades] == expected


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/order-book/x", 400, "INVALID_ID"),
        ("/order-book/0", 400, "INVALID_ID"),
        ("/order-book/-1", 400, "INVALID_ID"),
        ("/order-book/٣", 400, "INVALID_ID"),
        ("/order-book/99999999999999999999", 400, "INVALID_ID"),
        ("/order-book/12345", 404, "UNKNOWN_SYMBOL"),
        ("/order-book/12345/stream", 404, "UNKNOWN_SYMBOL"),
        ("/trades/12345", 404, "UNKNOWN_SYMBOL"),
        (f"/order-book/{SYMBOL}?depth=0", 400, "INVALID_TYPE"),
        (f"/order-book/{SYMBOL}?depth=5001", 400, "OUT_OF_RANGE"),
        (f"/trades/{SYMBOL}?limit=abc", 400, "INVALID_TYPE"),
    ],
)
async def test_refused_requests(exchange: Exchange, path: str, status: int, code: str) -> None:
    """Malformed ids and parameters are 400, unknown symbols 404."""
    await exchange.feed(two_symbol_flow(4))
    await exchange.keeper.is_complete()
    async with exchange.client.get(path) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", [f"/order-book/{SYMBOL}", f"/order-book/{SYMBOL}/stream", f"/trades/{SYMBOL}"])
async def test_lost_books_are_unavailable_not_unknown(exchange: Exchange, path: str) -> None:
    """While Redis has nothing, nobody is told that a symbol does not exist: 503, with the time to try again."""
    await exchange.feed(two_symbol_flow(4))
    exchange.keeper.publisher.own({}, 1)
    await exchange.keeper.redis.flushall()
    async with exchange.client.get(path) as response:
        assert response.status == 503
        assert response.headers["Retry-After"]


async def test_stream_is_a_snapshot_and_then_changes(exchange: Exchange) -> None:
    """A client that follows the rule holds the book that GET shows, and got only changes after its snapshot."""
    flow = two_symbol_flow(2_000)
    await exchange.feed(flow[:200])
    follower = await exchange.follow()
    assert follower.response.headers["Content-Type"] == "text/event-stream"
    await exchange.feed(flow[200:])
    book = await exchange.get(f"/order-book/{SYMBOL}")
    await follower.until(book["orderBookSnapShotId"])
    assert follower.kinds[0] == "snapshot"
    assert set(follower.kinds[1:]) == {"change"}
    assert follower.book() == sides(book)


async def test_clients_that_join_while_it_trades_all_hold_the_book(exchange: Exchange) -> None:
    """Between snapshot and changes nothing is lost, whenever a client joins; all share one reader."""
    flow = two_symbol_flow(1_500)
    await exchange.feed(flow[:20])
    feeding = asyncio.create_task(exchange.feed(flow[20:], size=3))
    followers = []
    while not feeding.done() and len(followers) < CLIENTS_MAX:
        followers.append(await exchange.follow())
        await followers[-1].next()
    await feeding
    assert exchange.hubs.followed == {SYMBOL: len(followers)}
    assert len(followers) > 5
    book = await exchange.get(f"/order-book/{SYMBOL}")
    for follower in followers:
        await follower.until(book["orderBookSnapShotId"])
        assert follower.book() == sides(book)
        assert follower.kinds.count("snapshot") == 1


async def test_reader_ends_with_its_last_client(exchange: Exchange) -> None:
    """Nobody reads Redis for clients that are gone."""
    await exchange.feed(two_symbol_flow(20))
    for follower in [await exchange.follow() for _ in range(2)]:
        await follower.next()
        follower.response.close()

    async def is_forgotten() -> bool:
        return exchange.hubs.followed == {}

    await eventually(is_forgotten, "the end of the reader")


async def test_resumed_stream_brings_exactly_what_was_missed(exchange: Exchange) -> None:
    """With ``Last-Event-ID`` a client goes on with changes alone and holds the book in the end."""
    flow = two_symbol_flow(600)
    await exchange.feed(flow[:200])
    follower = await exchange.follow()
    await follower.next()
    follower.response.close()
    await exchange.feed(flow[200:])
    follower.response = (await exchange.follow(Last_Event_ID=follower.event_id)).response
    book = await exchange.get(f"/order-book/{SYMBOL}")
    await follower.until(book["orderBookSnapShotId"])
    assert follower.kinds.count("snapshot") == 1
    assert follower.book() == sides(book)


async def test_resumed_stream_that_missed_nothing_only_goes_on(exchange: Exchange) -> None:
    """A client that is at the newest book gets no event before something changes."""
    await exchange.feed([symbol_command(SYMBOL), rest_at("99", 1)])
    follower = await exchange.follow()
    await follower.next()
    follower.response.close()
    follower.response = (await exchange.follow(Last_Event_ID=follower.event_id)).response
    await exchange.feed([rest_at("98", 2)])
    assert await follower.next() | {"timestamp": 0} == {
        "type": "change",
        "orderBookSnapShotId": 3,
        "previousSnapShotId": 2,
        "timestamp": 0,
        "buy": [{"price": "98.00", "quantity": "10", "orders": 1}],
        "sell": [],
    }


@pytest.mark.parametrize(
    "last_event_id", ["1-{born}", "999999-{born}", "{newest}-1", "{newest}", "x", "-1", "9" * 40, ""]
)
async def test_id_that_cannot_be_resumed_gets_a_snapshot(exchange: Exchange, last_event_id: str) -> None:
    """Too old, in the future, of another log or no id at all: the client starts anew."""
    await exchange.feed(two_symbol_flow(100))
    book = exchange.keeper.state.books[SYMBOL]
    last_event_id = last_event_id.format(born=book.born, newest=book.published)
    # The changes from before the first whole book of this symbol are not kept, and neither are trimmed ones.
    await exchange.keeper.redis.xtrim(f"book:{SYMBOL}:changes", maxlen=2, approximate=False)
    follower = await exchange.follow(Last_Event_ID=last_event_id)
    assert (await follower.next())["type"] == "snapshot"
    assert follower.book() == sides(await exchange.get(f"/order-book/{SYMBOL}"))


async def test_quiet_stream_has_heartbeats(exchange: Exchange) -> None:
    """Comments keep the connection of a quiet symbol alive."""
    await exchange.feed([symbol_command(SYMBOL)])
    follower = await exchange.follow()
    await follower.next()
    lines = [await asyncio.wait_for(follower.response.content.readline(), 5) for _ in range(3)]
    assert b": heartbeat\n" in lines


async def test_flushed_redis_gives_clients_a_fresh_snapshot(exchange: Exchange) -> None:
    """After FLUSHALL the keeper writes the book again, and open streams go on with a snapshot of it."""
    flow = two_symbol_flow(400)
    await exchange.feed(flow[:100])
    follower = await exchange.follow()
    await follower.next()
    await exchange.keeper.redis.flushall()
    await exchange.feed(flow[100:])
    book = await exchange.get(f"/order-book/{SYMBOL}")
    await follower.until(book["orderBookSnapShotId"])
    assert follower.kinds.count("snapshot") == 2
    assert follower.book() == sides(book)


async def test_open_streams_end_when_the_process_stops(exchange: Exchange) -> None:
    """A stop waits for no client."""
    await exchange.feed([symbol_command(SYMBOL)])
    follower = await exchange.follow()
    await follower.next()
    async with asyncio.timeout(5):
        await exchange.client.server.close()
        with pytest.raises((ConnectionResetError, aiohttp.ClientError)):
            await follower.next()


async def test_redis_away_is_503_and_streams_recover(tmp_path: Path, feed: LocalFeed | None) -> None:
    """While Redis is away requests get 503 with Retry-After; open streams go on when it is back.

    By the whole book; or by a change, if the keeper has missed nothing but a look, and Redis has come back as it was.
    """
    server = RedisServer(tmp_path, free_ports(1)[0])
    server.start()
    flow = two_symbol_flow(200)
    try:
        async with run_exchange(f"redis://127.0.0.1:{server.port}", feed=feed) as exchange:
            await exchange.feed(flow[:50])
            follower = await exchange.follow()
            await follower.next()
            server.stop()
            for path in (f"/order-book/{SYMBOL}", STREAM, f"/trades/{SYMBOL}", f"/order-book/{NEIGHBOUR}/stream"):
                async with exchange.client.get(path) as response:
                    assert response.status == 503
                    assert response.headers["Retry-After"] == "1"
            exchange.keeper.feed(flow[50:])
            server.start()
            await exchange.keeper.is_published(SYMBOL)
            book = await exchange.get(f"/order-book/{SYMBOL}")
            await follower.until(book["orderBookSnapShotId"])
            assert follower.book() == sides(book)
    finally:
        server.stop()
