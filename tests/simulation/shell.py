"""A simulated worker: what Faust does around the product's agents, from joining the group to the commit."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from faust.types import TP
from mode.services import ServiceTask

from agents.checkpointed import CheckpointedAgent
from agents.persist_events import EventSink
from forkast_streams.market_data.feed import LocalFeed
from forkast_streams.transport import BatchConsumer, BatchTransport
from tests.simulation.disk import Disk, SimTable
from tests.simulation.group import Assignment, Group, StaleMember
from tests.simulation.log import LogRecord, SimLog
from tests.simulation.world import Process, World

_FETCHED_AT_ONCE_MAX = 12
_DELIVERED_AGAIN = 0.03
_COMMIT_INTERVAL_S = 0.05
_QUEUED_MAX = 3


class SimTransport(BatchTransport):
    """The product's transport without Faust's."""

    def __init__(self) -> None:
        self.batch_topics = set()
        self.restore_positions = None
        self.drains = []


class SimEvent:
    """What an agent gets of a batch."""

    def __init__(self, worker: Worker, message: Any) -> None:
        self._worker = worker
        self.message = message
        self.value = message.value

    def ack(self) -> None:
        """The batch need not be read again."""
        kind, world = self._worker.kind, self._worker.world
        self.message.acked = True
        world.point(f"{kind}: acknowledged, not committed", self._worker)


class SimStream:
    """The stream of an agent: a queue that gives nothing while the flow is stopped."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.queue: asyncio.Queue[SimEvent] = asyncio.Queue(maxsize=_QUEUED_MAX)

    def noack(self) -> SimStream:
        """The agent acknowledges by itself."""
        return self

    async def events(self) -> AsyncIterator[SimEvent]:
        """Batches, in order."""
        while True:
            event = await self.queue.get()
            await self._worker.consumer.can_resume_flow.wait()
            # Faust clears the queues when partitions go; a batch already taken out of it still comes through.
            yield event


