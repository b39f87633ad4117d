"""The life of a partition's state: load, process, publish, checkpoint, acknowledge.

The order of effects is the promise that nothing is lost and nothing happens twice: outputs are acknowledged, then the
checkpoint's rows by the changelog, then the local store has them, and only then the input is acknowledged. After a
crash at any point some input is processed again, to the same outputs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from faust.types import TP, EventT, StreamT
from mode import Service

from forkast_streams.checkpoint import Checkpointed, Checkpointer, Rows, recover
from forkast_streams.errors import CorruptLog
from forkast_streams.failfast import fail_fast
from forkast_streams.limits import CHECKPOINT_INTERVAL_S, CHECKPOINT_RECORDS_MAX
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.roles import ExchangeApp
from forkast_streams.transport import BatchTransport, Idle, batch_topic
from tables.segments import SegmentTable

log = logging.getLogger(__name__)

StateT = TypeVar("StateT", bound=Checkpointed)

_TICK_S = 0.02
# A drain that takes longer is given up: what it would have saved is processed again.
_DRAIN_S_MAX = 8.0


@dataclass(slots=True)
class Assigned(Generic[StateT]):
    """A partition this worker owns, and what is not durable of it yet."""

    state: StateT
    checkpointer: Checkpointer
    outputs: list[SentBatch] = field(default_factory=list)
    events: list[EventT[Any]] = field(default_factory=list)
    records: int = 0
    cut_at: float = 0.0
    writing: asyncio.Task[None] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is on its way; there is never more than one a partition."""
        return self.writing is not None and not self.writing.done()


