"""Orders the log has taken and the database does not have yet, so that they can be read at once.

They are kept in Redis for all processes, and in this process's memory, so that a Redis that is away or was flushed
hides no order from the client that placed it here. A row of the database always wins over a pending order.

Redis is written from a task of its own. An order's answer waits for that task while Redis is quick, so that another
process knows the order as soon as its client does, and for nothing once Redis was not.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from heapq import nlargest
from importlib.resources import files
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import msgspec

from forkast_streams.breaker import Breaker
from forkast_streams.errors import Unavailable
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient, is_refusal

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_SCRIPT = (files(__package__) / "remember.lua").read_text()
PENDING_S_MAX = 600
# The newest pending orders of a user that are listed: what a page reads has to be bounded, too.
LISTED_MAX = 1_000
_OWN_MAX = 20_000
_WRITTEN_AT_ONCE = 200
# Seconds an answer waits for Redis, a read waits, and nobody waits once one has waited in vain.
_WRITE_WAIT_S = 0.05
_READ_WAIT_S = 0.25
_PAUSE_S = 1.0
_RETRY_S = 0.5
_AWAY = "orders that have no row yet cannot be looked for now; try again shortly"

Order = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Remembered(NamedTuple):
    """What is kept of an order.

    As a dictionary it would be a dozen objects, all over the memory when it is forgotten thousands of orders later.

    Attributes:
        json: the whole order.
    """

    id: str
    user_id: int
    created_ms: int
    json: str


class PendingOrders:
    """Remembers orders until they have a row.

    Orders are as the views answer them, with ``createdAt`` in milliseconds under ``createdAtMs``.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._own: OrderedDict[str, _Remembered] = OrderedDict()
        self._own_of_user: defaultdict[int, dict[str, _Remembered]] = defaultdict(dict)
        self._writer = _Writer(redis)
        self._reads = Breaker(pause_s=_PAUSE_S)

    async def add_all(self, orders: Sequence[Order]) -> None:
        """Remember ``orders``; a Redis that is away neither matters nor takes time."""
        added = asyncio.get_running_loop().create_future()
        self._add(orders, added)
        await added

    def add_for(self, waiter: asyncio.Future[Any], order: Order) -> None:
        """As ``add_all``, for whoever waits for ``waiter``: it has a result when ``add_all`` would return."""
        self._add([order], waiter)

    async def get(self, order_id: str, user_id: int) -> Order | None:
        """A pending order of a user.

        Raises:
            Unavailable: this process has not taken it, and Redis does not say whether another one has.
        """
        own = self._own.get(order_id)
        raw = own.json if own is not None else await self._read(self._redis.get, _key_of(order_id))
        if raw is None:
            return None
        order: Order = _decode(raw)
        return order if order["userId"] == user_id else None

    async def of_user(
        self, user_id: int, *, newer_than_ms: int, before: tuple[int, str] | None = None, most: int = LISTED_MAX
    ) -> list[Order]:
        """The pending orders of a user that were placed after a moment, newest first, as pages have them.

        While Redis is away they are those that this process has taken. Of those that others have taken there are no
        more than the user's newest ``LISTED_MAX``.

        Args:
            user_id: whose orders.
            newer_than_ms: the moment, in epoch milliseconds.
            before: only those behind an order with this time and id.
            most: only so many, the newest, and never more than ``LISTED_MAX``. Page ``n`` of ``limit`` orders can
                show no others than the newest ``n * limit``.
        """

        def is_shown(created_ms: int, order_id: str) -> bool:
            return before is None or (created_ms, order_id) < before

        most = min(most, LISTED_MAX)
        own = [
            one
            for one in self._own_of_user.get(user_id, {}).values()
            if one.created_ms > newer_than_ms and is_shown(one.created_ms, one.id)
        ]
        newest = nlargest(most, own, key=lambda one: (one.created_ms, one.id))
        orders: list[Order] = [_decode(one.json) for one in newest]
        with suppress(Unavailable):
            key = _list_of(user_id)
            # The newest first, and of one moment those with the largest id.
            newest_ms = "+inf" if before is None else before[0]
            ids = await self._read(self._redis.zrevrangebyscore, key, newest_ms, f"({newer_than_ms}", start=0, num=most)
            others = [_key_of(order_id) for raw in ids if (order_id := raw.decode()) not in self._own]
            if others:
                orders += [_decode(raw) for raw in await self._read(self._redis.mget, others) if raw is not None]
        # Redis has counted others of that moment, too.
        orders = [order for order in orders if is_shown(order["createdAtMs"], order["id"])]
        return nlargest(most, orders, key=lambda order: (order["createdAtMs"], order["id"]))

    async def close(self) -> None:
        """Stop writing."""
        await self._writer.close()

    def _add(self, orders: Sequence[Order], added: asyncio.Future[Any]) -> None:
        own = [
            _Remembered(order["id"], order["userId"], order["createdAtMs"], _encode(order).decode()) for order in orders
        ]
        for one in own:
            self._own[one.id] = self._own_of_user[one.user_id][one.id] = one
            while len(self._own) > _OWN_MAX:
                self._forget_oldest()
        self._writer.write(own, added)

    def _forget_oldest(self) -> None:
        order_id, oldest = self._own.popitem(last=False)
        of_user = self._own_of_user[oldest.user_id]
        del of_user[order_id]
        if not of_user:
            del self._own_of_user[oldest.user_id]

    async def _read(self, command: Any, *args: Any, **options: Any) -> Any:
        """What Redis answers.

        Raises:
            Unavailable: nothing, or not soon.
        """
        if not self._reads.allows():
            raise Unavailable(_AWAY)
        try:
            answer = await _within(_READ_WAIT_S, command(*args, **options))
        except REDIS_AWAY as exc:
            if is_refusal(exc):
                # Redis is there: what one key holds closes it to nobody else.
                self._reads.succeeded()
                log.exception("a pending order, or a user's list of them, cannot be read")
                raise Unavailable(_AWAY) from exc
            self._reads.failed()
            log.warning("pending orders of other processes are not seen, Redis is away: %r", exc)
            raise Unavailable(_AWAY) from exc
        self._reads.succeeded()
        return answer


