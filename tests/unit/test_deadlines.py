"""Many waits of one length expire by one timer, each when its own time is up."""

from __future__ import annotations

import asyncio

from forkast_streams.deadlines import Deadlines

_SECONDS = 0.05


class _Wait:
    def __init__(self) -> None:
        self.is_ended = False
        self.expired_at: float | None = None
        self.began = asyncio.get_running_loop().time()
        self.expired = asyncio.Event()

    def is_over(self) -> bool:
        return self.is_ended

    def expire(self) -> None:
        self.is_ended = True
        self.expired_at = asyncio.get_running_loop().time()
        self.expired.set()


async def test_each_wait_expires_in_its_own_time_unless_it_is_over() -> None:
    deadlines = Deadlines()
    first, over = _Wait(), _Wait()
    deadlines.limit(first, _SECONDS)
    deadlines.limit(over, _SECONDS)
    over.is_ended = True
    await asyncio.sleep(_SECONDS / 2)
    last = _Wait()
    deadlines.limit(last, _SECONDS)
    await asyncio.wait_for(last.expired.wait(), 5)
    assert over.expired_at is None
    for one in (first, last):
        assert one.expired_at is not None
        assert one.expired_at - one.began >= _SECONDS * 0.9


async def test_waits_expire_after_a_time_without_any() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        one = _Wait()
        deadlines.limit(one, _SECONDS)
        await asyncio.wait_for(one.expired.wait(), 5)


async def test_what_is_over_is_not_kept() -> None:
    """Of thousands of requests a second none must be held until its time would have been up."""
    deadlines = Deadlines()
    for _ in range(1_000):
        one = _Wait()
        deadlines.limit(one, 60)
        one.is_ended = True
    assert len(deadlines._waits) == 1