class CheckpointedAgent(Service, Generic[StateT]):
    """Feeds the batches of a topic to one state a partition and keeps the states crash-safe.

    Args:
        app: the role's app.
        topic: input topic.
        table: where the checkpoints go.
        producer: sends outputs and checkpoints.
        state_type: restores a state, see ``Checkpointed``.
        new_state: makes an empty state of a partition, given its number and the number of partitions.
        process: handles a batch: lets the state process the records and hands over its outputs, and returns the
            batches that must be acknowledged before a checkpoint may cover them.
        on_loaded: called with all states after each rebalance, before the first batch.
    """

    def __init__(
        self,
        app: ExchangeApp,
        topic: str,
        table: SegmentTable,
        producer: EventProducer,
        *,
        state_type: type[StateT],
        new_state: Callable[[int, int], StateT],
        process: Callable[[int, StateT, tuple[Any, ...]], Awaitable[list[SentBatch]]],
        on_loaded: Callable[[Mapping[int, StateT]], Awaitable[None]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.topic = topic
        self.table = table
        self.producer = producer
        self.partitions: dict[int, Assigned[StateT]] = {}
        self._state_type = state_type
        self._new_state = new_state
        self._process = process
        self._on_loaded = on_loaded
        self._idle = Idle()
        self._was_caught_up = False
        self._drains = 0
        transport = app.transport
        assert isinstance(transport, BatchTransport)
        transport.restore_positions = self._restore_positions
        transport.drains.append(self.drain)
        table.on_recover(self._load_or_die)
        app.agent(batch_topic(app, topic), name=f"{app.role.name}.{topic}")(self._consume)
        app.ready_checks.append(self._why_not_ready)

    async def _consume(self, stream: StreamT[Any]) -> None:
        async for event in stream.noack().events():
            # A batch fetched before a rebalance may lie behind or ahead of the state that was loaded since.
            assigned = self.partitions.get(event.message.partition)
            if assigned is None or event.message.generation_id != self.app.consumer_generation_id:
                continue
            try:
                with self._idle:
                    await self._process_batch(assigned, event)
            except Exception as exc:
                fail_fast(f"processing {self.topic}-{event.message.partition}", exc)

    async def _process_batch(self, assigned: Assigned[StateT], event: EventT[Any]) -> None:
        records = event.value
        first = assigned.state.next_offset
        assigned.outputs += await self._process(event.message.partition, assigned.state, records)
        assigned.events.append(event)
        # Records that come again are no progress, and a second checkpoint at one offset would overwrite the first.
        assigned.records += assigned.state.next_offset - first
        if assigned.records >= CHECKPOINT_RECORDS_MAX and not assigned.is_writing:
            self._checkpoint(event.message.partition, assigned)

    @Service.task
    async def _checkpoint_in_time(self) -> None:
        """Checkpoint the partitions that are due, at most one a tick, so that cutting them adds up to no pause."""
        while not self.should_stop:
            await self.sleep(_TICK_S)
            # Inside a batch a checkpoint would cover outputs that are not handed over yet.
            if not self._idle.is_idle:
                await self._idle.wait()
            now = time.monotonic()
            for partition, assigned in self.partitions.items():
                due = assigned.records and now - assigned.cut_at >= CHECKPOINT_INTERVAL_S
                if due and not assigned.is_writing:
                    self._checkpoint(partition, assigned)
                    break

    def _checkpoint(self, partition: int, assigned: Assigned[StateT]) -> None:
        """Cut a checkpoint of what was processed so far and write it in the background."""
        rows = assigned.checkpointer.cut(assigned.state)
        outputs, assigned.outputs = assigned.outputs, []
        events, assigned.events = assigned.events, []
        assigned.records = 0
        assigned.cut_at = time.monotonic()
        assigned.writing = asyncio.create_task(self._make_durable(partition, rows, outputs, events))

    async def _make_durable(
        self, partition: int, rows: Rows, outputs: list[SentBatch], events: list[EventT[Any]]
    ) -> None:
        try:
            for batch in outputs:
                await batch.acknowledged
            await self.table.append(partition, rows, self.producer)
        except Exception as exc:
            fail_fast(f"the checkpoint of {self.topic}-{partition}", exc)
        for event in events:
            event.ack()

    async def drain(self) -> None:
        """Finish the batch in hand, checkpoint every partition, and let go of them all."""
        self._drains += 1
        if not self.partitions:
            return
        try:
            async with asyncio.timeout(_DRAIN_S_MAX):
                await self._idle.wait()
                # Two drains may be under way: a rebalance can follow while the one before it is still loaded.
                for partition, assigned in list(self.partitions.items()):
                    if assigned.is_writing and assigned.writing is not None:
                        await assigned.writing
                    if assigned.records:
                        self._checkpoint(partition, assigned)
                for assigned in list(self.partitions.values()):
                    if assigned.writing is not None:
                        await assigned.writing
        except TimeoutError:
            log.warning("%s: not all partitions could be checkpointed in %d s", self.topic, _DRAIN_S_MAX)
        self.partitions.clear()

    async def _load_or_die(self) -> None:
        # Faust would swallow the exception and run on with nothing loaded.
        try:
            await self._load()
        except Exception as exc:
            fail_fast(f"loading the checkpoints of {self.topic}", exc)

    async def _load(self) -> None:
        """Rebuild the state of every assigned partition from its rows."""
        await self.drain()
        drains, loaded = self._drains, dict[int, Assigned[StateT]]()
        self._was_caught_up = False
        started = time.monotonic()
        changelog = self.table.changelog_topic.get_topic_name()
        mine = sorted(tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == changelog)
        count = await self.producer.partition_count(self.topic)
        # What was loaded before is garbage now, and frozen garbage would never be collected.
        gc.unfreeze()
        gc.collect()
        gc.disable()
        try:
            for partition in mine:
                loaded[partition] = self._restore(partition, count)
                await asyncio.sleep(0)
        finally:
            gc.enable()
            gc.freeze()
        await self._check_input(loaded)
        # The partitions may go again while they are loaded; then their next owner is at work on them already.
        if self._drains != drains:
            return
        self.partitions.update(loaded)
        if self._on_loaded is not None:
            await self._on_loaded({p: assigned.state for p, assigned in loaded.items()})
        log.info("%s: loaded partitions %s in %.2f s", self.topic, mine or "(none)", time.monotonic() - started)

    def _restore(self, partition: int, count: int) -> Assigned[StateT]:
        recovered = recover(self.table.read(partition))
        if recovered.newest is None:
            state = self._new_state(partition, count)
        else:
            state = self._state_type.restore(
                partition,
                recovered.newest.reached,
                recovered.head,
                recovered.entries.items(),
                recovered.journal,
            )
        return Assigned(state, Checkpointer.resume(partition, random.getrandbits(32), recovered))

    async def _check_input(self, loaded: Mapping[int, Assigned[StateT]]) -> None:
        """Refuse to start where the input does not reach from the state on."""
        tps = [TP(self.topic, partition) for partition in loaded]
        if not tps:
            return
        earliest = await self.app.consumer.earliest_offsets(*tps)
        ends = await self.app.consumer.highwaters(*tps)
        for tp in tps:
            position = loaded[tp.partition].state.next_offset
            if not (earliest[tp] or 0) <= position <= (ends[tp] or 0):
                raise CorruptLog(
                    f"{tp.topic}-{tp.partition} holds offsets {earliest[tp]} to {ends[tp]}, the checkpoint is at "
                    f"{position}; restore the topic or the changelog, or delete both together with the local folder."
                )

    async def _restore_positions(self, tps: set[TP]) -> Mapping[TP, int]:
        return {tp: self.partitions[tp.partition].state.next_offset for tp in tps if tp.partition in self.partitions}

    def is_caught_up(self) -> bool:
        """Whether everything is processed, to the last record the broker told of."""
        return all(self._behind(partition) == 0 for partition in self.partitions)

    def _behind(self, partition: int) -> int | None:
        """How many records are still to be processed; None while the broker has not told."""
        end = self.app.consumer.highwater(TP(self.topic, partition))
        return None if end is None else max(0, end - self.partitions[partition].state.next_offset)

    def _why_not_ready(self) -> str | None:
        """Catch up once after each assignment; after that a moderate lag is life."""
        self._was_caught_up = self._was_caught_up or self.is_caught_up()
        for partition in self.partitions:
            behind = self._behind(partition)
            if behind is None or behind > (CHECKPOINT_RECORDS_MAX if self._was_caught_up else 0):
                return f"{self.topic}-{partition} is behind by {'?' if behind is None else behind} records"
        return None
