"""Postgres: a pool of connections, named queries, and the making of the database."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiopg
import psycopg2
from mode import Service
from psycopg2 import errorcodes, sql
from psycopg2.extras import RealDictCursor

from forkast_streams.errors import SetupError, Unavailable

log = logging.getLogger(__name__)

_POOL_MAX = 8
_STATEMENT_TIMEOUT_MS = 20_000
_CONNECT_TIMEOUT_S = 5
# What passes by itself: the server is away or restarts, a lock or the time limit was in the way.
_TRANSIENT_CODES = frozenset(
    {
        errorcodes.QUERY_CANCELED,
        errorcodes.LOCK_NOT_AVAILABLE,
        errorcodes.DEADLOCK_DETECTED,
        errorcodes.SERIALIZATION_FAILURE,
        errorcodes.TOO_MANY_CONNECTIONS,
        errorcodes.ADMIN_SHUTDOWN,
        errorcodes.CRASH_SHUTDOWN,
        errorcodes.CANNOT_CONNECT_NOW,
        errorcodes.DISK_FULL,
        errorcodes.OUT_OF_MEMORY,
    }
)


class Postgres(Service):
    """Runs the named queries of ``storage/sql``; each is one statement and its own transaction."""

    def __init__(self, database_url: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._database_url = database_url
        self._pool: aiopg.Pool | None = None

    async def on_stop(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.terminate()
            await self._pool.wait_closed()
            self._pool = None

    async def fetch(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Run the query ``name`` and return its rows.

        Raises:
            Unavailable: the database is out of reach or too slow now; trying again later may help.
        """
        try:
            pool = await self._connected()
            async with pool.acquire() as connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
                await cursor.execute(named_query(name), parameters)
                return [dict(row) for row in await cursor.fetchall()]
        except (psycopg2.Error, TimeoutError, OSError) as exc:
            if is_transient(exc):
                raise Unavailable(f"Postgres is not reachable now ({type(exc).__name__}); try again shortly.") from exc
            raise

    async def _connected(self) -> aiopg.Pool:
        if self._pool is None:
            self._pool = await aiopg.create_pool(
                self._database_url,
                minsize=0,
                maxsize=_POOL_MAX,
                timeout=_STATEMENT_TIMEOUT_MS / 1000 + 1,
                pool_recycle=300,
                enable_hstore=False,
                enable_uuid=False,
                connect_timeout=_CONNECT_TIMEOUT_S,
                options=f"-c statement_timeout={_STATEMENT_TIMEOUT_MS} -c timezone=UTC",
            )
        return self._pool


def is_transient(exc: BaseException) -> bool:
    """Whether the same statement may succeed later."""
    if isinstance(exc, psycopg2.Error) and exc.pgcode is not None:
        return exc.pgcode in _TRANSIENT_CODES
    return isinstance(exc, psycopg2.OperationalError | psycopg2.InterfaceError | TimeoutError | OSError)


@lru_cache(maxsize=64)
def named_query(name: str) -> str:
    """The text of ``storage/sql/<name>.sql``."""
    return resources.files("forkast_streams.storage").joinpath("sql", f"{name}.sql").read_text()


async def prepare_database(database_url: str, *, demo_users: bool) -> None:
    """Create what is missing: the database, its tables, the symbols and, if asked for, the demo users.

    Raises:
        SetupError: the server is out of reach or refuses.
    """
    try:
        _create_database(database_url)
        with psycopg2.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            with connection.cursor() as cursor:
                cursor.execute(_top_level("schema.sql"))
                symbols, _, users = _top_level("init.sql").partition("-- demo users")
                cursor.execute(symbols + ("--" + users if demo_users else ""))
        connection.close()
    except psycopg2.Error as exc:
        raise SetupError(
            f"the database could not be prepared ({str(exc).strip().splitlines()[0]}); "
            "start it (`forkast stack up`) or set DATABASE_URL."
        ) from exc


def _create_database(database_url: str) -> None:
    url = urlsplit(database_url)
    name = url.path.lstrip("/")
    try:
        psycopg2.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S).close()
    except psycopg2.OperationalError as exc:
        if f'database "{name}" does not exist' not in str(exc):
            raise
        connection = psycopg2.connect(urlunsplit(url._replace(path="/postgres")), connect_timeout=_CONNECT_TIMEOUT_S)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        connection.close()


def _top_level(name: str) -> str:
    return (Path(__file__).parents[2] / name).read_text()
