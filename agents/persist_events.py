"""Persists the events of ``orders.exchange`` into Postgres, rows and progress in one statement a batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
import tenacity
from faust.types import TP, StreamT

from forkast_streams.errors import CorruptLog, Unavailable
from forkast_streams.failfast import fail_fast
from forkast_streams.limits import SINK_EVENTS_MAX
from forkast_streams.persistence import RowBatch
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE
from forkast_streams.transport import BatchTransport, Idle, batch_topic

log = logging.getLogger(__name__)


class EventSink:
    """Writes the batches of the partitions this worker owns.

    Attributes:
        positions: next offset to persist, by partition.
    """

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._sequences: dict[int, dict[int, int]] = {}
        self.positions: dict[int, int] = {}
        self.waits_for_postgres = False

    async def load(self, partitions: list[int]) -> None:
        """Read how far the database is, which is where reading goes on."""
        self.positions = dict.fromkeys(partitions, 0)
        self._sequences = {partition: {} for partition in partitions}
        for row in await self._patiently("sink_progress", topic=ORDERS_EXCHANGE, partitions=partitions):
            self.positions[row["partition"]] = row["nextOffset"]
            self._sequences[row["partition"]] = {int(k): v for k, v in row["sequences"].items()}

    async def write(self, partition: int, records: tuple[Any, ...]) -> int:
        """Persist ``records`` of a partition; return how many new events they had.

        Raises:
            CorruptLog: records or events are missing, or somebody else writes this partition.
        """
        known = self.positions[partition]
        fresh = [record for record in records if record.offset >= known]
        events = 0
        for at in range(0, len(fresh), SINK_EVENTS_MAX):
            events += await self._write_some(partition, fresh[at : at + SINK_EVENTS_MAX])
        return events

    async def _write_some(self, partition: int, records: list[Any]) -> int:
        expected = self.positions[partition]
        if records[0].offset != expected:
            raise CorruptLog(
                f"{ORDERS_EXCHANGE}-{partition} goes on at offset {records[0].offset}, the database is at {expected}; "
                "events are gone that were never persisted."
            )
        batch = RowBatch(self._sequences[partition])
        batch.add(record.value for record in records)
        next_offset = records[-1].offset + 1
        result = await self._patiently(
            "sink_write",
            topic=ORDERS_EXCHANGE,
            partition=partition,
            expected_offset=expected,
            next_offset=next_offset,
            sequences=msgspec.json.encode({str(k): v for k, v in batch.sequences.items()}).decode(),
            batch=msgspec.json.encode(batch.rows()).decode(),
        )
        if not result[0]["written"] and not await self._is_there_already(partition, next_offset):
            raise CorruptLog(
                f"the progress of {ORDERS_EXCHANGE}-{partition} is not at {expected} any more: another sink writes it."
            )
        self.positions[partition] = next_offset
        self._sequences[partition].update(batch.sequences)
        return batch.events

    async def _is_there_already(self, partition: int, next_offset: int) -> bool:
        """Whether a try whose answer got lost had been carried out after all."""
        rows = await self._patiently("sink_progress", topic=ORDERS_EXCHANGE, partitions=[partition])
        return bool(rows) and rows[0]["nextOffset"] == next_offset

    async def _patiently(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Run a query, again and again while the database is away; nothing is skipped meanwhile."""
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            wait=tenacity.wait_exponential(multiplier=0.1, max=5),
            before_sleep=self._note_outage,
        ):
            with attempt:
                rows = await self._postgres.fetch(query, **parameters)
        self.waits_for_postgres = False
        return rows

    def _note_outage(self, state: tenacity.RetryCallState) -> None:
        if not self.waits_for_postgres:
            log.warning("Postgres is away, the sink waits: %s", state.outcome and state.outcome.exception())
        self.waits_for_postgres = True


class PersistingAgent:
    """Feeds the sink and acknowledges what is durable."""

    def __init__(self, app: ExchangeApp, sink: EventSink) -> None:
        self._app = app
        self._sink = sink
        self._idle = Idle()
        transport = app.transport
        assert isinstance(transport, BatchTransport)
        transport.restore_positions = self._restore_positions
        transport.drains.append(self._idle.wait_a_while)
        app.agent(batch_topic(app, ORDERS_EXCHANGE), name="sink.orders.exchange")(self._consume)
        app.ready_checks.append(self._why_not_ready)

    async def _consume(self, stream: StreamT[Any]) -> None:
        async for event in stream.noack().events():
            if event.message.generation_id != self._app.consumer_generation_id:
                continue
            try:
                with self._idle:
                    await self._sink.write(event.message.partition, event.value)
            except Exception as exc:
                fail_fast(f"persisting {ORDERS_EXCHANGE}-{event.message.partition}", exc)
            event.ack()

    async def _restore_positions(self, tps: set[TP]) -> Mapping[TP, int]:
        try:
            await self._sink.load(sorted(tp.partition for tp in tps))
        except Exception as exc:
            fail_fast("reading the sink's progress", exc)
        return {tp: self._sink.positions[tp.partition] for tp in tps}

    def _why_not_ready(self) -> str | None:
        if self._sink.waits_for_postgres:
            return "Postgres is not reachable"
        for partition, position in self._sink.positions.items():
            behind = (self._app.consumer.highwater(TP(ORDERS_EXCHANGE, partition)) or 0) - position
            if behind > SINK_EVENTS_MAX:
                return f"{ORDERS_EXCHANGE}-{partition} is {behind} records behind"
        return None


def register(app: ExchangeApp) -> None:
    """Let ``app`` persist events."""
    postgres = Postgres(app.settings.database_url)
    PersistingAgent(app, EventSink(postgres))
    app.run_service(postgres)
