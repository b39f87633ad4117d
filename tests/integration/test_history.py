"""The sink's tables on a real Postgres: all of a batch or nothing, once, whatever the server does meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt
import psycopg2.errors
import pytest
import uvloop
from psycopg2.extensions import make_dsn, parse_dsn

from forkast_streams.devstack import Stack
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog, SetupError
from forkast_streams.records import record_digest
from forkast_streams.sink.history import PLAN_OPTIONS, PartitionHistory
from forkast_streams.storage.postgres import Postgres, is_transient, prepare_database
from forkast_streams.storage.queries import prepared
from forkast_streams.topics import ORDERS_EXCHANGE
from tests.integration.exchange import wait_until
from tests.integration.history import replayed, stored
from tests.support.flows import PARTITIONS, Record, home_of, mixed_flow, records_of

NOTHING: Any = ({}, {}, {})
NEW_ORDER = json.dumps({"id": str(uuid.UUID(int=1)), "userId": 77, "symbolId": 1, "type": "LIMIT", "side": "BUY"})
# As late as a command can say, later than Python can.
FAR_FUTURE = {"timeInForce": "GTD", "expiresAt": 2**53}


@pytest.fixture
async def empty_url(stack_env: dict[str, str]) -> AsyncIterator[str]:
    """The URL of a database that does not exist."""
    name = f"test_{uuid.uuid4().hex}"
    yield make_dsn(stack_env["DATABASE_URL"], dbname=name)
    async with Postgres(make_dsn(stack_env["DATABASE_URL"], dbname="postgres")) as admin:
        await admin.fetch(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
async def postgres(empty_url: str) -> AsyncIterator[Postgres]:
    """A database with our tables and nothing in them but symbols."""
    await prepare_database(empty_url, demo_users=False)
    async with Postgres(empty_url) as postgres:
        yield postgres


@pytest.fixture(scope="module")
def events() -> list[Record]:
    """The engine's events for a mixed flow of symbol 1."""
    outputs = EnginePartition(home_of(1), PARTITIONS).process(records_of(mixed_flow(3_000, seed=5)))
    return [Record(at, event.timestamp, event.key, event.value) for at, event in enumerate(outputs.events)]


async def loaded(postgres: Postgres) -> PartitionHistory:
    """The history of partition 1, read from the tables."""
    history = PartitionHistory(postgres, ORDERS_EXCHANGE, 1, asyncio.Semaphore())
    await history.load()
    return history


def values(events: list[Record]) -> list[bytes]:
    """The events' JSON."""
    return [event.value or b"" for event in events]


async def until_blocked(postgres: Postgres) -> int:
    """Return the process id of the server's one backend that waits for a lock."""
    while True:
        rows = await postgres.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if rows:
            return int(rows[0][0])
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("batch", [1, 250, 5_000])
async def test_the_tables_are_the_replayed_log(postgres: Postgres, events: list[Record], batch: int) -> None:
    """Every column of every order and trade is what a plain replay gives, for any size of batch."""
    some = events[: 300 * batch]
    history = await loaded(postgres)
    for at in range(0, len(some), batch):
        await history.write(some[at : at + batch])
    assert await stored(postgres) == replayed(values(some))
    again = await loaded(postgres)
    assert (again.next_offset, again.sequences) == (len(some), history.sequences)
    assert again.last_digest == history.last_digest == record_digest(some[-1])


@pytest.mark.usefixtures("postgres")
async def test_what_is_planned_on_empty_tables_finds_orders_by_their_key(empty_url: str) -> None:
    """A connection keeps the plan: one that reads the tables from end to end would be slower with every order."""
    statement = f"EXPLAIN {prepared('persist_events')[1]}"
    parameters = dict.fromkeys(("orders", "changes", "trades", "symbols", "sequences"), "[]")
    parameters |= {"topic": ORDERS_EXCHANGE, "partition": 1, "first_offset": 0, "next_offset": 1, "last_digest": ""}
    plans = []
    for options in ({}, PLAN_OPTIONS):
        # One connection: the one that has prepared the statement.
        async with Postgres(empty_url, connections=1, options=options) as writing:
            await writing.fetch_prepared("persist_events", parameters)
            plans.append("\n".join(line for (line,) in await writing.fetch(statement, parameters)))
    careless, ours = plans
    assert 'Seq Scan on "Order"' in careless
    assert "Seq Scan" not in ours
    assert 'Index Only Scan using "Order_pkey"' in ours


