"""Redis: clients with bounded waits."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import RedisError, ResponseError

from forkast_streams.limits import REDIS_BLOCK_S_MAX, REDIS_TIMEOUT_S

# What a Redis that is away looks like.
REDIS_AWAY = (RedisError, OSError, TimeoutError)

# The package's annotations are unions of what its synchronous and asynchronous clients answer.
RedisClient = Any

# How answers begin that are about how the server is now; those that the package has a class for are not among them.
_NOT_NOW = ("MISCONF ", "NOREPLICAS ", "BUSY ", "UNKILLABLE ")

_CONNECTIONS_MAX = 2_000
_COMMANDS = HiredisRespSerializer()


class _PackingConnection(Connection):
    """Lets C write commands, as the package's synchronous client does; in Python that was an eighth of a keeper."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as Redis reads it."""
        return _COMMANDS.pack(*args)  # type: ignore[no-any-return]


def is_refusal(exc: BaseException) -> bool:
    """Whether Redis is there and does not take this one command: to try again is no help, and others are taken.

    A Redis that is out of memory, read-only, loading or without its master is away for a while instead.
    """
    # Those of a class of their own, OOM or READONLY, are about the server, too, or about who may ask it.
    return type(exc) is ResponseError and not str(exc).startswith(_NOT_NOW)


def connect(redis_url: str, *, answer_s_max: float = REDIS_BLOCK_S_MAX + REDIS_TIMEOUT_S) -> RedisClient:
    """A client that fails soon instead of trying again by itself; connections are made when they are needed.

    Args:
        redis_url: where Redis is.
        answer_s_max: seconds it may take for an answer; by default as long as a read may wait for data there.
    """
    return Redis.from_url(
        redis_url,
        # Of a URL without TLS.
        connection_class=_PackingConnection,
        # Answers keep the shapes of this version, whatever a later client prefers.
        protocol=2,
        # Each followed symbol keeps one connection, waiting.
        max_connections=_CONNECTIONS_MAX,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_timeout=answer_s_max,
        retry=Retry(NoBackoff(), 0),
    )
