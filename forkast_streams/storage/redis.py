"""Redis: clients with bounded waits."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

# What a Redis that is away looks like.
REDIS_AWAY = (RedisError, OSError, TimeoutError)

# The package's annotations are unions of what its synchronous and asynchronous clients answer.
RedisClient = Any

_CONNECT_S_MAX = 1.0
_ANSWER_S_MAX = 2.0


def connect(url: str, *, blocking: bool = False) -> RedisClient:
    """A client; it connects with its first command.

    Args:
        url: ``redis://`` URL.
        blocking: for commands that wait for data on the server, which must not be cut off.
    """
    return Redis.from_url(
        url,
        socket_connect_timeout=_CONNECT_S_MAX,
        socket_timeout=None if blocking else _ANSWER_S_MAX,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=0,
    )