async def test_a_restarted_sink_writes_nothing_twice(postgres: Postgres, events: list[Record]) -> None:
    """A batch that is delivered again after a restart is dropped as far as it is known."""
    await (await loaded(postgres)).write(events[:1_000])
    await (await loaded(postgres)).write(events[:1_500])
    await (await loaded(postgres)).write(events[500:])
    assert await stored(postgres) == replayed(values(events))


async def test_of_two_writers_one_is_fenced_off(postgres: Postgres, events: list[Record]) -> None:
    """A worker that woke up late finds the place moved: it stops, and has changed nothing."""
    zombie, owner = await loaded(postgres), await loaded(postgres)
    await owner.write(events[:700])
    with pytest.raises(CorruptLog, match="another worker"):
        await zombie.write(events[:500])
    assert await stored(postgres) == replayed(values(events[:700]))
    await owner.write(events[700:])
    assert await stored(postgres) == replayed(values(events))


async def test_two_writers_at_once_write_once(postgres: Postgres, events: list[Record]) -> None:
    """Racing for different ends of the same batch, exactly one wins."""
    first, second = await loaded(postgres), await loaded(postgres)
    outcomes = await asyncio.gather(first.write(events[:400]), second.write(events[:900]), return_exceptions=True)
    assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [CorruptLog]
    won = 400 if outcomes[0] is None else 900
    assert await stored(postgres) == replayed(values(events[:won]))


async def test_a_write_whose_answer_was_lost_counts_as_done(postgres: Postgres, events: list[Record]) -> None:
    """The same write again finds its own end in the tables, and goes on from there."""
    first, second = await loaded(postgres), await loaded(postgres)
    await first.write(events[:500])
    await second.write(events[:500])
    await second.write(events[500:])
    assert await stored(postgres) == replayed(values(events))


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_statement_that_ends_in_the_middle_leaves_nothing(
    postgres: Postgres, events: list[Record], empty_url: str, end: str
) -> None:
    """Killed or cancelled inside the statement, no row stays; then the batch is written again."""
    history = await loaded(postgres)
    blocker = psycopg2.connect(empty_url)
    try:
        blocker.cursor().execute('LOCK TABLE "Trade" IN EXCLUSIVE MODE')
        writing = asyncio.create_task(history.write(events))
        first = await asyncio.wait_for(until_blocked(postgres), 10)
        await postgres.fetch(f"SELECT {end}({first})")
        await asyncio.wait_for(until_blocked(postgres), 10)
        assert await stored(postgres) == NOTHING
        assert not writing.done()
    finally:
        blocker.close()
    await writing
    assert await stored(postgres) == replayed(values(events))


async def test_a_start_waits_for_the_statement_on_its_way(
    postgres: Postgres, events: list[Record], empty_url: str
) -> None:
    """A worker that ends, or loses the partition, leaves it behind; the next one would find the place moved."""
    history = await loaded(postgres)
    blocker = psycopg2.connect(empty_url)
    async with Postgres(empty_url) as other:
        await loaded(other)
        try:
            # Behind the row of the progress.
            blocker.cursor().execute('INSERT INTO "SymbolSequence" VALUES (1, 1, 0)')
            leaving = asyncio.create_task(history.write(events[:500]))
            await asyncio.wait_for(until_blocked(postgres), 10)
            loading = asyncio.create_task(loaded(other))
            await asyncio.wait({loading}, timeout=1)
            assert not loading.done()
        finally:
            blocker.close()
        following = await loading
        assert following.next_offset == 500
        await following.write(events[500:])
        await leaving
    assert await stored(postgres) == replayed(values(events))


