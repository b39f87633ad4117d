"""Pending orders on a Redis that refuses something; with a real one they are tested in the integration tests."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError, ResponseError

from forkast_streams.errors import Unavailable
from forkast_streams.orders import pending as pending_module
from forkast_streams.orders.pending import LISTED_MAX, PendingOrders

_WRONG_TYPE = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


class Redis:
    """A Redis that can refuse what it is asked.

    Attributes:
        values: of its keys.
        answers: errors of the next writes, None for one that succeeds.
        unreadable: keys that hold something else.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.answers: list[RedisError | None] = []
        self.unreadable: set[str] = set()

    def register_script(self, _text: str) -> Any:
        async def remember(*, args: list[Any]) -> None:
            answer = self.answers.pop(0) if self.answers else None
            if answer is not None:
                raise answer
            flat = msgspec.msgpack.decode(args[2])
            for order_id, text in zip(flat[::4], flat[3::4], strict=True):
                self.values[f"pending-order:{order_id}"] = text.encode()

        return remember

    async def get(self, key: str) -> bytes | None:
        if key in self.unreadable:
            raise _WRONG_TYPE
        return self.values.get(key)

    async def zrevrangebyscore(
        self, key: str, newest_ms: str | int, _oldest_ms: str, *, start: int, num: int
    ) -> list[bytes]:
        assert start == 0
        if key in self.unreadable:
            raise _WRONG_TYPE
        user_id = int(key.partition(":")[2])
        orders = [msgspec.json.decode(value) for value in self.values.values()]
        places = [(one["createdAtMs"], one["id"]) for one in orders if one["userId"] == user_id]
        newest = float(newest_ms)
        return [order_id.encode() for ms, order_id in sorted(places, reverse=True) if ms <= newest][:num]

    async def mget(self, keys: list[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]


@pytest.fixture
def redis() -> Redis:
    return Redis()


def process(redis: Redis) -> PendingOrders:
    """One process; each knows of the others' orders through Redis only."""
    return PendingOrders(cast("Any", redis))


def order(order_id: str, user_id: int = 7, created_ms: int = 1) -> dict[str, Any]:
    return {"id": order_id, "userId": user_id, "createdAtMs": created_ms}


async def test_write_that_redis_refuses_stops_no_other(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """It stays in this process, the log has an error, and the next order is known to all processes."""
    here, there = process(redis), process(redis)
    redis.answers = [_WRONG_TYPE]
    await here.add_all([order("refused")])
    await here.add_all([order("next")])
    assert await there.get("next", 7) == order("next")
    assert await there.get("refused", 7) is None
    assert await here.get("refused", 7) == order("refused")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    await here.close()


@pytest.mark.parametrize(
    "passing",
    [OutOfMemoryError("command not allowed"), ReadOnlyError("replica"), ResponseError("MISCONF no snapshots now")],
)
async def test_write_that_redis_cannot_take_now_is_tried_again(
    redis: Redis, passing: RedisError, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis without room or without its master takes it later."""
    monkeypatch.setattr(pending_module, "_RETRY_S", 0.01)
    here, there = process(redis), process(redis)
    redis.answers = [passing, passing]
    await here.add_all([order("waiting")])
    async with asyncio.timeout(5.0):
        await cast("Any", here._writer._task)
    assert await there.get("waiting", 7) == order("waiting")
    await here.close()


async def test_key_that_cannot_be_read_closes_redis_to_nobody_else(redis: Redis) -> None:
    """Neither one order nor the list of one user keeps others from being found."""
    here, there = process(redis), process(redis)
    await here.add_all([order("good")])
    redis.unreadable = {"pending-order:bad", "pending-orders:3"}
    assert await there.of_user(3, newer_than_ms=0) == []
    with pytest.raises(Unavailable):
        await there.get("bad", 7)
    assert await there.get("good", 7) == order("good")
    await here.close()


@pytest.mark.parametrize("knows_by", ["itself", "Redis"])
async def test_pages_go_on_behind_the_newest_of_many(redis: Redis, knows_by: str) -> None:
    """Behind an order come the next ones, however many there are before it, and no order twice or not at all."""
    placing = process(redis)
    listing = placing if knows_by == "itself" else process(redis)
    # Three of each moment, so that pages end in the middle of one.
    orders = [order(f"{number:05d}", created_ms=1 + number // 3) for number in range(3 * LISTED_MAX)]
    await placing.add_all(orders)
    seen: list[dict[str, Any]] = []
    before = None
    while page := await listing.of_user(7, newer_than_ms=0, before=before, most=LISTED_MAX):
        seen += page[:700]
        before = seen[-1]["createdAtMs"], seen[-1]["id"]
    assert seen == orders[::-1]
    await placing.close()
