"""Postgres as a service: a pool that outlives outages of the server, and the preparation of a database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from importlib import resources
from types import MappingProxyType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiopg
import psycopg2
import psycopg2.errors
from mode import Service
from psycopg2 import sql
from psycopg2.extensions import parse_dsn
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from forkast_streams.errors import SetupError, Unavailable
from forkast_streams.storage.addresses import ServerAddresses, server_options
from forkast_streams.storage.queries import prepared, query

log = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Row = tuple[Any, ...]
Run = Callable[[aiopg.Connection, aiopg.Cursor], Awaitable[None]]

# The client gives up first: aiopg turns a time-out of the server's into the cancellation of the calling task.
STATEMENT_TIMEOUT_S = 20.0
_SERVER_PATIENCE = 1.25
_LOCK_TIMEOUT_MS = 5_000
_CONNECT_TIMEOUT_S = 5
_RETRY_WAIT_S_MAX = 2.0
PING_INTERVAL_S = 1.0
# Seconds a connection may take to come up, with the wait for others to come up, and what one attempt may take of them.
_CONNECT_S_MAX = 3.0
_ATTEMPT_S_MAX = 2.5
# Seconds between two looks for the answer to a statement that takes long.
_NUDGE_S = 0.5
_ENCODING = "UTF8"
_PREPARE_LOCK = 0x666F726B617374

# aiopg leaves the reader of a refused connection in uvloop's books (aio-libs/aiopg#909). The next connection whose
# socket has the same number fails with this and takes the reader away, so the one after it succeeds.
_STALE_READER = "the handler is closed"

_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})
_DEMO_USERS_MARK = "-- demo users:"


class StatementCancelled(psycopg2.OperationalError):
    """The server has ended a statement, by its time-out or on an operator's demand."""


