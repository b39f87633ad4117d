"""Persists the events of ``orders.exchange`` in Postgres: read, fold, write, acknowledge.

The tables hold their own place in the log, moved by the statement that writes the rows. After a restart or a
rebalance reading goes on there, so whatever happens in between, each event is in the tables once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from faust.types import TP, EventT, StreamT
from mode import Service

from agents.assignment import LogEnds, owner_of, require_log
from forkast_streams.errors import Unavailable
from forkast_streams.failfast import fail_fast
from forkast_streams.kafka_client import Pace
from forkast_streams.limits import DRAIN_S_MAX
from forkast_streams.records import LastRead
from forkast_streams.roles import ExchangeApp
from forkast_streams.sink.history import PLAN_OPTIONS, PartitionHistory
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE
from forkast_streams.transport import BatchTransport, batch_topic

log = logging.getLogger(__name__)

# One statement writes at most this many events: it stays far below the statement's time-out.
WRITE_EVENTS_MAX = 5_000
# Events that wait for Postgres, of all partitions, before the fetcher is held up.
WAITING_EVENTS_MAX = 50_000
# Statements at a time. What arrives while one runs becomes fewer and larger ones of the other partitions; that takes
# Postgres a fifth less time than four at once, and is as fast, because the rows of the next one are made meanwhile.
CONNECTIONS = 1
# What comes between two fetches of a worker that keeps up is written by one statement a partition. A statement costs
# Postgres a hundred times what a row does, and nobody who trades waits for the tables.
FETCH_PACE = Pace(seconds=0.1, busy_seconds=0.25, busy_bytes=128 * 1024)
# A worker that is further behind than this does not call itself ready.
_LAG_MAX = 20_000
# Seconds until a worker must know where to go on.
_LOAD_S_MAX = 15.0


class PartitionWriter:
    """Writes one partition: what arrives while a statement runs goes into the next one together.

    Args:
        history: the partition's tables.
        on_written: called after each write.

    Attributes:
        idle: set while all that arrived is written.
        waiting_events: number of events that arrived and are not written yet.
    """

    def __init__(self, history: PartitionHistory, on_written: Callable[[], None]) -> None:
        self.history = history
        self._on_written = on_written
        self._waiting: deque[EventT[Any]] = deque()
        self._arrived = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.waiting_events = 0

    def put(self, event: EventT[Any]) -> None:
        """Take a batch; its event is acknowledged when it is in the tables."""
        self._waiting.append(event)
        self.waiting_events += len(event.value)
        self.idle.clear()
        self._arrived.set()

    async def run(self) -> None:
        """Write what arrives, without end; see `PartitionHistory.write` for the errors."""
        while True:
            await self._arrived.wait()
            taken = self._take()
            records = [record for event in taken for record in event.value]
            for at in range(0, len(records), WRITE_EVENTS_MAX):
                await self.history.write(records[at : at + WRITE_EVENTS_MAX])
            for event in taken:
                event.ack()
            self.waiting_events -= len(records)
            self._on_written()
            if not self._waiting:
                self._arrived.clear()
                self.idle.set()

    def _take(self) -> list[EventT[Any]]:
        taken = [self._waiting.popleft()]
        count = len(taken[0].value)
        while self._waiting and count + len(self._waiting[0].value) <= WRITE_EVENTS_MAX:
            taken.append(self._waiting.popleft())
            count += len(taken[-1].value)
        return taken


class EventSink(Service):
    """Feeds the batches of ``orders.exchange`` to a writer a partition."""

    def __init__(self, app: ExchangeApp, postgres: Postgres, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.postgres = postgres
        self.writers: dict[int, PartitionWriter] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._statements = asyncio.Semaphore(CONNECTIONS)
        self._room = asyncio.Event()
        # Of the partitions that were loaded last.
        self._log = LogEnds({}, {})
        transport = app.transport
        assert isinstance(transport, BatchTransport)
        transport.restore_positions = self._restore_positions
        transport.last_read = self._last_read_of
        transport.drains.append(self.drain)
        transport.fetch_pace = FETCH_PACE
        app.agent(batch_topic(app, ORDERS_EXCHANGE), name=f"{app.role.name}.{ORDERS_EXCHANGE}")(self._consume)
        app.ready_checks += [postgres.why_not_ready, self._why_not_ready]
        app.excuses.append(postgres.why_not_ready)

    async def _consume(self, stream: StreamT[Any]) -> None:
        async for event in stream.noack().events():
            writer = owner_of(event, self.writers, self.app)
            if writer is None:
                continue
            writer.put(event)
            while self._waiting_events() > WAITING_EVENTS_MAX:
                self._room.clear()
                await self._room.wait()

    def _waiting_events(self) -> int:
        return sum(writer.waiting_events for writer in self.writers.values())

    async def _restore_positions(self, tps: set[TP]) -> Mapping[TP, int]:
        try:
            return await self._start_writers(tps)
        except Exception as exc:
            fail_fast(f"reading the progress of {ORDERS_EXCHANGE}", exc)

    async def _start_writers(self, tps: set[TP]) -> Mapping[TP, int]:
        """Begin at the tables' place in every assigned partition."""
        await self.drain()
        histories = {
            tp: PartitionHistory(self.postgres, tp.topic, tp.partition, self._statements) for tp in sorted(tps)
        }
        # Faust waits for all of this no longer than broker_request_timeout, and then, in silence, for ever.
        try:
            async with asyncio.timeout(_LOAD_S_MAX):
                for history in histories.values():
                    await history.load()
        except TimeoutError:
            raise Unavailable(
                f"Postgres did not say where to go on within {_LOAD_S_MAX:g} s; it is asked again after a restart"
            ) from None
        positions = {tp: history.next_offset for tp, history in histories.items()}
        self._log = await require_log(
            self.app,
            positions,
            "the tables are",
            "restore the topic, or empty the tables if they belong to another log.",
        )
        for tp, history in histories.items():
            writer = self.writers[tp.partition] = PartitionWriter(history, self._room.set)
            self._tasks.append(asyncio.create_task(self._run_or_die(tp, writer)))
        log.info("%s: partitions go on at %s", ORDERS_EXCHANGE, {tp.partition: at for tp, at in positions.items()})
        return positions

    def _last_read_of(self, tp: TP) -> LastRead | None:
        """What the tables know of the record right before their place; None: nothing, or it is gone."""
        writer = self.writers.get(tp.partition)
        if writer is None or not self._log.has_before(tp, writer.history.next_offset):
            return None
        return None if writer.history.last_digest is None else LastRead(digest=writer.history.last_digest)

    async def _run_or_die(self, tp: TP, writer: PartitionWriter) -> None:
        try:
            await writer.run()
        except Exception as exc:
            fail_fast(f"persisting {tp.topic}-{tp.partition}", exc)

    async def drain(self) -> None:
        """Let the writers finish and stop them; what they do not finish in time is read again."""
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                # A rebalance can follow while the writers of the one before it are still being started.
                for writer in list(self.writers.values()):
                    await writer.idle.wait()
        except TimeoutError:
            log.warning("%s: not all events could be written in %g s", ORDERS_EXCHANGE, DRAIN_S_MAX)
        self.writers.clear()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._room.set()

    def _why_not_ready(self) -> str | None:
        for partition, writer in self.writers.items():
            end = self.app.consumer.highwater(TP(ORDERS_EXCHANGE, partition))
            behind = (end or 0) - writer.history.next_offset
            if behind > _LAG_MAX:
                return f"{ORDERS_EXCHANGE}-{partition} is {behind} events behind"
        return None


def register(app: ExchangeApp) -> None:
    """Let ``app`` persist events."""
    postgres = Postgres(
        app.settings.database_url, connections=CONNECTIONS + 1, name="forkast-sink", options=PLAN_OPTIONS
    )
    app.run_service(postgres)
    app.run_service(EventSink(app, postgres))