class SimConsumer(BatchConsumer):
    """The product's consumer between a simulated log and group; fetching, acknowledging and draining are its own."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.app = worker.app
        self.transport = worker.app.transport
        self.flow_active = False
        self.can_resume_flow = asyncio.Event()
        self._in_flight = defaultdict(deque)
        self._acked: dict[TP, list[int]] = defaultdict(list)
        self._acked_index: dict[TP, set[int]] = defaultdict(set)
        self._committed_offset: dict[TP, int | None] = {}
        self._unacked_messages: set[Any] = set()
        self._buffered_partitions: set[TP] = set()
        self._positions: dict[TP, int] = {}
        self.positions: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._channels = worker.channel(), worker.channel()
        self.scheduler = SimpleNamespace(iterate=lambda _others: ())
        self._is_refused = False

    @property
    def should_stop(self) -> bool:
        """A simulated worker is killed or goes on."""
        return False

    def _get_active_partitions(self) -> set[TP]:
        return set(self._positions)

    def assignment(self) -> set[TP]:
        """The input partitions of this worker."""
        return {TP(self.worker.group.topic, partition) for partition in self.worker.assignment.partitions}

    async def sleep(self, n: float) -> None:
        """Let time pass."""
        await asyncio.sleep(n)

    async def wait(self, *coros: Any, **_: Any) -> Any:
        """Wait for an event."""
        await coros[0].wait()

    def highwater(self, tp: TP) -> int | None:
        """The last end the broker told of."""
        return self._ends.get(tp)

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        """Nothing is ever deleted from the input."""
        return dict.fromkeys(tps, 0)

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        """Where the partitions end now."""
        log = self.worker.log
        return await self._ask(lambda: {tp: log.of(tp.topic, tp.partition).end for tp in tps})

    async def _ask(self, effect: Callable[[], Any]) -> Any:
        return await self.worker.world.request(self.worker, *self._channels, effect)

    async def _getmany(self, active_partitions: set[TP], timeout: float) -> dict[TP, list[LogRecord]]:  # noqa: ASYNC109
        """Fetch from every partition; what was fetched for another position than that of now is discarded."""
        world, log = self.worker.world, self.worker.log
        asked = {tp: self._positions[tp] for tp in sorted(active_partitions) if tp in self._positions}

        def fetch() -> dict[TP, list[LogRecord]]:
            found = {}
            for tp, position in asked.items():
                self._ends[tp] = log.of(tp.topic, tp.partition).end
                records = log.of(tp.topic, tp.partition).read(position, world.rng.randint(1, _FETCHED_AT_ONCE_MAX))
                if records and not world.is_calm and world.rng.random() < _DELIVERED_AGAIN:
                    earlier = log.of(tp.topic, tp.partition).read(max(0, position - 5), 5, before=position)
                    records = earlier if world.rng.random() < 0.5 else earlier + records
                    world.counts["records delivered again"] += len(earlier)
                if records:
                    found[tp] = records
            return found

        fetched = await self._ask(fetch)
        found = {tp: records for tp, records in fetched.items() if self._positions.get(tp) == asked[tp]}
        for tp, records in found.items():
            self._positions[tp] = max(asked[tp], records[-1].offset + 1)
        if not found:
            await asyncio.sleep(min(timeout, 0.02 + world.rng.random() * 0.05))
        return found

    def _rewind(self, tp: TP, offset: int) -> None:
        if self._positions.get(tp, 0) > offset:
            self._positions[tp] = offset

    async def seek(self, tp: TP, offset: int) -> None:
        """Read ``tp`` from ``offset`` on."""
        self._positions[tp] = offset

    async def perform_seek(self) -> None:
        """As the product's: first to the committed offset, as Faust does, then to where the state is."""
        self._positions.clear()
        self._committed_offset.clear()
        committed = await self._ask(lambda: dict(self.worker.group.committed))
        for tp in self.assignment():
            self._committed_offset[tp] = committed.get(tp.partition)
            self._positions[tp] = committed.get(tp.partition, 0)
        self._in_flight.clear()
        restore = self.transport.restore_positions
        if restore is not None and self.assignment():
            for tp, offset in (await restore(self.assignment())).items():
                await self.seek(tp, offset)

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is acknowledged, forwards only."""
        worker = self.worker
        offsets = {}
        for tp in sorted(self.assignment()):
            offset = self._new_offset(tp)
            committed = self._committed_offset.get(tp)
            if offset is not None and (committed is None or offset > committed):
                offsets[tp.partition] = offset
                self._committed_offset[tp] = offset
        if not offsets:
            return False
        generation = worker.assignment.generation
        worker.world.point(f"{worker.kind}: before the commit", worker)
        try:
            await self._ask(lambda: worker.group.commit(worker, generation, offsets))
        except StaleMember:
            worker.world.counts["commits refused"] += 1
            return False
        return True

    def stop_flow(self) -> None:
        """Partitions go: no agent gets another batch."""
        self.flow_active = False
        self.can_resume_flow.clear()

    def resume_flow(self) -> None:
        """Everything is in place."""
        self.flow_active = True
        self.can_resume_flow.set()

    def forget(self) -> None:
        """Have no partitions."""
        self._positions.clear()
        self._in_flight.clear()


class SimApp:
    """What the agents see of their Faust app."""

    def __init__(self, worker: Worker) -> None:
        self.process = worker
        self.log = worker.log
        self.disk = worker.disk
        self.role = SimpleNamespace(name=worker.kind)
        self.settings = SimpleNamespace(broker_list=[], redis_url="", database_url="", producer_keys=None)
        self.transport = SimTransport()
        self.ready_checks: list[Callable[[], str | None]] = []
        self.excuses: list[Callable[[], str | None]] = []
        self.feed = LocalFeed()
        self.consumer_generation_id = 0
        self.rebalancing = True
        self.monitor = SimpleNamespace(track_tp_end_offset=lambda *_: None)
        self.client_only = False
        self.agents: list[Callable[[Any], Any]] = []
        self.services: list[Any] = []
        self.registered_tables: list[SimTable] = []
        self.tables = SimpleNamespace(add=self._add_table, recovery=SimpleNamespace(active_highwaters={}))
        self.assignor = SimpleNamespace(assigned_actives=self._actives)

    def _add_table(self, table: SimTable) -> SimTable:
        self.registered_tables.append(table)
        return table

    def _actives(self) -> set[TP]:
        names = [table.changelog_topic.get_topic_name() for table in self.registered_tables]
        return {TP(name, partition) for name in names for partition in self.process.assignment.partitions}

    def topic(self, name: str, **_: Any) -> str:
        """A topic is its name here."""
        return name

    def agent(self, _channel: str, **_: Any) -> Callable[[Any], Any]:
        """Register an agent."""

        def add(fun: Any) -> Any:
            self.agents.append(fun)
            return fun

        return add

    def run_service(self, service: Any) -> None:
        """Run the background tasks of ``service``."""
        self.services.append(service)


class Worker(Process):
    """A worker process of a role.

    Args:
        register: the role's own wiring, as `agents.match_orders.register`.
        disk: outlives the worker.
    """

    def __init__(
        self, world: World, name: str, group: Group, log: SimLog, disk: Disk, register: Callable[[Any], None]
    ) -> None:
        super().__init__(world, group.role, name)
        self.group = group
        self.log = log
        self.disk = disk
        self.assignment = Assignment(-1, ())
        self.rebalance = asyncio.Event()
        self.committed_before: dict[int, int] = {}
        self.on_loaded: Callable[[Worker], None] = lambda _: None
        self.app = SimApp(self)
        self.app.consumer = self.consumer = SimConsumer(self)  # type: ignore[attr-defined]
        register(self.app)
        self.stream = SimStream(self)
        self._run_services()
        for agent in self.app.agents:
            self.spawn(agent(self.stream))
        self.spawn(self._fetch())
        self.spawn(self._commit())
        self.spawn(self._live())

    def _run_services(self) -> None:
        for service in self.app.services:
            service.sleep = self.consumer.sleep
            for kind in type(service).__mro__:
                for task in vars(kind).values():
                    if isinstance(task, ServiceTask) and kind.__module__.startswith(("agents", "forkast_streams")):
                        self.spawn(task.fun(service))

    @property
    def is_settled(self) -> bool:
        """Whether the worker has its partitions and no rebalance is under way."""
        return not self.app.rebalancing and not self.rebalance.is_set()

    @property
    def is_in_batch(self) -> bool:
        """Whether an agent is inside a batch, or has one that is not in the tables yet."""
        return any(
            (isinstance(service, CheckpointedAgent) and not service._idle.is_idle)
            or (isinstance(service, EventSink) and service._waiting_events() > 0)
            for service in self.app.services
        )

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether a state has processed what no durable checkpoint covers yet."""
        return any(
            assigned.records > 0 or assigned.is_writing
            for service in self.app.services
            if isinstance(service, CheckpointedAgent)
            for assigned in service.partitions.values()
        )

    async def _fetch(self) -> None:
        while True:
            async for _, message in self.consumer.getmany(timeout=0.1):
                await self.stream.queue.put(SimEvent(self, message))

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_INTERVAL_S)
            if self.consumer.flow_active:
                await self.consumer.commit()

    async def _live(self) -> None:
        """Join, get partitions, work until they are taken away, and again."""
        while True:
            joined = self.group.join(self)
            self.rebalance.clear()
            self.assignment = await joined
            starting = self.spawn(self._start())
            await self.rebalance.wait()
            # Faust tells of revoked partitions while its recovery may be anywhere.
            await self._revoke()
            await starting

    async def _start(self) -> None:
        """Faust's order: the changelog is replayed, the agents load, the consumer seeks, the flow goes on.

        A rebalance meanwhile ends it.
        """
        app, world = self.app, self.world
        app.consumer_generation_id = self.assignment.generation
        self.committed_before = dict(self.group.committed)
        for table in app.registered_tables:
            for partition in self.assignment.partitions:
                await table.replay(partition, self.rebalance.is_set)
        if self.rebalance.is_set():
            return
        for table in app.registered_tables:
            await table.recovered()
        if self.rebalance.is_set():
            return
        self.on_loaded(self)
        world.point(f"{self.kind}: loaded, not sought", self)
        await self.consumer.perform_seek()
        if self.rebalance.is_set():
            return
        app.rebalancing = False
        self.consumer.resume_flow()
        world.log("{} works on {} in generation {}", self, self.assignment.partitions, self.assignment.generation)

    async def _revoke(self) -> None:
        self.consumer.stop_flow()
        self.app.rebalancing = True
        while not self.stream.queue.empty():
            self.stream.queue.get_nowait()
        await self.consumer.wait_empty()
        self.consumer.forget()

    async def leave(self) -> None:
        """End in order (SIGTERM): finish, checkpoint, commit, go."""
        await self._revoke()
        self.group.remove(self)
        self.world.processes.remove(self)
        self.alive = False
        # The rest of the process must not run on in this very step, and join again.
        self.loop.halt()