class _Writer:
    """Writes orders into Redis, many at once, in the order they came."""

    def __init__(self, redis: RedisClient) -> None:
        self._script = redis.register_script(_SCRIPT)
        # What is not written yet when this overflows is only in this process; the oldest is persisted by then.
        self._waiting: deque[_Remembered] = deque(maxlen=_OWN_MAX)
        # Who waits for the orders that are not in a write yet.
        self._waiters: list[asyncio.Future[Any]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_quick = True

    def write(self, orders: Sequence[_Remembered], written: asyncio.Future[Any]) -> None:
        """Have ``orders`` written; ``written`` has a result then, or at once while Redis is not quick."""
        self._waiting.extend(orders)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        if not self._is_quick:
            written.set_result(None)
            return
        if not self._waiters:
            asyncio.get_running_loop().call_later(_WRITE_WAIT_S, self._give_up, self._waiters)
        # Many wait for one write, each on a future of its own: none of them may end it for the others.
        self._waiters.append(written)

    def _give_up(self, waiters: list[asyncio.Future[Any]]) -> None:
        if waiters:
            self._is_quick = False
            _release(waiters)

    async def close(self) -> None:
        """Stop writing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _write_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _WRITTEN_AT_ONCE))]
            waiters, self._waiters = self._waiters, []
            try:
                await self._write(batch)
            except Exception:
                # One batch that cannot be written, whatever is wrong with it, must not keep the next one from it.
                log.exception("%d pending orders stay only in this process", len(batch))
            finally:
                _release(waiters)

    async def _write(self, batch: list[_Remembered]) -> None:
        """Write a batch, as often as it takes.

        Raises:
            ResponseError: Redis will not take it, however often it is tried.
        """
        # One command with one text for all of them: what the client does for each command, and for each argument,
        # would cost more than all else about an order.
        packed = msgspec.msgpack.encode(list(chain.from_iterable(batch)))
        while True:
            try:
                await self._script(args=[PENDING_S_MAX, LISTED_MAX, packed])
            except REDIS_AWAY as exc:
                if is_refusal(exc):
                    raise
                self._is_quick = False
                _release(self._waiters)
                log.warning(
                    "%d pending orders are only in this process until Redis takes them: %r", self._unwritten(batch), exc
                )
                await asyncio.sleep(_RETRY_S)
            else:
                self._is_quick = True
                return

    def _unwritten(self, batch: list[_Remembered]) -> int:
        return len(batch) + len(self._waiting)


def _release(waiters: list[asyncio.Future[Any]]) -> None:
    """Let those go on who wait; the list is empty then, which tells that they do not wait any more."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()


async def _within(seconds: float, answer: Awaitable[ResultT]) -> ResultT:
    async with asyncio.timeout(seconds):
        return await answer


def _key_of(order_id: str) -> str:
    return f"pending-order:{order_id}"


def _list_of(user_id: int) -> str:
    return f"pending-orders:{user_id}"
