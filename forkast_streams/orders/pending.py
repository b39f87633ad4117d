"""Orders the log has taken and the database does not have yet, so that they can be read at once.

They are kept in Redis for all processes, and in this process's memory, so that a Redis that is away or was flushed
hides no order from the client that placed it here. A row of the database always wins over a pending order.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from typing import Any

import msgspec

from forkast_streams.storage.redis import REDIS_AWAY, RedisClient

log = logging.getLogger(__name__)

PENDING_S_MAX = 600
_OWN_MAX = 20_000
_LISTED_MAX = 1_000

Order = dict[str, Any]


class PendingOrders:
    """Remembers orders until they have a row.

    Orders are as the views answer them, with ``createdAt`` in milliseconds under ``createdAtMs``.
    """

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._own: OrderedDict[str, Order] = OrderedDict()
        self._own_of_user: defaultdict[int, dict[str, Order]] = defaultdict(dict)

    async def add(self, order: Order) -> None:
        """Remember ``order``; a Redis that is away does not matter."""
        self._own[order["id"]] = order
        self._own_of_user[order["userId"]][order["id"]] = order
        while len(self._own) > _OWN_MAX:
            order_id, oldest = self._own.popitem(last=False)
            del self._own_of_user[oldest["userId"]][order_id]
        of_user = _of_user(order["userId"])
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(f"order:{order['id']}", msgspec.json.encode(order), ex=PENDING_S_MAX)
                pipeline.zadd(of_user, {order["id"]: order["createdAtMs"]})
                pipeline.zremrangebyrank(of_user, 0, -_LISTED_MAX - 1)
                pipeline.expire(of_user, PENDING_S_MAX)
                await pipeline.execute()
        except REDIS_AWAY as exc:
            log.warning("a pending order is only in this process, Redis is away: %r", exc)

    async def get(self, order_id: str, user_id: int) -> Order | None:
        """A pending order of a user."""
        order = self._own.get(order_id)
        if order is None:
            try:
                raw = await self._redis.get(f"order:{order_id}")
            except REDIS_AWAY:
                return None
            order = msgspec.json.decode(raw) if raw is not None else None
        return order if order is not None and order["userId"] == user_id else None

    async def of_user(self, user_id: int, *, newer_than_ms: int) -> list[Order]:
        """The pending orders of a user that were placed after a moment."""
        orders = {
            order["id"]: order for order in self._own_of_user[user_id].values() if order["createdAtMs"] > newer_than_ms
        }
        try:
            ids = await self._redis.zrangebyscore(_of_user(user_id), newer_than_ms, "+inf")
            unknown = [f"order:{raw.decode()}" for raw in ids if raw.decode() not in orders]
            found = await self._redis.mget(unknown) if unknown else []
        except REDIS_AWAY:
            found = []
        for raw in found:
            if raw is not None:
                order = msgspec.json.decode(raw)
                orders[order["id"]] = order
        return list(orders.values())


def _of_user(user_id: int) -> str:
    return f"user-orders:{user_id}"
