"""One exchange for all tests of the order routes: engine, OMS and sink as processes, with a database of their own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest
from psycopg2.extensions import make_dsn

from forkast_streams.devstack import Stack
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics
from tests.integration.exchange import PARTITIONS, Worker, end_offsets
from tests.integration.oms_orders.trading import Exchange, make_markets_and_traders


@pytest.fixture(scope="package")
def exchange(stack: Stack, stack_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """A running exchange whose symbols have come into the log through ``forkast symbols sync``."""
    name = f"test_{uuid.uuid4().hex}"
    env = stack_env | {"DATABASE_URL": make_dsn(stack_env["DATABASE_URL"], dbname=name)}
    asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
    asyncio.run(prepare_database(env["DATABASE_URL"], demo_users=False))
    make_markets_and_traders(env["DATABASE_URL"])
    ends = {topic: asyncio.run(end_offsets(env, topic)) for topic in (ORDERS_NEW, ORDERS_EXCHANGE)}
    folder = tmp_path_factory.mktemp("oms_orders")
    workers = {role: Worker(role, env, folder / role) for role in ("oms", "engine", "sink")}
    exchange = Exchange(env, stack, workers["oms"], workers["sink"], ends)
    try:
        for worker in workers.values():
            worker.start()
        assert "published to the log" in exchange.forkast("symbols", "sync")
        for worker in workers.values():
            worker.wait_ready()
        yield exchange
    finally:
        for worker in workers.values():
            worker.end()
        asyncio.run(_drop(stack_env["DATABASE_URL"], name))


async def _drop(database_url: str, name: str) -> None:
    async with Postgres(make_dsn(database_url, dbname="postgres")) as admin:
        await admin.fetch(f"DROP DATABASE {name} WITH (FORCE)")
