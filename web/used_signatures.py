"""That a signed request counts once, in this process and, while Redis answers, in all of them."""

from __future__ import annotations

import asyncio

from forkast_streams.breaker import Breaker
from forkast_streams.errors import ApiError
from forkast_streams.signatures import UsedSignatures
from forkast_streams.storage.redis import REDIS_AWAY, RedisClient

_WAIT_S = 0.05
_PAUSE_S = 1.0


class SharedUsedSignatures:
    """The signatures that were used.

    A Redis that is away or slow holds no request: until it is back a request that was used in one process could be
    sent once more to each other one, while it is timely.

    Args:
        redis: where the processes tell each other.
        window_ms: how old a signed request may be.
    """

    def __init__(self, redis: RedisClient, window_ms: int) -> None:
        self.window_ms = window_ms
        self._redis = redis
        self._own = UsedSignatures(window_ms)
        self._breaker = Breaker(pause_s=_PAUSE_S)

    async def is_first_use(self, signature: str) -> bool:
        """Whether ``signature`` was not used before; it is now.

        Raises:
            ApiError: 429, there are too many to remember.
        """
        try:
            if not self._own.is_first_use(signature):
                return False
        except OverflowError:
            message = "too many signed requests are remembered; try again"
            raise ApiError(429, "RATE_LIMITED", message, headers={"Retry-After": "1"}) from None
        if not self._breaker.allows():
            return True
        try:
            async with asyncio.timeout(_WAIT_S):
                kept_ms = int(self._own.kept_s * 1_000)
                is_first = await self._redis.set(f"signature:{signature}", b"", nx=True, px=kept_ms)
        except REDIS_AWAY:
            self._breaker.failed()
            return True
        self._breaker.succeeded()
        return bool(is_first)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
