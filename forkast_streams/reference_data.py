"""Publishes the symbols of the database into the log, so that the engine and every replay see them at one place."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from forkast_streams.codec import decimal_text
from forkast_streams.config import Settings
from forkast_streams.errors import SetupError, Unavailable
from forkast_streams.kafka_security import kafka_arguments, unreachable
from forkast_streams.orders.symbols import RULE_COLUMNS
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, partition_for, require_topics

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

    Raises:
        SetupError: Kafka is out of reach, or has not acknowledged a definition.
    """
    async with Postgres(settings.database_url) as postgres:
        symbols = await postgres.query("symbols")
    await _publish(settings, symbols)
    return [symbol["symbol"] for symbol in symbols]


async def sync_symbols(settings: Settings) -> list[Published]:
    """As ``publish_symbols``, and wait a few seconds for what the engine says.

    Raises:
        SetupError: as ``publish_symbols``, or a topic is missing.
    """
    async with Postgres(settings.database_url) as postgres:
        symbols = await postgres.query("symbols")
    return await _publish_and_wait(settings, symbols)


async def set_status(settings: Settings, name_or_id: str, status: str) -> Published | None:
    """Give a symbol another status in the log, and by way of the sink in the database.

    It can be repeated: what the log says already changes nothing.

    Returns:
        None when there is no such symbol.

    Raises:
        SetupError: several symbols answer to it, or Kafka is out of reach, and nothing is changed; or Kafka has not
            acknowledged the change, or the database has not taken it; the sentence says what has it.
    """
    async with Postgres(settings.database_url) as postgres:
        rows = [row for row in await postgres.query("symbols") if name_or_id in (row["symbol"], str(row["id"]))]
        if not rows:
            return None
        if len(rows) > 1:
            found = " and ".join(f"{row['symbol']} (id {row['id']})" for row in rows)
            raise SetupError(f"{name_or_id!r} can be {found}; name the one you mean by its id, or by its other name.")
        changed = rows[0] | {"status": status}
        [seen] = await postgres.query("symbol_written_at", id=changed["id"])

        async def write_row() -> None:
            await _write_status(postgres, changed, seen["updatedAt"])

        # The log first: were the table ahead of it, others could publish what nobody has said.
        [published] = await _publish_and_wait(settings, [changed], when_acknowledged=write_row)
    return published


async def _write_status(postgres: Postgres, symbol: dict[str, Any], seen_at: datetime) -> None:
    """Write into the table what the log has, for those who publish again before the sink has written it.

    Nothing is written over what the sink has written since ``seen_at``: it may have been said later.
    """
    try:
        await postgres.query("set_symbol_status", id=symbol["id"], status=symbol["status"], seen=seen_at)
    except (Unavailable, psycopg2.Error) as exc:
        name, status = symbol["symbol"], symbol["status"]
        raise SetupError(
            f"{name} is {status} from here on in the log, but the database could not be told "
            f"({str(exc.__cause__ or exc).strip()}). The sink tells it when it can; until then do not sync, which "
            "would publish the old status, but give this command again: that is safe as often as it takes."
        ) from exc


async def _publish_and_wait(
    settings: Settings, symbols: list[dict[str, Any]], *, when_acknowledged: Callable[[], Awaitable[None]] | None = None
) -> list[Published]:
    waiting = {uuid.uuid4().hex: Published(symbol["symbol"]) for symbol in symbols}
    published = list(waiting.values())
    await require_topics(settings.broker_list)
    consumer = AIOKafkaConsumer(**kafka_arguments(settings.broker_list))
    try:
        await _start_at_end(consumer, settings)
        await _publish(settings, symbols, list(waiting))
        if when_acknowledged is not None:
            await when_acknowledged()
        await _wait_for_answers(consumer, waiting)
    finally:
        await consumer.stop()
    return published


async def _start_at_end(consumer: AIOKafkaConsumer, settings: Settings) -> None:
    """Let ``consumer`` read what the engine says from now on."""
    try:
        await consumer.start()
        async with EventProducer(settings.broker_list) as producer:
            partitions = await producer.partition_count(ORDERS_EXCHANGE)
        consumer.assign([TopicPartition(ORDERS_EXCHANGE, partition) for partition in range(partitions)])
        await consumer.seek_to_end()
        # Positions are looked up when they are asked for, and the answers must come behind them.
        for tp in consumer.assignment():
            await consumer.position(tp)
    except KafkaError as exc:
        raise unreachable(settings.broker_list) from exc


async def _wait_for_answers(consumer: AIOKafkaConsumer, waiting: dict[str, Published]) -> None:
    # What is in the log stays there, whether anybody answers and can be heard or not.
    with suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(_ANSWER_S_MAX):
            while waiting:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        _take_answer(json.loads(record.value), waiting)


def _take_answer(event: dict[str, Any], waiting: dict[str, Published]) -> None:
    published = waiting.pop(event["data"].get("commandId", ""), None)
    if published is not None:
        published.is_answered = True
        published.refusal = event["data"]["message"] if event["type"] == "REJECT" else None


async def _publish(settings: Settings, symbols: list[dict[str, Any]], command_ids: list[str] | None = None) -> None:
    """Write SYMBOL commands.

    Raises:
        SetupError: Kafka is out of reach, or has not acknowledged a command.
    """
    try:
        async with EventProducer(settings.broker_list) as producer:
            partitions = await producer.partition_count(ORDERS_NEW)
            for number, symbol in enumerate(symbols):
                command = symbol_command(symbol)
                if command_ids is not None:
                    command["commandId"] = command_ids[number]
                await _send(producer, symbol, command, partitions)
    except KafkaError as exc:
        raise unreachable(settings.broker_list) from exc


async def _send(producer: EventProducer, symbol: dict[str, Any], command: dict[str, Any], partitions: int) -> None:
    try:
        await producer.send(
            ORDERS_NEW,
            key=str(symbol["id"]).encode(),
            value=msgspec.json.encode(command),
            partition=partition_for(symbol["id"], partitions),
        )
    except KafkaError as exc:
        raise SetupError(
            f"Kafka has not acknowledged the rules of {symbol['symbol']} ({exc!r}), so the log may have them or not; "
            "check the brokers and give the command again, which changes nothing that the log has already."
        ) from exc


def symbol_command(symbol: dict[str, Any]) -> dict[str, Any]:
    """The SYMBOL command of a row of ``"Symbol"``; rules that are NULL do not exist."""
    command = {
        "command": "SYMBOL",
        "symbolId": symbol["id"],
        "symbol": symbol["symbol"],
        "tickSize": decimal_text(symbol["tickSize"]),
        "lotSize": decimal_text(symbol["lotSize"]),
        "status": symbol["status"],
    }
    rules = {name: symbol[name] for name in RULE_COLUMNS if symbol[name] is not None}
    command |= {name: decimal_text(value) for name, value in rules.items()}
    if symbol["maxOpenOrders"] is not None:
        command["maxOpenOrders"] = symbol["maxOpenOrders"]
    return command
