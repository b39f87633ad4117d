"""Publishes the symbols of the database into the log, so that the engine and every replay see them at one place."""

from __future__ import annotations

from typing import Any

import msgspec

from forkast_streams.config import Settings
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_NEW, partition_for


async def publish_symbols(settings: Settings) -> list[str]:
    """Send a SYMBOL command for each row of ``"Symbol"``; return the symbols' names once all are acknowledged.

    A definition the engine has already changes nothing, so this can be repeated.
    """
    async with Postgres(settings.database_url) as postgres, EventProducer(settings.broker_list) as producer:
        symbols = await postgres.query("symbols")
        partitions = await producer.partition_count(ORDERS_NEW)
        for symbol in symbols:
            await producer.send(
                ORDERS_NEW,
                key=str(symbol["id"]).encode(),
                value=msgspec.json.encode(_symbol_command(symbol)),
                partition=partition_for(symbol["id"], partitions),
            )
    return [symbol["symbol"] for symbol in symbols]


def _symbol_command(symbol: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": "SYMBOL",
        "symbolId": symbol["id"],
        "symbol": symbol["symbol"],
        "tickSize": f"{symbol['tickSize'].normalize():f}",
        "lotSize": f"{symbol['lotSize'].normalize():f}",
        "status": symbol["status"],
    }
