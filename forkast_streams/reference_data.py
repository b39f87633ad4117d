"""Publishes the symbols of the database into the log, so that the engine and every replay see them at one place."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import psycopg2.errors
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from forkast_streams.codec import decimal_text, decode_command
from forkast_streams.config import Settings
from forkast_streams.errors import InvalidRecord, SetupError
from forkast_streams.kafka_security import kafka_arguments, unreachable
from forkast_streams.orders.symbols import RULE_COLUMNS
from forkast_streams.producer import EventProducer
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW, partition_for, require_topics
from forkast_streams.undecodable import UNDECODABLE

_ANSWER_S_MAX = 5.0
_KEY_REASONS = ("UNSIGNED", "BAD_SIGNATURE", "USER_NOT_ALLOWED")


@dataclass(slots=True)
class Published:
    """A symbol's rules in the log.

    Attributes:
        name: of the symbol.
        asked_status: as the table or the operator has it.
        status: as the engine has it now; None while it has said nothing, as where none runs.
        refusal: why the engine goes on with the rules it had; None when it does not.
        dead: why the command ended in ``orders.dead``, with the remedy; None when it did not.
    """

    name: str
    asked_status: str
    status: str | None = None
    refusal: str | None = None
    dead: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the engine has said something."""
        return any(said is not None for said in (self.status, self.refusal, self.dead))


async def publish_symbols(settings: Settings) -> list[str]:
    """Send a SYMBOL command for each row of ``"Symbol"``; return the symbols' names once all are acknowledged.

    A definition the engine has already changes nothing, so this can be repeated. Rules are the table's, a status is the
    log's: a symbol that the log knows keeps it, because the table may be behind, or new.

    Raises:
        SetupError: a row has values that the engine refuses, and nothing is sent; or Kafka is out of reach, or has not
            acknowledged a definition.
    """
    symbols = await read_symbols(settings)
    await _publish(settings, [symbol_command(symbol) for symbol in symbols])
    return [symbol["symbol"] for symbol in symbols]


async def sync_symbols(settings: Settings) -> list[Published]:
    """As ``publish_symbols``, and wait a few seconds for what the engine says.

    Raises:
        SetupError: as ``publish_symbols``, or a topic is missing.
    """
    return await _publish_and_wait(settings, [symbol_command(symbol) for symbol in await read_symbols(settings)])


async def set_status(settings: Settings, name_or_id: str, status: str) -> Published | None:
    """Give a symbol another status in the log, and by way of the sink in the database.

    It can be repeated: what the log says already changes nothing.

    Returns:
        None when there is no such symbol.

    Raises:
        SetupError: several symbols answer to it, its row has values that the engine refuses, or Kafka is out of reach,
            and nothing is changed; or Kafka has not acknowledged the change.
    """
    rows = [row for row in await read_symbols(settings) if name_or_id in (row["symbol"], str(row["id"]))]
    if not rows:
        return None
    if len(rows) > 1:
        found = " and ".join(f"{row['symbol']} (id {row['id']})" for row in rows)
        raise SetupError(f"{name_or_id!r} can be {found}; name the one you mean by its id, or by its other name.")
    command = symbol_command(rows[0]) | {"status": status, "keepStatus": False}
    [published] = await _publish_and_wait(settings, [command])
    return published


async def read_symbols(settings: Settings) -> list[dict[str, Any]]:
    """The rows of ``"Symbol"``, by id.

    Raises:
        SetupError: there is no such table.
        Unavailable: the database is out of reach.
    """
    async with Postgres(settings.database_url) as postgres:
        try:
            rows: list[dict[str, Any]] = await postgres.query("symbols")
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn) as exc:
            raise SetupError(f"The database has no symbols ({str(exc).splitlines()[0]}); run `forkast init`.") from exc
    return rows


async def _publish_and_wait(settings: Settings, commands: list[dict[str, Any]]) -> list[Published]:
    waiting = {uuid.uuid4().hex: Published(command["symbol"], command["status"]) for command in commands}
    published = list(waiting.values())
    commands = [command | {"commandId": each} for command, each in zip(commands, waiting, strict=True)]
    await require_topics(settings.broker_list)
    consumer = AIOKafkaConsumer(**kafka_arguments(settings.broker_list))
    try:
        await _start_at_end(consumer, settings)
        await _publish(settings, commands)
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
        topics = (ORDERS_EXCHANGE, ORDERS_DEAD)
        consumer.assign([TopicPartition(topic, partition) for topic in topics for partition in range(partitions)])
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
                        if record.topic == ORDERS_DEAD:
                            _take_dead_letter(record, waiting)
                        else:
                            _take_answer(json.loads(record.value), waiting)


