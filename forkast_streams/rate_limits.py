"""Rate limits by key, decided in this process within microseconds and shared by all processes through Redis.

Each key has a token bucket here. What was taken from it is reported to the key's bucket in Redis a few times a second,
for many keys in one atomic command, whose answer lowers the bucket here to what all processes together have left.
So no request waits for Redis; while Redis is away the buckets here limit each process by itself; and P processes
let through at most P bursts of a user that was silent, after which its debt in Redis brings it down to the rate.

Time is this process's monotonic clock here, and Redis's clock there, guarded against jumps.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from importlib.resources import files

from mode import Service

from forkast_streams.breaker import Breaker
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient

log = logging.getLogger(__name__)

_SCRIPT = (files(__package__) / "rate_limits.lua").read_text()
_REPORT_INTERVAL_S = 0.05
_REPORTED_AT_ONCE = 500
_REPORT_WAIT_S = 0.5
_PAUSE_S = 1.0
_BUCKETS_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Limit:
    """A kind of limit.

    Attributes:
        name: part of the keys in Redis.
        rate: tokens that come back a second; 0 means that nothing is limited.
        size: tokens a full bucket has.
    """

    name: str
    rate: float
    size: float


class Bucket:
    """What one key may still do.

    Attributes:
        limit: its kind.
        tokens: left when it was last looked at; below 0 for a debt.
        spent: taken and not reported yet.
    """

    __slots__ = ("_at", "limit", "spent", "tokens")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit = limit
        self.tokens = limit.size
        self.spent = 0.0
        self._at = now

    def refill(self, now: float) -> None:
        """Let the tokens of the time that has passed come back."""
        self.tokens = min(self.limit.size, self.tokens + (now - self._at) * self.limit.rate)
        self._at = now

    @property
    def remaining(self) -> int:
        """Whole tokens left."""
        return max(0, int(self.tokens))

    def seconds_until(self, tokens: float) -> float:
        """Seconds until there are so many tokens; more than the bucket can hold means a full one."""
        return max(0.0, (min(tokens, self.limit.size) - self.tokens) / self.limit.rate)

    def retry_after_s(self, tokens: float = 1.0) -> int:
        """``seconds_until`` as the whole seconds of a ``Retry-After``."""
        return max(1, math.ceil(self.seconds_until(tokens)))


class RateLimits(Service):
    """The buckets of this process and their reports to Redis."""

    def __init__(self, redis: RedisClient, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._redis = redis
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._unreported: dict[tuple[str, str], Bucket] = {}
        self._breaker = Breaker(pause_s=_PAUSE_S)
        self._script = redis.register_script(_SCRIPT)

    def bucket(self, limit: Limit, key: str) -> Bucket:
        """The bucket of ``key``, as it is now."""
        now = time.monotonic()
        name = (limit.name, key)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(limit, now)
            if len(self._buckets) > _BUCKETS_MAX:
                oldest, _ = self._buckets.popitem(last=False)
                # Names come from clients: while Redis is away, what waits to be reported must not outgrow the buckets.
                self._unreported.pop(oldest, None)
        else:
            self._buckets.move_to_end(name)
            bucket.refill(now)
        return bucket

    def take(self, limit: Limit, key: str, tokens: float = 1.0) -> tuple[bool, Bucket]:
        """Take tokens if they are there; return whether they were, and the bucket.

        More tokens than a bucket can hold are taken from a full one, which is in debt then.
        """
        bucket = self.bucket(limit, key)
        if limit.rate and bucket.tokens < min(tokens, limit.size):
            return False, bucket
        self.spend(bucket, key, tokens)
        return True, bucket

    def spend(self, bucket: Bucket, key: str, tokens: float = 1.0) -> None:
        """Take tokens whether they are there or not; ``bucket`` gave the bucket just now.

        Nothing makes what is owed more than a whole bucket, or than what one request needed besides a full one.
        """
        limit = bucket.limit
        if limit.rate:
            most = max(limit.size, tokens - limit.size)
            bucket.tokens = max(min(bucket.tokens, -most), bucket.tokens - tokens)
            bucket.spent = min(max(bucket.spent, limit.size + most), bucket.spent + tokens)
            self._unreported[limit.name, key] = bucket

    async def report(self) -> None:
        """Tell Redis what was spent, and learn what others have left."""
        names = list(self._unreported)[:_REPORTED_AT_ONCE]
        if not names or not self._breaker.allows():
            return
        buckets = [self._unreported.pop(name) for name in names]
        spent = [bucket.spent for bucket in buckets]
        try:
            async with asyncio.timeout(_REPORT_WAIT_S):
                left = await self._run(names, buckets)
        except REDIS_AWAY as exc:
            if self._breaker.is_closed:
                log.warning("each process limits rates by itself, Redis is away: %r", exc)
            self._breaker.failed()
            # Reported again later. A report of which only the answer was lost counts twice, which heals by itself.
            # A bucket that has made room for others meanwhile is not: the names here are always some of the buckets'.
            asked = zip(names, buckets, strict=True)
            kept = {name: bucket for name, bucket in asked if self._buckets.get(name) is bucket}
            self._unreported = kept | self._unreported
            return
        self._breaker.succeeded()
        now = time.monotonic()
        for bucket, reported, tokens in zip(buckets, spent, left, strict=True):
            bucket.refill(now)
            bucket.spent -= reported
            # A Redis that lost its buckets must not make ours full again.
            bucket.tokens = min(bucket.tokens, float(tokens) - bucket.spent)
        # What others have spent of a bucket that is only read here is learnt with the next token taken from it.

    async def _run(self, names: list[tuple[str, str]], buckets: list[Bucket]) -> list[bytes]:
        keys = [f"rate:{limit}:{key}" for limit, key in names]
        args = [text for one in buckets for text in (one.limit.rate, one.limit.size, round(one.spent, 6))]
        left: list[bytes] = await self._script(keys=keys, args=args)
        return left

    @Service.task
    async def _report_often(self) -> None:
        while not self.should_stop:
            await self.sleep(_REPORT_INTERVAL_S)
            await self.report()

    async def on_stop(self) -> None:
        """Close the connection."""
        await self._redis.aclose()