async def test_an_outage_is_waited_for(postgres: Postgres, events: list[Record], stack: Stack) -> None:
    """While Postgres is away the sink says so and holds its place; then it goes on without a loss."""
    history = await loaded(postgres)
    await history.write(events[:500])
    server = stack.server("postgres")
    await asyncio.to_thread(server.stop)
    try:
        writing = asyncio.create_task(history.write(events[500:]))
        await asyncio.to_thread(wait_until, lambda: _is_out_of_reach(postgres), "the outage being seen", within_s=10)
        assert not writing.done()
    finally:
        await asyncio.to_thread(server.start)
    await asyncio.wait_for(writing, 20)
    await asyncio.to_thread(wait_until, lambda: postgres.why_not_ready() is None, "readiness", within_s=10)
    assert await stored(postgres) == replayed(values(events))


def _is_out_of_reach(postgres: Postgres) -> bool:
    return "out of reach" in (postgres.why_not_ready() or "")


async def test_an_order_that_was_never_there_stops_the_sink(postgres: Postgres, events: list[Record]) -> None:
    """Tables that lack an order of the log are not written any further."""
    history = await loaded(postgres)
    await history.write(events[:1_000])
    await postgres.fetch('DELETE FROM "Order"')
    with pytest.raises(CorruptLog, match='not in "Order"'):
        await history.write(events[1_000:])
    assert (await loaded(postgres)).next_offset == 1_000


async def test_a_contradiction_stops_the_sink(postgres: Postgres, events: list[Record]) -> None:
    """A row the tables refuse is raised, not retried; nothing of its batch stays."""
    history = await loaded(postgres)
    await postgres.fetch("""
        INSERT INTO "Trade"
            ("symbolId", price, quantity, "buyOrderId", "sellOrderId", timestamp, sequence, "takerSide")
        SELECT 1, 1, 1, gen_random_uuid(), gen_random_uuid(), now(), s, 'BUY'
        FROM generate_series(1, 3000) s
    """)
    with pytest.raises(psycopg2.errors.UniqueViolation):
        await asyncio.wait_for(history.write(events), 20)
    assert (await stored(postgres))[0] == {}
    assert (await loaded(postgres)).next_offset == 0


async def test_odd_values_of_a_producer_do_not_stop_the_sink(postgres: Postgres) -> None:
    """Unknown users, numbers out of proportion, a name that is taken or has a zero character: all is written."""
    commands = [
        {"command": "SYMBOL", "symbolId": 1, "symbol": "GOOGL", "tickSize": "1", "lotSize": "1", "status": "TRADING"},
        {"command": "SYMBOL", "symbolId": 1, "symbol": "A\0B", "tickSize": "0.01", "lotSize": "1", "status": "TRADING"},
        json.loads(NEW_ORDER) | {"quantity": -3, "price": 5},
        json.loads(NEW_ORDER) | {"id": str(uuid.UUID(int=2)), "quantity": 10**100, "price": 1e-300},
        json.loads(NEW_ORDER) | {"id": str(uuid.UUID(int=3)), "quantity": 10**9, "price": "1000000000.00"},
        json.loads(NEW_ORDER) | {"id": str(uuid.UUID(int=4)), "quantity": 5, "price": 5} | FAR_FUTURE,
    ]
    outputs = EnginePartition(home_of(1), PARTITIONS).process(records_of(commands))
    history = await loaded(postgres)
    await history.write([Record(at, event.timestamp, b"1", event.value) for at, event in enumerate(outputs.events)])
    rows = await postgres.fetch('SELECT status::text, quantity::text FROM "Order" ORDER BY id')
    assert rows == [("REJECTED", "-3"), ("REJECTED", "0"), ("PENDING", "1000000000"), ("PENDING", "5")]
    [(expires_at,)] = await postgres.fetch('SELECT max("expiresAt") FROM "Order"')
    assert expires_at.year == 9999
    assert await postgres.fetch('SELECT symbol, name FROM "Symbol" WHERE id = 1') == [("A\ufffdB", "Apple Inc.")]


