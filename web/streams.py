"""``GET /order-book/{symbolId}/stream``: a snapshot, then only changes, each with its sequence as the event id.

One reader a symbol and process follows the published changes in Redis and hands them to all clients. The id of a
change in Redis is its sequence, so a client that comes back gets exactly what it missed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import suppress

import msgspec
from aiohttp import web

from forkast_streams.errors import ApiError
from forkast_streams.limits import CHANGES_KEPT, STREAM_CHANGES_QUEUED_MAX
from forkast_streams.market_data.redis_publisher import book_keys
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient, connect
from web.market_data import BookReader
from web.parameters import symbol_id_of

log = logging.getLogger(__name__)

_HEARTBEAT_S = 15.0
_REDIS_BLOCK_MS = 1_000
_REDIS_RETRY_S = 0.5
_SEND_S_MAX = 10.0
_EVENT_ID = re.compile(r"[0-9]{1,18}", re.ASCII)


class _Header(msgspec.Struct, rename="camel"):
    """What is read of a change's message; clients get the message as it is."""

    type: str
    order_book_snap_shot_id: int
    previous_snap_shot_id: int = -1


_header_of = msgspec.json.Decoder(_Header).decode

# What a client's queue holds: a message, or None when it has to start again from a snapshot.
Queue = asyncio.Queue[bytes | None]


class BookFeed:
    """Follows the changes of one symbol for any number of clients."""

    def __init__(self, redis: RedisClient, symbol_id: int) -> None:
        self._redis = redis
        self._stream = book_keys(symbol_id)[3]
        self.clients: set[Queue] = set()

    async def run(self) -> None:
        """Read changes and hand them out, until cancelled."""
        last: bytes | str = "$"
        while True:
            try:
                answer = await self._redis.xread({self._stream: last}, count=1_000, block=_REDIS_BLOCK_MS)
            except REDIS_AWAY:
                # Changes may be missed meanwhile: everybody starts again.
                self._hand_out(None)
                await asyncio.sleep(_REDIS_RETRY_S)
                continue
            for entry_id, fields in answer[0][1] if answer else ():
                last = entry_id
                self._hand_out(fields[b"change"])

    def _hand_out(self, message: bytes | None) -> None:
        for queue in self.clients:
            if queue.full():
                # A client that does not read is not waited for: it will find its queue emptied and start again.
                while not queue.empty():
                    queue.get_nowait()
                message = None
            queue.put_nowait(message)


class BookStreams:
    """The route, and the feeds its clients share."""

    def __init__(self, reader: BookReader, feed_redis: RedisClient) -> None:
        self._reader = reader
        self._feed_redis = feed_redis
        self._feeds: dict[int, tuple[BookFeed, asyncio.Task[None]]] = {}
        self._stopping = asyncio.Event()

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send server-sent events until the client goes or the process stops."""
        symbol_id = symbol_id_of(request)
        # Asked first, so that an unknown symbol is an error and not a stream.
        await self._reader.book(symbol_id, 1)
        queue: Queue = asyncio.Queue(STREAM_CHANGES_QUEUED_MAX)
        feed = self._join(symbol_id, queue)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        try:
            await response.prepare(request)
            client = _Client(response, self._reader, symbol_id)
            await client.begin(request.headers.get("Last-Event-ID"))
            stopping = asyncio.ensure_future(self._stopping.wait())
            while not self._stopping.is_set():
                message = asyncio.ensure_future(queue.get())
                await asyncio.wait((message, stopping), timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if message.done():
                    await client.take(message.result())
                else:
                    message.cancel()
                    await client.send(b": still here\n\n")
            stopping.cancel()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            log.debug("a client of the book stream of symbol %d is gone", symbol_id)
        finally:
            self._leave(symbol_id, feed, queue)
        return response

    def _join(self, symbol_id: int, queue: Queue) -> BookFeed:
        known = self._feeds.get(symbol_id)
        if known is None:
            feed = BookFeed(self._feed_redis, symbol_id)
            known = self._feeds[symbol_id] = (feed, asyncio.create_task(feed.run()))
        known[0].clients.add(queue)
        return known[0]

    def _leave(self, symbol_id: int, feed: BookFeed, queue: Queue) -> None:
        feed.clients.discard(queue)
        if not feed.clients and symbol_id in self._feeds:
            self._feeds.pop(symbol_id)[1].cancel()

    async def close(self, _: web.Application) -> None:
        """End all streams; an open one would hold the process."""
        self._stopping.set()
        for _feed, task in self._feeds.values():
            task.cancel()


class _Client:
    """One client: what it was sent last, and what it needs next."""

    def __init__(self, response: web.StreamResponse, reader: BookReader, symbol_id: int) -> None:
        self._response = response
        self._reader = reader
        self._symbol_id = symbol_id
        self._sent = -1

    async def begin(self, last_event_id: str | None) -> None:
        """Send what a returning client missed, or a snapshot."""
        if last_event_id is not None and _EVENT_ID.fullmatch(last_event_id):
            self._sent = int(last_event_id)
            missed = await self._missed()
            if missed is not None:
                for message in missed:
                    await self.take(message)
                return
        await self._snapshot()

    async def take(self, message: bytes | None) -> None:
        """Send a change if it is the next one, a snapshot if something is missing in between."""
        if message is None:
            await self._snapshot()
            return
        header = _header_of(message)
        if header.order_book_snap_shot_id <= self._sent:
            return
        if header.type == "change" and header.previous_snap_shot_id == self._sent:
            await self._send_message(header.order_book_snap_shot_id, message)
        else:
            await self._snapshot()

    async def _missed(self) -> list[bytes] | None:
        """The changes after the last one sent; None when they are not all there."""
        try:
            book = await self._reader.book(self._symbol_id, 1)
            entries = await self._reader.redis.xrange(
                book_keys(self._symbol_id)[3], min=f"({self._sent}-0", max="+", count=CHANGES_KEPT
            )
        except REDIS_AWAY:
            return None
        if not entries:
            return [] if book["orderBookSnapShotId"] == self._sent else None
        messages = [fields[b"change"] for _, fields in entries]
        first = _header_of(messages[0])
        return messages if first.type == "change" and first.previous_snap_shot_id == self._sent else None

    async def _snapshot(self) -> None:
        while True:
            try:
                book = await self._reader.book(self._symbol_id)
                break
            except ApiError:
                # The books are being published again; the client keeps its connection meanwhile.
                await self.send(b": waiting for the book\n\n")
                await asyncio.sleep(_REDIS_RETRY_S)
        await self._send_message(book["orderBookSnapShotId"], msgspec.json.encode({"type": "snapshot"} | book))

    async def _send_message(self, sequence: int, message: bytes) -> None:
        await self.send(b"id: %d\ndata: %b\n\n" % (sequence, message))
        self._sent = sequence

    async def send(self, data: bytes) -> None:
        """Write to the client; one that does not read is cut."""
        async with asyncio.timeout(_SEND_S_MAX):
            await self._response.write(data)


def register(app: ExchangeApp) -> None:
    """Add the route."""
    redis, feed_redis = connect(app.settings.redis_url), connect(app.settings.redis_url, blocking=True)
    streams = BookStreams(BookReader(redis), feed_redis)
    app.web.web_app.router.add_get("/order-book/{symbolId}/stream", streams.stream)
    app.web.web_app.on_shutdown.append(streams.close)

    async def close(_: web.Application) -> None:
        with suppress(*REDIS_AWAY):
            await redis.aclose()
            await feed_redis.aclose()

    app.web.web_app.on_cleanup.append(close)
