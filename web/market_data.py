"""``GET /order-book/{symbolId}`` and ``GET /trades/{symbolId}``, served from Redis by any number of processes."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from forkast_streams.errors import ApiError
from forkast_streams.limits import TAPE_TRADES_MAX
from forkast_streams.market_data.messages import snapshot
from forkast_streams.market_data.redis_publisher import book_keys, level_of
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient, connect
from web.errors import json_response
from web.parameters import integer_parameter, symbol_id_of

DEPTH_MAX = 5_000
TRADES_DEFAULT = 100


class BookReader:
    """Reads published books."""

    def __init__(self, redis: RedisClient) -> None:
        self.redis = redis

    async def book(self, symbol_id: int, depth: int | None = None) -> dict[str, Any]:
        """The book of a symbol, all of it as of one sequence.

        Raises:
            ApiError: there is no such symbol, or the books are not there now.
        """
        meta_key, buy_key, sell_key, *_ = book_keys(symbol_id)
        try:
            async with self.redis.pipeline(transaction=True) as pipeline:
                pipeline.hgetall(meta_key).hgetall(buy_key).hgetall(sell_key).exists("books:published")
                meta, buy, sell, published = await pipeline.execute()
        except REDIS_AWAY as exc:
            raise unavailable() from exc
        if not published:
            raise unavailable()
        if not meta:
            raise ApiError(404, "UNKNOWN_SYMBOL", f"there is no symbol {symbol_id}", field="symbolId")
        return snapshot(
            symbol_id,
            int(meta[b"sequence"]),
            int(meta[b"timestamp"]),
            [level_of(*level) for level in buy.items()],
            [level_of(*level) for level in sell.items()],
            depth=depth,
        )

    async def trades(self, symbol_id: int, limit: int) -> list[dict[str, Any]]:
        """The newest trades of a symbol, newest first."""
        await self.book(symbol_id, 1)
        try:
            entries = await self.redis.xrevrange(book_keys(symbol_id)[4], count=limit)
        except REDIS_AWAY as exc:
            raise unavailable() from exc
        return [msgspec.json.decode(fields[b"trade"]) for _, fields in entries]


class MarketDataViews:
    """The two routes."""

    def __init__(self, reader: BookReader) -> None:
        self._reader = reader

    async def order_book(self, request: web.Request) -> web.Response:
        """The order book: price levels with quantity and order count, best first; nobody's ids."""
        depth = integer_parameter(request, "depth", default=None, least=1, most=DEPTH_MAX)
        return json_response(await self._reader.book(symbol_id_of(request), depth))

    async def trades(self, request: web.Request) -> web.Response:
        """The tape, newest first."""
        limit = integer_parameter(request, "limit", default=TRADES_DEFAULT, least=1, most=TAPE_TRADES_MAX)
        symbol_id = symbol_id_of(request)
        trades = await self._reader.trades(symbol_id, limit or TRADES_DEFAULT)
        return json_response({"symbolId": symbol_id, "trades": trades})


def unavailable() -> ApiError:
    """The answer while the published books are out of reach."""
    message = "the order books are being published again; try again shortly"
    return ApiError(503, "MARKET_DATA_UNAVAILABLE", message, headers={"Retry-After": "1"})


def register(app: ExchangeApp) -> None:
    """Add the routes."""
    redis = connect(app.settings.redis_url)
    views = MarketDataViews(BookReader(redis))
    router = app.web.web_app.router
    router.add_get("/order-book/{symbolId}", views.order_book)
    router.add_get("/trades/{symbolId}", views.trades)
    app.web.web_app.on_cleanup.append(lambda _: redis.aclose())