async def test_preparing_again_changes_nothing(empty_url: str) -> None:
    """The first run makes the database; with demo users they come; no later run changes what is there."""
    await prepare_database(empty_url, demo_users=False)
    async with Postgres(empty_url) as postgres:
        assert await postgres.fetch('SELECT count(*) FROM "User"') == [(0,)]
        await prepare_database(empty_url, demo_users=True)
        users = await postgres.fetch('SELECT id, email, password FROM "User" ORDER BY id')
        assert [user[0] for user in users] == list(range(1, 11))
        assert all(bcrypt.checkpw(email.encode(), password.encode()) for _, email, password in users)
        await postgres.fetch("""UPDATE "Symbol" SET "tickSize" = 0.5 WHERE symbol = 'AAPL'""")
        before = await _all_rows(postgres)
        await asyncio.gather(*(prepare_database(empty_url, demo_users=True) for _ in range(3)))
        assert await _all_rows(postgres) == before
        added = """INSERT INTO "User" (email, name, password) VALUES ('k@example.com', 'K', '') RETURNING id"""
        assert await postgres.fetch(added) == [(11,)]


async def test_preparing_a_live_exchange_waits_for_nobody(empty_url: str) -> None:
    """A transaction writes the tables: where all is there it is let be, and what is missing is asked for in vain."""
    await prepare_database(empty_url, demo_users=True)
    tables = ("User", "ApiKey", "ClientOrderId", "Symbol", "Order", "Trade", "SinkProgress", "SymbolSequence")
    with closing(psycopg2.connect(empty_url)) as busy, busy.cursor() as cursor:
        for table in tables:
            cursor.execute(f'LOCK TABLE "{table}" IN ROW EXCLUSIVE MODE')
        preparing = asyncio.create_task(prepare_database(empty_url, demo_users=True))
        done, _ = await asyncio.wait({preparing}, timeout=10)
        busy.rollback()
        await preparing
        assert done
        cursor.execute('DROP INDEX "Order_userId_createdAt_idx"')
        busy.commit()
        cursor.execute('LOCK TABLE "Order" IN ROW EXCLUSIVE MODE')
        with pytest.raises(SetupError, match=r"tables are in use, and nothing has been changed .*lock timeout"):
            await prepare_database(empty_url, demo_users=True)
        busy.rollback()
    await prepare_database(empty_url, demo_users=True)
    async with Postgres(empty_url) as postgres:
        assert await postgres.fetch("""SELECT to_regclass('"Order_userId_createdAt_idx"') IS NOT NULL""") == [(True,)]


async def test_tables_of_the_first_version_are_brought_up_to_this_one(empty_url: str, events: list[Record]) -> None:
    """Preparing adds what is missing and keeps what is there; then the sink goes on. Before, it says what to do."""
    await prepare_database(empty_url, demo_users=True)
    async with Postgres(empty_url) as postgres:
        await postgres.fetch(_FIRST_VERSION)
        before = await _all_rows(postgres)
        with pytest.raises(SetupError, match="forkast init"):
            await loaded(postgres)
        await postgres.fetch('ALTER TABLE "SinkProgress" ADD COLUMN "lastDigest" text')
        history = await loaded(postgres)
        with pytest.raises(SetupError, match="forkast init"):
            await history.write(events)
        await postgres.fetch('ALTER TABLE "SinkProgress" DROP COLUMN "lastDigest"')
        await prepare_database(empty_url, demo_users=False)
        for old, new in zip(before, await _all_rows(postgres), strict=True):
            assert [row[: len(kept)] for kept, row in zip(old, new, strict=True)] == old
        await postgres.fetch('DELETE FROM "Order"')
        await (await loaded(postgres)).write(events)
        assert await stored(postgres) == replayed(values(events))
        upgraded = await postgres.fetch(_CHECKS)
    async with Postgres(empty_url) as postgres:
        await postgres.fetch('DROP TABLE "Order", "Symbol"')
        await prepare_database(empty_url, demo_users=False)
        assert await postgres.fetch(_CHECKS) == upgraded


