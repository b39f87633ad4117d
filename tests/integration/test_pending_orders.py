"""Pending orders in a real Redis: OMS processes find each other's, whatever hangs or stands in their place."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from forkast_streams.devstack import Stack
from forkast_streams.orders.pending import LISTED_MAX, PendingOrders
from forkast_streams.storage.redis import connect
from tests.integration.boundary import hanging
from tests.integration.market_data import eventually


@pytest.fixture
async def redis(stack_env: dict[str, str]) -> AsyncIterator[Redis]:
    one = connect(stack_env["REDIS_URL"])
    yield one
    await one.aclose()


@pytest.fixture
async def pending(redis: Redis) -> AsyncIterator[PendingOrders]:
    """Those of the process that takes the orders."""
    one = PendingOrders(redis)
    yield one
    await one.close()


@pytest.fixture
async def other(stack_env: dict[str, str]) -> AsyncIterator[PendingOrders]:
    """Those of another process."""
    redis = connect(stack_env["REDIS_URL"])
    one = PendingOrders(redis)
    yield one
    await one.close()
    await redis.aclose()


async def _are_written(other: PendingOrders, orders: list[dict[str, Any]]) -> None:
    """Wait for them: who takes an order waits for Redis only for a moment."""

    async def all_are_there() -> bool:
        return all([await other.get(order["id"], order["userId"]) is not None for order in orders])

    await eventually(all_are_there, "the orders in Redis", within_s=20.0)


async def test_orders_of_a_hang_reach_redis_afterwards(
    stack: Stack, pending: PendingOrders, other: PendingOrders
) -> None:
    """Another process finds them there."""
    orders = [{"id": f"hang-{number}", "userId": 91, "createdAtMs": number + 1} for number in range(500)]
    with hanging(stack, "redis"):
        start = time.monotonic()
        for order in orders:
            await pending.add_all([order])
        assert time.monotonic() - start < 1.0
    await _are_written(other, orders)
    assert len(await other.of_user(91, newer_than_ms=0)) == len(orders)
    assert await other.get("hang-7", 91) == orders[7]
    assert await other.get("hang-7", 92) is None


async def test_orders_of_several_users_reach_redis_together(pending: PendingOrders, other: PendingOrders) -> None:
    """Each in its own user's list; numbers as large as ids and times can be come back as they were."""
    users = (94, 95, 2**31 - 1)
    orders = [
        {"id": f"together-{number}", "userId": users[number % 3], "createdAtMs": 1_764_288_000_000 + number}
        for number in range(200)
    ]
    await pending.add_all(orders)
    await _are_written(other, orders[-3:])
    for at, user in enumerate(users):
        assert await other.of_user(user, newer_than_ms=1_764_287_999_999) == orders[at::3][::-1]
    assert await other.get("together-5", 2**31 - 1) == orders[5]


async def test_what_others_keep_in_redis_keeps_no_order_from_being_remembered(
    redis: Redis, pending: PendingOrders, other: PendingOrders
) -> None:
    """The list the predecessor keeps of a user stays as it is, and what stands in our place makes room."""
    await redis.lpush("user-orders:96", "{}")
    await redis.lpush("pending-orders:97", "{}")
    orders = [{"id": f"shared-{user}", "userId": user, "createdAtMs": user} for user in (96, 97, 98)]
    await pending.add_all(orders)
    await _are_written(other, orders)
    for order in orders:
        assert await other.of_user(order["userId"], newer_than_ms=0) == [order]
        assert await other.get(order["id"], order["userId"]) == order
    assert await redis.lrange("user-orders:96", 0, -1) == [b"{}"]


async def test_list_of_pending_orders_is_bounded(pending: PendingOrders) -> None:
    """However many a user has, a page looks at no more than it can show."""
    for number in range(12_000):
        await pending.add_all([{"id": f"many-{number}", "userId": 93, "createdAtMs": number + 1}])
    newest = await pending.of_user(93, newer_than_ms=0, most=10)
    assert [order["createdAtMs"] for order in newest] == list(range(12_000, 11_990, -1))
    assert len(await pending.of_user(93, newer_than_ms=0)) == LISTED_MAX
