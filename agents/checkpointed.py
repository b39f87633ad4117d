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

from agents.assignment import LogEnds, owner_of, require_log
from forkast_streams.checkpoint import Checkpointed, Checkpointer, Rows, recover
from forkast_streams.errors import CorruptLog
from forkast_streams.failfast import fail_fast
from forkast_streams.kafka_client import Pace
from forkast_streams.limits import CHECKPOINT_INTERVAL_S, CHECKPOINT_RECORDS_MAX, DRAIN_S_MAX
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.records import LastRead
from forkast_streams.roles import ExchangeApp
from forkast_streams.transport import BatchTransport, Idle, batch_topic
from tables.segments import SegmentTable

log = logging.getLogger(__name__)

StateT = TypeVar("StateT", bound=Checkpointed)

_TICK_S = 0.02


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

    @property
    def is_durable(self) -> bool:
        """Whether all that was processed is in checkpoints, and the last of them was written to its end."""
        is_written = self.writing is None or (self.writing.done() and not self.writing.cancelled())
        return is_written and not self.records

    async def written(self) -> None:
        """Wait for the checkpoint on its way; who stops waiting does not stop it in the middle."""
        if self.writing is not None:
            await asyncio.wait({self.writing})


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
        last_read: what a state knows of the last record it was made of; None: nothing.
        fetch_pace: between two fetches while the worker keeps up.
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
        on_loaded: Callable[[Mapping[int, StateT]], Awaitable[None]],
        last_read: Callable[[StateT], LastRead | None],
        fetch_pace: Pace,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.topic = topic
        self.table = table
        self.producer = producer
        self.partitions: dict[int, Assigned[StateT]] = {}
        self._let_go: dict[int, Assigned[StateT]] = {}
        self._state_type = state_type
        self._new_state = new_state
        self._process = process
        self._on_loaded = on_loaded
        self._last_read = last_read
        # Of the partitions that were loaded last.
        self._log = LogEnds({}, {})
        self._idle = Idle()
        self._goals: dict[int, int] = {}
        self._drains = 0
        transport = app.transport
        assert isinstance(transport, BatchTransport)
        transport.restore_positions = self._restore_positions
        transport.last_read = self._last_read_of
        transport.drains.append(self.drain)
        transport.fetch_pace = fetch_pace
        table.on_recover(self._load_or_die)
        app.agent(batch_topic(app, topic), name=f"{app.role.name}.{topic}")(self._consume)
        app.ready_checks.append(self._why_not_ready)

    async def _consume(self, stream: StreamT[Any]) -> None:
        async for event in stream.noack().events():
            assigned = owner_of(event, self.partitions, self.app)
            if assigned is None:
                continue
            try:
                with self._idle:
                    await self._process_batch(assigned, event)
            except Exception as exc:
                fail_fast(f"processing {self.topic}-{event.message.partition}", exc)

    async def _process_batch(self, assigned: Assigned[StateT], event: EventT[Any]) -> None:
        first = assigned.state.next_offset
        assigned.outputs += await self._process(event.message.partition, assigned.state, event.value)
        # It is acknowledged by its place. A second's worth of records would be in the way of the garbage collector.
        event.value = event.message.value = None
        assigned.events.append(event)
        # Records that come again are no progress, and a second checkpoint at one offset would overwrite the first.
        assigned.records += assigned.state.next_offset - first
        self._checkpoint_due()

    @Service.task
    async def _checkpoint_in_time(self) -> None:
        """Checkpoint what is due while no batch comes; after each batch the agent itself looks what is due.

        Waiting for the end of a batch would not do: when the waiter runs, the agent may be inside the next one.
        """
        while not self.should_stop:
            # mode's own sleep, which looks for a stop as well, was most of what an idle worker did.
            await asyncio.sleep(_TICK_S)
            if self._idle.is_idle:
                self._checkpoint_due()

    def _checkpoint_due(self) -> None:
        """Checkpoint a partition that is due, one at a time, so that cutting them adds up to no pause.

        Only when every batch that was begun is handed over: a checkpoint in the middle of one would cover outputs
        that nobody waits for, and a crash would lose them.
        """
        now = time.monotonic()
        for partition, assigned in self.partitions.items():
            is_due = assigned.records >= CHECKPOINT_RECORDS_MAX or now - assigned.cut_at >= CHECKPOINT_INTERVAL_S
            if assigned.records and is_due and not assigned.is_writing:
                self._checkpoint(partition, assigned)
                return

    def _checkpoint(self, partition: int, assigned: Assigned[StateT]) -> None:
        """Cut a checkpoint of what was processed so far and write it in the background."""
        rows = assigned.checkpointer.cut(assigned.state)
        outputs, assigned.outputs = assigned.outputs, []
        # A state that is inside a command is at the beginning of it.
        reached = assigned.state.next_offset
        events = [event for event in assigned.events if event.message.offset < reached]
        assigned.events = assigned.events[len(events) :]
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
            async with asyncio.timeout(DRAIN_S_MAX):
                # A second drain may come meanwhile: a rebalance can follow while the one before it is still loaded.
                for partition, assigned in list(self.partitions.items()):
                    await assigned.written()
                    await self._idle.wait()
                    if assigned.records:
                        self._checkpoint(partition, assigned)
                for assigned in list(self.partitions.values()):
                    await assigned.written()
        except TimeoutError:
            log.warning("%s: not all partitions could be checkpointed in %g s", self.topic, DRAIN_S_MAX)
        for assigned in self.partitions.values():
            # They come again, to whoever has the partition next.
            assigned.events.clear()
        self._let_go, self.partitions = self.partitions, {}

    async def _load_or_die(self) -> None:
        # Faust would swallow the exception and run on with nothing loaded.
        try:
            await self._load()
        except Exception as exc:
            fail_fast(f"loading the checkpoints of {self.topic}", exc)

    async def _load(self) -> None:
        """Take back the assigned partitions that nobody had meanwhile, and rebuild the others from their rows."""
        await self.drain()
        drains = self._drains
        started = time.monotonic()
        changelog = self.table.changelog_topic.get_topic_name()
        mine = sorted(tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == changelog)
        count = await self.producer.partition_count(self.topic)
        let_go, self._let_go = self._let_go, {}
        loaded = {p: let_go[p] for p in mine if p in let_go and self._is_as_left(p, let_go[p])}
        fresh = [partition for partition in mine if partition not in loaded]
        if fresh or len(loaded) < len(let_go):
            let_go.clear()
            await self._restore_all(fresh, count, loaded)
        await self._check_input(loaded)
        # They may go again while they are loaded; then the next assignment decides.
        if self._drains != drains:
            self._let_go = loaded
            return
        self.partitions = loaded
        await self._on_loaded({p: assigned.state for p, assigned in loaded.items()})
        log.info(
            "%s: loaded partitions %s in %.2f s, kept %d",
            self.topic, fresh or "(none)", time.monotonic() - started, len(mine) - len(fresh),
        )  # fmt: skip

    def _is_as_left(self, partition: int, left: Assigned[StateT]) -> bool:
        """Whether the state is all in the changelog and nobody has written there since; then its chain goes on.

        The state itself is right in any case: it is what the input up to its offset leads to, whoever reads that.
        """
        return left.is_durable and self.table.is_as_left(partition)

    async def _restore_all(self, partitions: list[int], count: int, loaded: dict[int, Assigned[StateT]]) -> None:
        # What was let go is garbage now, and frozen garbage would never be collected.
        gc.unfreeze()
        gc.collect()
        gc.disable()
        try:
            for partition in partitions:
                loaded[partition] = self._restore(partition, count)
                await asyncio.sleep(0)
        finally:
            gc.enable()
            gc.freeze()

    def _restore(self, partition: int, count: int) -> Assigned[StateT]:
        recovered = recover(self.table.read(partition))
        if recovered.newest is None:
            state = self._new_state(partition, count)
        else:
            try:
                state = self._state_type.restore(
                    partition,
                    recovered.newest.reached,
                    recovered.head,
                    recovered.entries.items(),
                    recovered.journal,
                )
            except CorruptLog as exc:
                # The changelog is the truth, and the store a copy of it on a disk that may have lost something.
                self.table.forget(partition)
                raise CorruptLog(
                    f"{exc} The local copy of {self.table.name} is deleted; start the worker again, and it reads the "
                    "changelog instead. If it says the same then, restore the changelog."
                ) from exc
        return Assigned(state, Checkpointer.resume(partition, random.getrandbits(32), recovered))

    async def _check_input(self, loaded: Mapping[int, Assigned[StateT]]) -> None:
        """Refuse to start where the input does not reach from the state on."""
        self._goals = {}
        if not loaded:
            return
        positions = {TP(self.topic, partition): assigned.state.next_offset for partition, assigned in loaded.items()}
        self._log = await require_log(
            self.app,
            positions,
            "the checkpoint is",
            "restore the topic or the changelog, or delete both together with the local folder.",
        )
        self._goals = {tp.partition: self._log.ends[tp] or 0 for tp in positions}

    async def _restore_positions(self, tps: set[TP]) -> Mapping[TP, int]:
        return {tp: self.partitions[tp.partition].state.next_offset for tp in tps if tp.partition in self.partitions}

    def _last_read_of(self, tp: TP) -> LastRead | None:
        """What is known of the record right before the place of ``tp``'s state; None: nothing, or it is gone."""
        assigned = self.partitions.get(tp.partition)
        if assigned is None or not self._log.has_before(tp, assigned.state.next_offset):
            return None
        return self._last_read(assigned.state)

    def _behind(self, partition: int) -> int | None:
        """How many records are still to be processed; None while the broker has not told."""
        end = self.app.consumer.highwater(TP(self.topic, partition))
        return None if end is None else max(0, end - self.partitions[partition].state.next_offset)

    def _why_not_ready(self) -> str | None:
        """Reach what was in the log at the assignment; after that a moderate lag is life.

        Under load the log's end moves on all the time: who waits to stand at it is never ready.
        """
        for partition, assigned in self.partitions.items():
            missing = self._goals.get(partition, 0) - assigned.state.next_offset
            if missing > 0:
                return f"{self.topic}-{partition} is behind by {missing} records"
            behind = self._behind(partition)
            if behind is not None and behind > CHECKPOINT_RECORDS_MAX:
                return f"{self.topic}-{partition} is behind by {behind} records"
        return None
