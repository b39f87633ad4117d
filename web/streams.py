"""``GET /order-book/{symbolId}/stream``: a book and then its changes, as server-sent events.

A client holds the book when it takes a ``snapshot`` whole and applies each ``change``: set each level to its quantity,
drop it when that is "0". One that comes back with ``Last-Event-ID`` gets exactly what it missed, or a new snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from forkast_streams.limits import STREAM_RECHECK_S, STREAM_S_MAX, STREAM_UPDATES_WAITING_MAX
from forkast_streams.market_data.hub import Hubs, Subscription, Update
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.roles import ExchangeApp
from web.auth import still_lets_in
from web.market_data import market_data_reader, redis_answers, unknown_symbol
from web.parameters import symbol_id_of

HEARTBEAT_S = 10.0
_CLOSE_S_MAX = 1.0
_HEARTBEAT = b": heartbeat\n\n"
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Proxies that buffer would hold events back.
    "X-Accel-Buffering": "no",
}
_SEQUENCE_DIGITS_MAX = 15


class OrderBookStream:
    """Serves any number of clients from one hub a symbol.

    Args:
        reader: of what is published.
        hubs: of its changes.
        may_go_on: whether the credential of a stream's request is still good.
        heartbeat_s: seconds without an update after which a comment is sent.
    """

    def __init__(
        self,
        reader: MarketDataReader,
        hubs: Hubs,
        may_go_on: Callable[[web.Request], Awaitable[bool]],
        *,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._reader = reader
        self._hubs = hubs
        self._may_go_on = may_go_on
        self._heartbeat_s = heartbeat_s
        self._open: dict[asyncio.Task[object], web.Request] = {}

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Stream until the client goes, is too slow or may not see it any more, or the process stops.

        Raises:
            ApiError: 400 malformed, 404 unknown symbol, 503 Redis is out of reach; all before the stream begins.
        """
        symbol_id = symbol_id_of(request)

        def cut() -> None:
            if request.transport is not None:
                request.transport.abort()

        with redis_answers():
            subscription = await self._hubs.subscribe(symbol_id, cut)
            if subscription is None:
                # Answers None for an unknown symbol, and raises when all books are lost for the moment.
                await self._reader.book(symbol_id)
        if subscription is None:
            raise unknown_symbol(symbol_id)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = request
        try:
            with redis_answers():
                first = await self._first_updates(symbol_id, request.headers.get("Last-Event-ID", ""))
            if first is None:
                raise unknown_symbol(symbol_id)
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            await self._pump(request, response, first, subscription)
        except ConnectionResetError:
            pass
        finally:
            self._hubs.unsubscribe(subscription)
            del self._open[task]
        return response

    async def close(self, _: web.Application | None = None) -> None:
        """End all streams: open ones would hold up the stop of the process."""
        await self._hubs.close()
        if self._open:
            await asyncio.wait(self._open, timeout=_CLOSE_S_MAX)
        # A client that has stopped reading holds its write, and the stop with it.
        for request in self._open.values():
            if request.transport is not None:
                request.transport.abort()

    async def _first_updates(self, symbol_id: int, last_event_id: str) -> list[Update] | None:
        """What the client missed, else a snapshot; None when the symbol is unknown."""
        if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= _SEQUENCE_DIGITS_MAX:
            missed = await self._reader.changes_since(symbol_id, int(last_event_id))
            if missed is not None:
                return [Update(int(last_event_id), is_snapshot=False, frame=b""), *map(Update.of_change, missed)]
        book = await self._reader.book(symbol_id)
        return None if book is None else [Update.of_book(book)]

    async def _pump(
        self, request: web.Request, response: web.StreamResponse, first: list[Update], subscription: Subscription
    ) -> None:
        sequence, opened = first[-1].sequence, time.monotonic()
        checked = opened
        # The comment brings the headers on their way when there is nothing missed to send.
        await response.write(b"".join(update.frame for update in first) or _HEARTBEAT)
        while (updates := await subscription.take(self._heartbeat_s)) is not None:
            frames = []
            for update in updates:
                # The first changes may be part of the snapshot that was read behind the subscription.
                if update.is_snapshot or update.sequence > sequence:
                    frames.append(update.frame)
                    sequence = update.sequence
            if frames or not updates:
                await response.write(b"".join(frames) or _HEARTBEAT)
            now = time.monotonic()
            if now - checked >= STREAM_RECHECK_S:
                if now - opened >= STREAM_S_MAX or not await self._may_go_on(request):
                    return
                checked = now


def register(app: ExchangeApp) -> None:
    """Add the route."""
    reader = market_data_reader(app)
    hubs = Hubs(reader, app.feed, size_max=STREAM_UPDATES_WAITING_MAX)
    stream = OrderBookStream(reader, hubs, still_lets_in)
    web_app = app.web.web_app
    web_app.router.add_get("/order-book/{symbolId}/stream", stream.get)
    web_app.on_shutdown.append(stream.close)
