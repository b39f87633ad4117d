"""Sends a flow to the exchange and follows what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from forkast_streams.errors import SetupError
from forkast_streams.kafka_security import kafka_arguments, unreachable
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.replay.depth import Depth
from forkast_streams.replay.flow import Flow, Step
from forkast_streams.replay.report import ReplayReport
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, partition_for

# Commands on their way at once: enough to keep the brokers busy, few enough that progress moves.
_CHUNK = 2_000
_FETCH_BYTES_MAX = 4 * 1024 * 1024
_FETCH_WAIT_MS = 200
_ANSWER_WAIT_S = 30.0

Progress = Callable[[int], None]


@dataclass(slots=True)
class SymbolState:
    """A symbol as its events leave it; ``status`` is None while it is not defined."""

    status: str | None = None
    depth: Depth = field(default_factory=Depth)


class ReplaySession:
    """One symbol's partition of the log: what is in it already, and what a replay adds."""

    def __init__(self, symbol_id: int, partition: int, producer: EventProducer, consumer: AIOKafkaConsumer) -> None:
        self._symbol_id = symbol_id
        self._partition = partition
        self._key = str(symbol_id).encode()
        self._events = TopicPartition(ORDERS_EXCHANGE, partition)
        self._producer = producer
        self._consumer = consumer

    async def read_symbol(self) -> SymbolState:
        """Read the symbol's events so far, so that the replay starts from the book as it is."""
        state = SymbolState()
        start = (await self._consumer.beginning_offsets([self._events]))[self._events]
        end = (await self._consumer.end_offsets([self._events]))[self._events]
        self._consumer.seek(self._events, start)
        while await self._consumer.position(self._events) < end:
            for event in await self._fetch():
                state.depth.apply(event)
                if event["type"] == "SYMBOL":
                    state.status = event["data"]["status"]
        return state

    async def run(self, flow: Flow, report: ReplayReport, *, speed: float | None, progress: Progress) -> None:
        """Send all commands and fold their events into ``report`` until each command is answered.

        Args:
            flow: what to send.
            report: continues the book that `read_symbol` returned.
            speed: how many times faster than recorded, None for as fast as possible.
            progress: called with the number of commands answered so far.

        Raises:
            SetupError: the engine or the brokers do not answer.
        """
        sending = asyncio.create_task(self._send(flow, speed))
        try:
            await self._follow(report, sending, progress)
        except KafkaError as exc:
            raise SetupError(
                f"Kafka stopped answering ({type(exc).__name__}); see that it runs and replay again."
            ) from exc
        finally:
            sending.cancel()

    async def _send(self, flow: Flow, speed: float | None) -> None:
        clock = asyncio.get_running_loop().time
        started, position = clock(), 0
        while position < len(flow.steps):
            end = due_end(flow.steps, position, clock() - started, speed)
            if end == position:
                await asyncio.sleep(due_at(flow.steps, position, speed) - (clock() - started))
                continue
            records = [
                OutputRecord(self._key, msgspec.json.encode(step.command), 0) for step in flow.steps[position:end]
            ]
            for batch in await self._producer.send_batch(ORDERS_NEW, self._partition, records):
                await batch.acknowledged
            position = end

    async def _follow(self, report: ReplayReport, sending: asyncio.Task[None], progress: Progress) -> None:
        clock = asyncio.get_running_loop().time
        last_event = clock()
        while not report.is_complete:
            events = await self._fetch()
            for event in events:
                report.add(event)
            progress(report.answered)
            if sending.done():
                sending.result()
            if events or not sending.done():
                last_event = clock()
            elif clock() - last_event > _ANSWER_WAIT_S:
                raise SetupError(
                    f"no answer for {_ANSWER_WAIT_S:g} s; is an engine running (`forkast up`, `forkast worker engine`)?"
                )

    async def _fetch(self) -> list[dict[str, Any]]:
        """The next events of the symbol, none after a short wait."""
        fetched = await self._consumer.getmany(timeout_ms=_FETCH_WAIT_MS)
        return [
            msgspec.json.decode(record.value)
            for records in fetched.values()
            for record in records
            if record.key == self._key
        ]


@asynccontextmanager
async def open_session(brokers: list[str], symbol_id: int) -> AsyncIterator[ReplaySession]:
    """Connect to the brokers for a replay on ``symbol_id``.

    Raises:
        SetupError: the brokers are out of reach.
    """
    producer = EventProducer(brokers, client_id="forkast-replay")
    consumer = AIOKafkaConsumer(
        **kafka_arguments(brokers), enable_auto_commit=False, max_partition_fetch_bytes=_FETCH_BYTES_MAX
    )
    try:
        await consumer.start()
        await producer.start()
        partition = partition_for(symbol_id, await producer.partition_count(ORDERS_NEW))
        consumer.assign([TopicPartition(ORDERS_EXCHANGE, partition)])
        yield ReplaySession(symbol_id, partition, producer, consumer)
    except KafkaError as exc:
        raise unreachable(brokers) from exc
    finally:
        await producer.stop()
        await consumer.stop()


def due_at(steps: list[Step], position: int, speed: float | None) -> float:
    """Seconds after the first step at which the one at ``position`` is due."""
    return 0.0 if speed is None else (steps[position].time_ns - steps[0].time_ns) / 1e9 / speed


def due_end(steps: list[Step], position: int, elapsed_s: float, speed: float | None) -> int:
    """End of the steps from ``position`` on that are due, at most as many as are sent at once."""
    end = min(position + _CHUNK, len(steps))
    if speed is None:
        return end
    return next((at for at in range(position, end) if due_at(steps, at, speed) > elapsed_s), end)