class Postgres(Service):
    """A pool of connections on which every statement is a transaction of its own.

    Starting it does not need the server: connections are made when they are needed. uuids come as text.

    Args:
        database_url: ``postgresql://`` URL.
        connections: the most connections at a time.
        timeout_s: the most a statement takes, with the wait for a connection.
        name: shown in ``pg_stat_activity``.
        options: the server's settings for these connections.

    Attributes:
        answered_ms: when a statement was answered last, in epoch milliseconds; while the server answers that is no
            longer ago than ``PING_INTERVAL_S``.
    """

    def __init__(
        self,
        database_url: str,
        *,
        connections: int = 4,
        timeout_s: float = STATEMENT_TIMEOUT_S,
        name: str = "forkast",
        options: Mapping[str, str] = _NO_OPTIONS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._url = database_url
        self._addresses = ServerAddresses(database_url)
        self._connections = connections
        self._timeout_s = timeout_s
        self._name = name
        self._options = {
            "statement_timeout": str(int(timeout_s * _SERVER_PATIENCE * 1_000)),
            "lock_timeout": str(_LOCK_TIMEOUT_MS),
            "timezone": "UTC",
            "jit": "off",
        } | dict(options)
        # aiopg wakes nobody who waits for a connection when one comes back broken, so nobody waits there.
        self._slots = asyncio.Semaphore(connections)
        self._is_away = False
        self._connecting = asyncio.Lock()
        self.answered_ms = 0
        self._pool: aiopg.Pool | None = None
        # Names of the queries that are prepared, by connection.
        self._prepared: WeakKeyDictionary[aiopg.Connection, set[str]] = WeakKeyDictionary()
        self._why_unreachable: str | None = "Postgres has not been reached yet"

    async def on_start(self) -> None:
        """Make the pool, still empty."""
        self._pool = await aiopg.create_pool(
            self._url,
            minsize=0,
            maxsize=self._connections,
            # Ours comes first and bounds the whole; aiopg's would bound each step anew.
            timeout=self._timeout_s * 2,
            enable_json=False,
            enable_hstore=False,
            enable_uuid=False,
            application_name=self._name,
            client_encoding=_ENCODING,
            connect_timeout=_CONNECT_TIMEOUT_S,
            options=server_options(self._url, self._options),
        )

    async def on_stop(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.terminate()
            await pool.wait_closed()

    async def fetch(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run one statement, which commits by itself, and return its rows (none for a statement without a result).

        Raises:
            psycopg2.Error: as the server says; ``is_transient`` tells whether trying again can help. After a
                transient error the statement may still have been committed, or be committed a little later.
            TimeoutError: it took longer than ``timeout_s``, of which the same holds.
        """
        return (await self._run(_once(statement, parameters)))[1]

    async def fetch_prepared(self, name: str, parameters: Mapping[str, Any]) -> list[Row]:
        """As ``fetch``, of the query ``sql/<name>.sql``, which each connection parses and plans only once.

        For a long query that runs often, and whose best plan is the same for empty and for full tables: the plan stays
        what it was. A pooler between must keep a session to one connection.
        """
        prepare, execute = prepared(name)

        async def run(connection: aiopg.Connection, cursor: aiopg.Cursor) -> None:
            known = self._prepared.setdefault(connection, set())
            if name not in known:
                await cursor.execute(prepare)
                known.add(name)
            await cursor.execute(execute, parameters)

        return (await self._run(run))[1]

    async def query(self, name: str, **parameters: Any) -> list[dict[str, Any]]:
        """Run the query ``sql/<name>.sql`` once and return its rows by column name.

        Raises:
            Unavailable: the server is out of reach or too slow now; at once while the ping gets no answer.
        """
        if self._is_away:
            raise Unavailable("the database is out of reach; try again shortly")
        try:
            columns, rows = await self._run(_once(query(name), parameters))
        except Exception as exc:
            if is_transient(exc):
                raise Unavailable("the database is out of reach; try again shortly") from exc
            raise
        return [dict(zip(columns, row, strict=True)) for row in rows]

    async def _run(self, run: Run) -> tuple[list[str], list[Row]]:
        """Run what ends with a statement on a connection; return that one's columns' names and its rows."""
        try:
            # A statement given up closes its connection, so the next one does not meet its answer.
            async with (
                asyncio.timeout(self._timeout_s),
                self._slots,
                self._connection() as connection,
                connection.cursor() as cursor,
            ):
                with _Nudge(connection):
                    await run(connection, cursor)
                    self.answered_ms = int(time.time() * 1000)
                    if not cursor.description:
                        return [], []
                    return [column.name for column in cursor.description], await cursor.fetchall()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise StatementCancelled("the server cancelled the statement") from None
        except RuntimeError as exc:
            if _STALE_READER not in str(exc):
                raise
            raise psycopg2.OperationalError("a socket of an earlier, refused connection was in the way") from exc

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiopg.Connection]:
        # Looked at when it is its turn: the pool may be gone after a wait.
        pool = self._pool
        if pool is None:
            raise RuntimeError("Postgres is not started or already stopped")
        # There is a slot for each connection, so this waits for nobody but for the server to take a new one.
        async with asyncio.timeout(_CONNECT_S_MAX):
            connection = await self._acquire(pool)
        try:
            yield connection
        finally:
            await pool.release(connection)

    async def _acquire(self, pool: aiopg.Pool) -> aiopg.Connection:
        if pool.freesize:
            return await pool.acquire()
        async with self._connecting:
            # What the pool makes its next connection with.
            pool._conn_kwargs |= await self._addresses.next()
            try:
                async with asyncio.timeout(_ATTEMPT_S_MAX):
                    return await pool.acquire()
            except RuntimeError:
                # See _STALE_READER: it is not the address.
                raise
            except Exception:
                self._addresses.failed()
                raise

    async def retrying(self, what: str, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Await ``attempt()`` again and again while its errors are transient; ``what`` stands in the log."""

        def report(state: RetryCallState) -> None:
            assert state.outcome is not None
            log.warning("%s: trying again, Postgres says: %s", what, _sentence(state.outcome.exception()))

        retry = AsyncRetrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.1, max=_RETRY_WAIT_S_MAX),
            before_sleep=report,
        )

        # tenacity awaits only what it sees to be a coroutine function; of anything else it would take the coroutine
        # for the result, and the statement would count as done without having run.
        async def awaited() -> ResultT:
            return await attempt()

        return await retry(awaited)

    def why_not_ready(self) -> str | None:
        """None while the server answers, else a sentence."""
        return self._why_unreachable

    @Service.task
    async def _ping(self) -> None:
        while not self.should_stop:
            try:
                await self.fetch("SELECT 1")
                self._why_unreachable = None
                self._is_away = False
            except Exception as exc:
                if self.should_stop:
                    return
                if not is_transient(exc):
                    raise
                self._is_away = True
                self._why_unreachable = f"Postgres is out of reach: {_sentence(exc)}"
            await self.sleep(PING_INTERVAL_S)


def _once(statement: str, parameters: Mapping[str, Any] | None) -> Run:
    async def run(_: aiopg.Connection, cursor: aiopg.Cursor) -> None:
        await cursor.execute(statement, parameters)

    return run


class _Nudge:
    """Looks by itself whether an answer is there while a statement waits for one.

    libpq closes its socket when the server goes, before aiopg can take it out of the loop, and uvloop may then lose
    later connections: their answers come, and nobody is told. Such a connection is not used again.
    """

    def __init__(self, connection: aiopg.Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._is_deaf = False

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(_NUDGE_S, self._look)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._is_deaf:
            self._connection.close()

    def _look(self) -> None:
        waiter = self._connection._waiter
        if waiter is not None and not waiter.done():
            self._connection._ready(self._connection._weakref)
            self._is_deaf = waiter.done()
        self._timer = self._loop.call_later(_NUDGE_S, self._look)


def is_transient(exc: BaseException) -> bool:
    """Whether ``exc`` comes from the server's state or the way to it, so that trying again can help."""
    if isinstance(exc, (psycopg2.OperationalError, psycopg2.InterfaceError, OSError, TimeoutError)):
        return True
    # A standby during a failover; and libpq's own complaints about a broken connection, which carry no code.
    return isinstance(exc, psycopg2.errors.ReadOnlySqlTransaction) or (
        type(exc) is psycopg2.DatabaseError and exc.pgcode is None
    )


def _sentence(exc: BaseException | None) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__


async def prepare_database(database_url: str, *, demo_users: bool) -> None:
    """Make the database if it is missing, its tables and symbols, and the demo users if they are wanted.

    Doing it again changes nothing that is there.

    Raises:
        SetupError: the server is out of reach or refuses.
    """
    await asyncio.to_thread(_prepare, database_url, demo_users)


def _prepare(database_url: str, demo_users: bool) -> None:
    script = _packaged("schema.sql") + _packaged("init.sql", demo_users=demo_users)
    try:
        with closing(_connect_or_create(database_url)) as connection, connection, connection.cursor() as cursor:
            _require_unicode(cursor)
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_PREPARE_LOCK,))
            # Not for the lock above, which another `init` may hold for long. Who waits for a table holds up all others.
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", (str(_LOCK_TIMEOUT_MS),))
            cursor.execute(script)
    except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected) as exc:
        raise SetupError(
            f"the database's tables are in use, and nothing has been changed ({_sentence(exc)}); run it again, and if "
            "that does not help while no sink and OMS run."
        ) from exc
    except psycopg2.errors.UndefinedColumn as exc:
        raise SetupError(
            f"the database has tables of another version ({_sentence(exc)}); use an empty database, or add what is "
            "missing as schema.sql has it."
        ) from exc
    except psycopg2.Error as exc:
        raise SetupError(
            f"the database could not be prepared ({_sentence(exc)}); check DATABASE_URL and that its user may create "
            "tables."
        ) from exc