# What the first version's tables lack; one order stands in them.
_FIRST_VERSION = """
ALTER TABLE "Symbol" DROP COLUMN "minQuantity", DROP COLUMN "maxQuantity", DROP COLUMN "minNotional",
    DROP COLUMN "priceCollar", DROP COLUMN "maxOpenOrders";
ALTER TABLE "Order" DROP COLUMN "stopPrice", DROP COLUMN "expiresAt", DROP COLUMN "postOnly",
    DROP COLUMN "displayQuantity", DROP COLUMN "selfTradePrevention", DROP COLUMN "quoteQuantity",
    DROP COLUMN "triggeredAt", DROP COLUMN replaces, ALTER COLUMN quantity SET NOT NULL,
    DROP CONSTRAINT IF EXISTS "Order_quantities_check", ADD CONSTRAINT "Order_filledQuantity_check"
        CHECK ("filledQuantity" BETWEEN 0 AND quantity OR (status = 'REJECTED' AND "filledQuantity" = 0));
ALTER TABLE "SinkProgress" DROP COLUMN "lastDigest";
INSERT INTO "Order" ("userId", "symbolId", type, quantity, side, sequence, "createdAt", "updatedAt")
    VALUES (1, 99, 'LIMIT', 5, 'BUY', 1, now(), now());
"""
_CHECKS = """
SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attnotnull, NULL FROM pg_attribute
WHERE attrelid IN ('"Order"'::regclass, '"Symbol"'::regclass) AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT conrelid::regclass::text, conname, NULL, NULL, replace(pg_get_constraintdef(oid), ' NOT VALID', '')
FROM pg_constraint WHERE conrelid IN ('"Order"'::regclass, '"Symbol"'::regclass)
ORDER BY 1, 2
"""


async def _all_rows(postgres: Postgres) -> list[Any]:
    return [await postgres.fetch(f'SELECT * FROM "{table}" ORDER BY 1') for table in ("User", "Symbol", "Order")]


async def test_a_database_without_tables_is_named(empty_url: str, stack_env: dict[str, str]) -> None:
    """The sink does not wait for tables that nobody makes: it says what to run."""
    async with Postgres(make_dsn(stack_env["DATABASE_URL"], dbname="postgres")) as admin:
        await admin.fetch(f"CREATE DATABASE {parse_dsn(empty_url)['dbname']}")
    async with Postgres(empty_url) as postgres:
        with pytest.raises(SetupError, match="forkast init"):
            await loaded(postgres)


async def test_an_unreachable_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing needs the server: without it there is one sentence, not a wait."""
    (tmp_path / "services").write_text("[forkast]\nhost=127.0.0.1\nport=1\ndbname=none\nuser=nobody\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for url in ("postgresql://nobody@127.0.0.1:1/none", "service=forkast"):
        with pytest.raises(SetupError, match=r"Connection refused.*DATABASE_URL"):
            await prepare_database(url, demo_users=False)


@pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")
def test_a_refused_connection_is_transient_on_the_workers_event_loop() -> None:
    """However often the server refuses, each attempt may be tried again; aiopg alone would end in a RuntimeError."""

    async def attempts() -> list[bool]:
        async with Postgres("postgresql://nobody@127.0.0.1:1/none") as postgres:
            return [await _fails_transiently(postgres) for _ in range(10)]

    assert all(uvloop.run(attempts()))
    # aiopg warns of each refused connection when it is collected: here, where that is expected.
    gc.collect()


async def _fails_transiently(postgres: Postgres) -> bool:
    try:
        await postgres.fetch("SELECT 1")
    except Exception as exc:
        return is_transient(exc)
    return False
