"""Redis: clients with bounded waits."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from forkast_streams.limits import REDIS_BLOCK_S_MAX, REDIS_TIMEOUT_S

# What a Redis that is away looks like.
REDIS_AWAY = (RedisError, OSError, TimeoutError)

# The package's annotations are unions of what its synchronous and asynchronous clients answer.
RedisClient = Any

# How answers begin that are about how the server is now; those that the package has a class for are not among them.
_NOT_NOW = ("MISCONF ", "NOREPLICAS ", "BUSY ", "UNKILLABLE ")

_CONNECTIONS_MAX = 2_000
_COMMANDS = HiredisRespSerializer()


class _Connection(AbstractConnection):
    """What this package does otherwise than the client's own connections."""

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as Redis reads it, written by C; in Python that was an eighth of a keeper."""
        return _COMMANDS.pack(*args)  # type: ignore[no-any-return]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """The answer to a command; from a Redis that has become a replica it is the last one here.

        The host in REDIS_URL may be the name of another one by now, which only a new connection finds.
        """
        try:
            return await super().read_response(*args, **options)
        except ResponseError as exc:
            # Before Redis 7 a script's error had another one around it.
            if isinstance(exc, ReadOnlyError) or "-READONLY" in str(exc):
                # Not closed at once: the answers to the rest of a pipeline are still to be read.
                self.mark_for_reconnect()  # type: ignore[no-untyped-call]
            raise


class _TcpConnection(_Connection, Connection):
    """Of ``redis://``."""


class _TlsConnection(_Connection, SSLConnection):
    """Of ``rediss://``."""


class _UnixConnection(_Connection, UnixDomainSocketConnection):
    """Of ``unix://``."""


_CONNECTION_CLASSES: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _TcpConnection,
    SSLConnection: _TlsConnection,
    UnixDomainSocketConnection: _UnixConnection,
}


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
    client = Redis.from_url(
        redis_url,
        # Answers keep the shapes of this version, whatever a later client prefers.
        protocol=2,
        # Each followed symbol keeps one connection, waiting.
        max_connections=_CONNECTIONS_MAX,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_timeout=answer_s_max,
        retry=Retry(NoBackoff(), 0),
    )
    # The class that the URL's scheme asks for would go before one that is given above.
    pool = client.connection_pool
    pool.connection_class = _CONNECTION_CLASSES[pool.connection_class]
    return client
