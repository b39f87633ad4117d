"""The pool on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import uvloop
from psycopg2.extensions import parse_dsn

from forkast_streams.devstack.ports import free_ports
from forkast_streams.errors import SetupError
from forkast_streams.limits import COMMAND_LATE_S_MAX
from forkast_streams.storage.postgres import Postgres, prepare_database


async def test_an_answer_that_the_loop_is_not_told_of_is_found(stack_env: dict[str, str]) -> None:
    """A connection that the loop has lost, as after a crash of the server, costs a moment and is not used again."""
    async with Postgres(stack_env["DATABASE_URL"], connections=1) as postgres:
        assert await postgres.fetch("SELECT 1") == [(1,)]
        pool = postgres._pool
        assert pool is not None
        async with asyncio.timeout(10):
            while not pool._free:  # noqa: ASYNC110 - the ping may have it
                await asyncio.sleep(0.01)
        connection = pool._free[0]
        asyncio.get_running_loop().remove_reader(connection._fileno)
        started = time.monotonic()
        # Slower than the first look at the socket, which would find the answer without being told.
        assert await postgres.fetch("SELECT 2 FROM pg_sleep(0.2)") == [(2,)]
        assert time.monotonic() - started < 5.0
        assert connection.closed
        assert await postgres.fetch("SELECT 3") == [(3,)]


async def test_settings_in_the_url_stay_beside_ours(stack_env: dict[str, str]) -> None:
    """The pool looks for tables where `forkast init` has made them; of one that both set, ours counts."""
    options = "-csearch_path%3Dtrading%20-cjit%3Don%20-clock_timeout%3D1"
    async with Postgres(f"{stack_env['DATABASE_URL']}?options={options}") as postgres:
        names = ("search_path", "jit", "lock_timeout", "timezone")
        shown = {name: (await postgres.fetch(f"SHOW {name}"))[0][0] for name in names}
    assert shown == {"search_path": "trading", "jit": "off", "lock_timeout": "5s", "timezone": "UTC"}


# aiopg leaves what it has of a refused connection to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_host_that_is_away_is_passed_over(
    stack_env: dict[str, str], new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Of several hosts the first may be gone after a failover: the next attempt goes to another one and stays."""
    url = stack_env["DATABASE_URL"]
    live = parse_dsn(url)
    user = f"{live['user']}:{live['password']}" if "password" in live else live["user"]
    hosts = f"127.0.0.1:{free_ports(1)[0]},{live['host']}:{live['port']}"

    async def ask() -> list[Any]:
        postgres = Postgres(f"postgresql://{user}@{hosts}/{live['dbname']}")
        await postgres.start()
        try:
            return [
                await postgres.retrying("test", lambda: postgres.fetch("SELECT current_database()")) for _ in range(3)
            ]
        finally:
            await postgres.stop()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(asyncio.wait_for(ask(), 20)) == [[(live["dbname"],)]] * 3


def test_a_database_of_another_encoding_is_refused(stack_env: dict[str, str]) -> None:
    """A symbol's name that it cannot hold would stop the sink much later."""
    with closing(psycopg2.connect(stack_env["DATABASE_URL"])) as connection:
        connection.autocommit = True
        connection.cursor().execute(
            "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
    url = stack_env["DATABASE_URL"].rpartition("/")[0] + "/latin"
    with pytest.raises(SetupError, match="encoding is LATIN1"):
        asyncio.run(prepare_database(url, demo_users=False))


async def test_tables_are_past_a_claim_when_its_partition_traded_later(stack_env: dict[str, str]) -> None:
    """In another symbol as well; a trade from before, or in another partition, says nothing."""
    await prepare_database(stack_env["DATABASE_URL"], demo_users=False)
    async with Postgres(stack_env["DATABASE_URL"]) as postgres:
        for symbol_id, partition, ago_s in ((99_001, 901, 600), (99_002, 901, 200), (99_003, 902, 0)):
            await postgres.fetch(
                'INSERT INTO "SymbolSequence" VALUES (%(id)s, %(partition)s, 5)',
                {"id": symbol_id, "partition": partition},
            )
            await postgres.fetch(
                'INSERT INTO "Trade" ("symbolId", price, quantity, "buyOrderId", "sellOrderId", "timestamp", sequence,'
                ' "takerSide") VALUES (%(id)s, 1, 1, gen_random_uuid(), gen_random_uuid(),'
                " (now() AT TIME ZONE 'UTC') - make_interval(secs => %(ago)s), 5, 'BUY')",
                {"id": symbol_id, "ago": ago_s},
            )

        async def is_past(**claim: float) -> bool:
            return bool((await postgres.query("is_past_claim", **claim))[0]["isPast"])

        answers = {
            (symbol_id, age_s): await is_past(symbol_id=symbol_id, age_s=age_s, late_s=COMMAND_LATE_S_MAX)
            for symbol_id, age_s in ((99_001, 400.0), (99_001, 250.0), (99_001, 150.0), (99_003, 100.0), (99_004, 9e4))
        }
    assert answers == {
        (99_001, 400.0): True,
        (99_001, 250.0): False,
        (99_001, 150.0): False,
        (99_003, 100.0): True,
        (99_004, 9e4): False,
    }
