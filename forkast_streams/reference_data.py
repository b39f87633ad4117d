"""Publishes the symbols of the database into the log, so that the engine and every replay see them at one place."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from forkast_streams.config import Settings
from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import kafka_arguments
from forkast_streams.orders.requests import RULE_COLUMNS, plain
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, partition_for

_ANSWER_S_MAX = 5.0


@dataclass(slots=True)
class Published:
    """A symbol's rules in the log.

    Attributes:
        name: of the symbol.
        is_answered: whether the engine has said something; it does not where none runs.
        refusal: why the engine goes on with other rules; None when it does not.
    """

    name: str
    is_answered: bool = False
    refusal: str | None = None


async def publish_symbols(settings: Settings) -> list[str]:
    """Send a SYMBOL command for each row of ``"Symbol"``; return the symbols' names once all are acknowledged.

    A definition the engine has already changes nothing, so this can be repeated.
    """
    async with Postgres(settings.database_url) as postgres:
        symbols = await postgres.query("symbols")
    await _publish(settings, symbols)
    return [symbol["symbol"] for symbol in symbols]


async def sync_symbols(settings: Settings) -> list[Published]:
    """As ``publish_symbols``, and wait a few seconds for what the engine says."""
    async with Postgres(settings.database_url) as postgres:
        symbols = await postgres.query("symbols")
    return await _publish_and_wait(settings, symbols)


async def set_status(settings: Settings, name_or_id: str, status: str) -> Published | None:
    """Give a symbol another status in the log, and by way of the sink in the database.

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
    [published] = await _publish_and_wait(settings, [rows[0] | {"status": status}])
    return published


async def _publish_and_wait(settings: Settings, symbols: list[dict[str, Any]]) -> list[Published]:
    waiting = {uuid.uuid4().hex: Published(symbol["symbol"]) for symbol in symbols}
    published = list(waiting.values())
    consumer = AIOKafkaConsumer(**kafka_arguments(settings.broker_list))
    await consumer.start()
    try:
        async with EventProducer(settings.broker_list) as producer:
            partitions = await producer.partition_count(ORDERS_EXCHANGE)
        consumer.assign([TopicPartition(ORDERS_EXCHANGE, partition) for partition in range(partitions)])
        await consumer.seek_to_end()
        # Positions are looked up when they are asked for, and the answers must come behind them.
        for tp in consumer.assignment():
            await consumer.position(tp)
        await _publish(settings, symbols, list(waiting))
        async with asyncio.timeout(_ANSWER_S_MAX):
            while waiting:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        _take_answer(json.loads(record.value), waiting)
    except TimeoutError:
        pass
    finally:
        await consumer.stop()
    return published


def _take_answer(event: dict[str, Any], waiting: dict[str, Published]) -> None:
    published = waiting.pop(event["data"].get("commandId", ""), None)
    if published is not None:
        published.is_answered = True
        published.refusal = event["data"]["message"] if event["type"] == "REJECT" else None


async def _publish(settings: Settings, symbols: list[dict[str, Any]], command_ids: list[str] | None = None) -> None:
    async with EventProducer(settings.broker_list) as producer:
        partitions = await producer.partition_count(ORDERS_NEW)
        for number, symbol in enumerate(symbols):
            command = symbol_command(symbol)
            if command_ids is not None:
                command["commandId"] = command_ids[number]
            await producer.send(
                ORDERS_NEW,
                key=str(symbol["id"]).encode(),
                value=msgspec.json.encode(command),
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