def _require_unicode(cursor: Any) -> None:
    """Names of symbols are texts of any script, and one that cannot be written would stop the sink."""
    cursor.execute("SHOW server_encoding")
    [(encoding,)] = cursor.fetchall()
    if encoding != _ENCODING:
        raise SetupError(f"the database's encoding is {encoding}; use a database whose encoding is {_ENCODING}.")


def _packaged(name: str, *, demo_users: bool = True) -> str:
    text = resources.files("forkast_streams.storage").joinpath(name).read_text("utf-8")
    return text if demo_users else text.partition(_DEMO_USERS_MARK)[0]


def _connect_or_create(database_url: str) -> Any:
    try:
        return psycopg2.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S)
    except psycopg2.OperationalError:
        if not _create_missing(database_url):
            raise
    return psycopg2.connect(database_url, connect_timeout=_CONNECT_TIMEOUT_S)


def _create_missing(database_url: str) -> bool:
    """Create the URL's database if that is what is missing; say whether it was."""
    name = parse_dsn(database_url).get("dbname")
    # A service names it elsewhere.
    if name is None:
        return False
    with closing(psycopg2.connect(database_url, dbname="postgres", connect_timeout=_CONNECT_TIMEOUT_S)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
            if cursor.rowcount:
                return False
            # Another `init` at the same time may have been faster.
            with suppress(psycopg2.errors.DuplicateDatabase, psycopg2.errors.UniqueViolation):
                cursor.execute(
                    sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0").format(
                        sql.Identifier(name), sql.Literal(_ENCODING)
                    )
                )
    return True
