"""Publishes the symbols of the database into the log, so that the engine and every replay see them at one place."""

from __future__ import annotations

from typing import Any

import msgspec

from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.orders.requests import RULE_COLUMNS, plain
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_NEW, partition_for


async def publish_symbols(settings: Settings) -> list[str]:
    """Send a SYMBOL command for each row of ``"Symbol"``; return the symbols' names once all are acknowledged.

    A definition the engine has already changes nothing, so this can be repeated.
    """
    async with Postgres(settings.database_url) as postgres:
        symbols = await postgres.query("symbols")
    await _publish(settings, symbols)
    return [symbol["symbol"] for symbol in symbols]


async def set_status(settings: Settings, name_or_id: str, status: str) -> str | None:
    """Give a symbol another status in the log, and by way of the sink in the database; return its name.

    Returns:
        None when there is no such symbol.

    Raises:
        SetupError: several symbols answer to it, and nothing is changed.
    """
    async with Postgres(settings.database_url) as postgres:
        rows = [row for row in await postgres.query("symbols") if name_or_id in (row["symbol"], str(row["id"]))]
        if not rows:
            return None
        if len(rows) > 1:
            found = " and ".join(f"{row['symbol']} (id {row['id']})" for row in rows)
            raise SetupError(f"{name_or_id!r} can be {found}; name the one you mean by its id, or by its other name.")
        # The sink writes what the log says; this is for those who publish again before it has.
        await postgres.query("set_symbol_status", id=rows[0]["id"], status=status)
    await _publish(settings, [rows[0] | {"status": status}])
    return str(rows[0]["symbol"])


async def _publish(settings: Settings, symbols: list[dict[str, Any]]) -> None:
    async with EventProducer(settings.broker_list) as producer:
        partitions = await producer.partition_count(ORDERS_NEW)
        for symbol in symbols:
            await producer.send(
                ORDERS_NEW,
                key=str(symbol["id"]).encode(),
                value=msgspec.json.encode(symbol_command(symbol)),
                partition=partition_for(symbol["id"], partitions),
            )


def symbol_command(symbol: dict[str, Any]) -> dict[str, Any]:
    """The SYMBOL command of a row of ``"Symbol"``; rules that are NULL do not exist."""
    command = {
        "command": "SYMBOL",
        "symbolId": symbol["id"],
        "symbol": symbol["symbol"],
        "tickSize": plain(symbol["tickSize"]),
        "lotSize": plain(symbol["lotSize"]),
        "status": symbol["status"],
    }
    rules = {name: symbol[name] for name in RULE_COLUMNS if symbol[name] is not None}
    command |= {name: plain(value) for name, value in rules.items()}
    if symbol["maxOpenOrders"] is not None:
        command["maxOpenOrders"] = symbol["maxOpenOrders"]
    return command
