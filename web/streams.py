"""``GET /order-book/{symbolId}/stream``: a book and then its changes, as server-sent events.

A client holds the book when it takes a ``snapshot`` whole and applies each ``change``: set each level to its quantity,
drop it when that is "0". One that comes back with ``Last-Event-ID`` gets exactly what it missed, or the book when that
is long or not known any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator

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


class _CutError(Exception):
    """The connection has to go in the middle of an event."""


class _Client:
    """The connection of one client.

    Args:
        look: whether the credential of the client's request is still good.
    """

    def __init__(
        self, request: web.Request, response: web.StreamResponse, look: Callable[[web.Request], Awaitable[bool]]
    ) -> None:
        self._request = request
        self._response = response
        self._look = look
        self._opened = self._looked = time.monotonic()

    async def send(self, frames: list[bytes]) -> None:
        """Send ``frames``, which all clients share: what is not taken yet is no copy of them.

        Raises:
            _CutError: the client does not read, or too slowly, or its credential is not good any more.
            ConnectionResetError: it is gone.
        """
        for at, piece in enumerate(_pieces(frames)):
            if at > 0 and not await self.may_go_on():
                raise _CutError
            try:
                async with asyncio.timeout(RESPONSE_WRITE_S_MAX):
                    await self._response.write(piece)
            except TimeoutError:
                raise _CutError from None

    async def may_go_on(self) -> bool:
        """Whether the client may follow any longer; looked at now and then."""
        now = time.monotonic()
        if now - self._looked < STREAM_RECHECK_S:
            return True
        self._looked = now
        return now - self._opened < STREAM_S_MAX and await self._look(self._request)


def _pieces(frames: list[bytes]) -> Iterator[bytes | memoryview]:
    """``frames`` in pieces: short ones together, a long one bit by bit."""
    together: list[bytes] = []
    size = 0
    for frame in frames:
        if size + len(frame) > _PIECE_BYTES and together:
            yield b"".join(together)
            together, size = [], 0
        if len(frame) > _PIECE_BYTES:
            view = memoryview(frame)
            yield from (view[at : at + _PIECE_BYTES] for at in range(0, len(frame), _PIECE_BYTES))
        else:
            together.append(frame)
            size += len(frame)
    if together:
        yield b"".join(together)


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
                first = await self._first_frames(symbol_id, request.headers.get("Last-Event-ID", ""))
            if first is None:
                raise unknown_symbol(symbol_id)
            response = web.StreamResponse(headers=_HEADERS)
            await response.prepare(request)
            await self._pump(_Client(request, response, self._may_go_on), *first, subscription)
        except _CutError:
            cut()
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

    async def _first_frames(self, symbol_id: int, last_event_id: str) -> tuple[Position, list[bytes]] | None:
        """What the client missed, else a snapshot, and where it is with that; None when the symbol is unknown."""
        position = Position.of_event_id(last_event_id)
        if position is not None:
            missed = await self._reader.changes_since(symbol_id, position)
            if missed is not None:
                # The comment brings the headers on their way when nothing was missed.
                frames = [Update.of_change(change).frame for change in missed] or [_HEARTBEAT]
                return missed[-1].position if missed else position, frames
        snapshot = await self._hubs.snapshots.get(symbol_id)
        return None if snapshot is None else (snapshot.position, [snapshot.frame])

    async def _pump(self, client: _Client, position: Position, frames: list[bytes], subscription: Subscription) -> None:
        await client.send(frames)
        # A stream may be quiet for hours, and what it has sent may be long: nothing here keeps it.
        frames.clear()
        while await client.may_go_on() and (updates := await subscription.take(self._heartbeat_s)) is not None:
            reached = _collect(updates, position, frames)
            if reached is None:
                return
            if frames or not updates:
                await client.send(frames or [_HEARTBEAT])
            position = reached
            frames.clear()
            updates.clear()


def _collect(updates: list[Update], position: Position, frames: list[bytes]) -> Position | None:
    """Add to ``frames`` what a client at ``position`` has not got; return where it is then.

    None when the updates do not go on from there, because Redis, or its log, was another one in between: the client
    comes back for a book that does.
    """
    for update in updates:
        is_newer_book = update.is_snapshot and not position.continues(update.position)
        if is_newer_book or update.position.is_reached_from(position, update.previous):
            frames.append(update.frame)
            position = update.position
        elif not position.continues(update.position):
            return None
        # Else it is part of the book that was read behind the subscription, or an older one.
    return position


def register(app: ExchangeApp) -> None:
    """Add the route."""
    reader = market_data_reader(app)
    hubs = Hubs(reader, app.feed, size_max=STREAM_UPDATES_WAITING_MAX)
    stream = OrderBookStream(reader, hubs, still_lets_in)
    web_app = app.web.web_app
    # An answer to HEAD would be over where that to GET begins to last.
    web_app.router.add_get("/order-book/{symbolId}/stream", stream.get, allow_head=False)
    web_app.on_shutdown.append(stream.close)
