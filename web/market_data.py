"""``GET /trades/{symbolId}``, and what all market data routes share: their reader and their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import TAPE_TRADES
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.redis import connect
from web.parameters import integer_parameter, symbol_id_of

_TRADES_DEFAULT = 100
_RETRY_AFTER_S = 1
_READER = web.AppKey("market_data_reader", MarketDataReader)


def unknown_symbol(symbol_id: int) -> ApiError:
    """The error for a symbol there is no market data of."""
    return ApiError(404, "UNKNOWN_SYMBOL", f"there is no symbol {symbol_id}", field="symbolId")


@contextmanager
def redis_answers() -> Iterator[None]:
    """Turn a Redis that does not answer into 503 with ``Retry-After``."""
    try:
        yield
    except Unavailable as exc:
        headers = {"Retry-After": str(_RETRY_AFTER_S)}
        raise ApiError(
            503, "UNAVAILABLE", "market data is out of reach for a moment; try again", headers=headers
        ) from exc


class TradesView:
    """The tape: trades without anybody's order or user ids."""

    def __init__(self, reader: MarketDataReader) -> None:
        self._reader = reader

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the last ``limit`` trades, newest first.

        Raises:
            ApiError: 400 malformed, 404 unknown symbol, 503 Redis is out of reach.
        """
        symbol_id = symbol_id_of(request)
        limit = integer_parameter(request, "limit", default=_TRADES_DEFAULT, most=TAPE_TRADES)
        with redis_answers():
            trades = await self._reader.trades(symbol_id, limit)
        if trades is None:
            raise unknown_symbol(symbol_id)
        return web.Response(
            body=b'{"symbolId":%d,"trades":[%b]}' % (symbol_id, b",".join(trades)), content_type="application/json"
        )


def market_data_reader(app: ExchangeApp) -> MarketDataReader:
    """The reader of what is published that all routes of ``app`` share, closed with its web server."""
    web_app = app.web.web_app
    reader: MarketDataReader | None = web_app.get(_READER)
    if reader is None:
        redis_url = app.settings.redis_url
        reader = web_app[_READER] = MarketDataReader(connect(redis_url), waiting=connect(redis_url))

        web_app.on_cleanup.append(lambda _: reader.close())
    return reader


def register(app: ExchangeApp) -> None:
    """Add the route."""
    app.web.web_app.router.add_get("/trades/{symbolId}", TradesView(market_data_reader(app)).get)
