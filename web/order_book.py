"""``GET /order-book/{symbolId}``: the depth of a symbol as it is in Redis."""

from __future__ import annotations

from aiohttp import web

from forkast_streams.limits import DEPTH_MAX
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.roles import ExchangeApp
from web.market_data import market_data_reader, redis_answers, unknown_symbol
from web.parameters import integer_parameter, symbol_id_of


class OrderBookView:
    """Prices, quantities and numbers of orders, best first; nobody's orders or user ids."""

    def __init__(self, reader: MarketDataReader) -> None:
        self._reader = reader

    async def get(self, request: web.Request) -> web.Response:
        """Answer with the book; ``depth`` limits the levels a side.

        Raises:
            ApiError: 400 malformed, 404 unknown symbol, 503 Redis is out of reach.
        """
        symbol_id = symbol_id_of(request)
        depth = integer_parameter(request, "depth", default=DEPTH_MAX, most=DEPTH_MAX)
        with redis_answers():
            book = await self._reader.book(symbol_id)
        if book is None:
            raise unknown_symbol(symbol_id)
        return web.Response(body=b"{%b}" % book.members(depth), content_type="application/json")


def register(app: ExchangeApp) -> None:
    """Add the route."""
    app.web.web_app.router.add_get("/order-book/{symbolId}", OrderBookView(market_data_reader(app)).get)