def _take_answer(event: dict[str, Any], waiting: dict[str, Published]) -> None:
    data = event["data"]
    published = waiting.pop(data.get("commandId", ""), None)
    if published is None:
        return
    if event["type"] == "REJECT":
        published.refusal = data["message"]
    else:
        published.status = data["status"]


def _take_dead_letter(record: Any, waiting: dict[str, Published]) -> None:
    # It has the value of the record that was refused, which may be anybody's and anything.
    try:
        published = waiting.pop(_decode_refused(record.value or b"").command_id, None)
    except UNDECODABLE:
        return
    if published is not None:
        headers = {name: (text or b"").decode(errors="replace") for name, text in record.headers}
        reason = headers.get("reason", "")
        published.dead = f"{reason}, {headers.get('message', '')}"
        if reason in _KEY_REASONS:
            published.dead += "; set FORKAST_PRODUCER_KEY to a key made with `forkast keys new --symbols`"


class _Refused(msgspec.Struct, rename="camel"):
    command_id: str = ""


_decode_refused = msgspec.json.Decoder(_Refused).decode


async def _publish(settings: Settings, commands: list[dict[str, Any]]) -> None:
    """Write SYMBOL commands.

    Raises:
        SetupError: the engine would refuse one, and none is written; or Kafka is out of reach, or has not acknowledged
            a command.
    """
    _require_valid(commands)
    try:
        async with EventProducer(settings.broker_list) as producer:
            partitions = await producer.partition_count(ORDERS_NEW)
            for command in commands:
                await _send(producer, command, partitions)
    except KafkaError as exc:
        raise unreachable(settings.broker_list) from exc


def _require_valid(commands: list[dict[str, Any]]) -> None:
    """Hold the rows against what the engine takes: the table has fewer checks, and a dead letter changes nothing."""
    refused = []
    for command in commands:
        try:
            decode_command(msgspec.json.encode(command))
        except InvalidRecord as exc:
            # It begins with the field's name, which is the column's.
            refused.append(f"{command['symbol']} (id {command['symbolId']}): {exc}")
    if refused:
        raise SetupError(
            f'Nothing is published, because the engine would refuse what "Symbol" has for {"; ".join(refused)}. '
            "Correct these columns in the database, then give the command again."
        )


async def _send(producer: EventProducer, command: dict[str, Any], partitions: int) -> None:
    symbol_id = command["symbolId"]
    try:
        await producer.send(
            ORDERS_NEW,
            key=str(symbol_id).encode(),
            value=msgspec.json.encode(command),
            partition=partition_for(symbol_id, partitions),
        )
    except KafkaError as exc:
        raise SetupError(
            f"Kafka has not acknowledged the rules of {command['symbol']} ({exc!r}), so the log may have them or not; "
            "check the brokers and give the command again, which changes nothing that the log has already."
        ) from exc


def symbol_command(symbol: dict[str, Any]) -> dict[str, Any]:
    """The SYMBOL command of a row of ``"Symbol"``; rules that are NULL do not exist.

    The status is for a symbol that is new to the log.
    """
    command = {
        "command": "SYMBOL",
        "symbolId": symbol["id"],
        "symbol": symbol["symbol"],
        "tickSize": _text(symbol["tickSize"]),
        "lotSize": _text(symbol["lotSize"]),
        "status": symbol["status"],
        "keepStatus": True,
    }
    rules = {name: symbol[name] for name in RULE_COLUMNS if symbol[name] is not None}
    command |= {name: _text(value) for name, value in rules.items()}
    if symbol["maxOpenOrders"] is not None:
        command["maxOpenOrders"] = symbol["maxOpenOrders"]
    return command


def _text(value: Decimal) -> str:
    # A numeric column can have NaN and Infinity, which are for the engine to refuse.
    return decimal_text(value) if value.is_finite() else str(value)
