"""``GET /order-book/{symbolId}/stream``: a book and then its changes, as server-sent events.

A client holds the book when it takes a ``snapshot`` whole and applies each ``change``: set each level to its quantity,
drop it when that is "0". One that comes back with ``Last-Event-ID`` gets exactly what it missed, or a new snapshot.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from forkast_streams.limits import RESPONSE_WRITE_S_MAX, STREAM_RECHECK_S, STREAM_S_MAX, STREAM_UPDATES_WAITING_MAX
from forkast_streams.market_data.hub import Hubs, Subscription, Update
from forkast_streams.market_data.redis_reader import MarketDataReader
from forkast_streams.market_data.stored_book import Position
from forkast_streams.roles import ExchangeApp
from web.auth import still_lets_in
from web.market_data import market_data_reader, redis_answers, unknown_symbol
from web.parameters import symbol_id_of

HEARTBEAT_S = 10.0
_CLOSE_S_MAX = 1.0
_HEARTBEAT = b": heartbeat\n\n"
# What a client must take within the time for a write.
_PIECE_BYTES = 64 * 1024
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    # Proxies that buffer would hold events back.
    "X-Accel-Buffering": "no",
}


class _EndedError(Exception):
    """The client may not follow any longer."""


class _Client:
    """The connection of one client.

    Args:
        may_go_on: whether the credential of the client's request is still good.
    """

    def __init__(
        self, request: web.Request, response: web.StreamResponse, may_go_on: Callable[[web.Request], Awaitable[bool]]
    ) -> None:
        self._request = request
        self._response = response
        self._may_go_on = may_go_on
        self._opened = self._checked = time.monotonic()

    async def send(self, data: bytes) -> None:
        """Send ``data``, however long: what is not taken yet is no copy of it.

        Raises:
            _EndedError: the credential is not good any more.
            TimeoutError: the client does not read, or too slowly.
            ConnectionResetError: it is gone.
        """
        rest = memoryview(data)
        while rest:
            async with asyncio.timeout(RESPONSE_WRITE_S_MAX):
                await self._response.write(rest[:_PIECE_BYTES])
            rest = rest[_PIECE_BYTES:]
            await self.check()

    async def check(self) -> None:
        """Look now and then whether the client may go on.

        Raises:
            _EndedError: it may not.
        """
        now = time.monotonic()
        if now - self._checked < STREAM_RECHECK_S:
            return
        if now - self._opened >= STREAM_S_MAX or not await self._may_go_on(self._request):
            raise _EndedError
        self._checked = now


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
            await self._pump(_Client(request, response, self._may_go_on), first, subscription)
        except TimeoutError:
            cut()
        except (ConnectionResetError, _EndedError):
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
        position = Position.of_event_id(last_event_id)
        if position is not None:
            missed = await self._reader.changes_since(symbol_id, position)
            if missed is not None:
                return [Update(position, is_snapshot=False, frame=b""), *map(Update.of_change, missed)]
        snapshot = await self._hubs.snapshots.get(symbol_id)
        return None if snapshot is None else [snapshot]

    async def _pump(self, client: _Client, first: list[Update], subscription: Subscription) -> None:
        position = first[-1].position
        # The comment brings the headers on their way when there is nothing missed to send.
        await client.send(_together(first) or _HEARTBEAT)
        while (updates := await subscription.take(self._heartbeat_s)) is not None:
            news = []
            for update in updates:
                # The first changes may be part of the snapshot that was read behind the subscription.
                if update.is_snapshot or not position.continues(update.position):
                    news.append(update)
                    position = update.position
            if news or not updates:
                await client.send(_together(news) or _HEARTBEAT)
            await client.check()


def _together(updates: list[Update]) -> bytes:
    # A snapshot that comes alone is not copied.
    return updates[0].frame if len(updates) == 1 else b"".join(update.frame for update in updates)


def register(app: ExchangeApp) -> None:
    """Add the route."""
    reader = market_data_reader(app)
    hubs = Hubs(reader, app.feed, size_max=STREAM_UPDATES_WAITING_MAX)
    stream = OrderBookStream(reader, hubs, still_lets_in)
    web_app = app.web.web_app
    web_app.router.add_get("/order-book/{symbolId}/stream", stream.get)
    web_app.on_shutdown.append(stream.close)
