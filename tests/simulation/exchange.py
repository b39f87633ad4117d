"""One run: the whole exchange under one seed, until all that was asked has been done, and then the checks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from agents.checkpointed import CheckpointedAgent
from forkast_streams.checkpoint import recover
from forkast_streams.codec import decode_command
from forkast_streams.engine.symbols import Symbol
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.topics import ENGINE_CHANGELOG, KEEPER_CHANGELOG, ORDERS_EXCHANGE, ORDERS_NEW
from tests.simulation import patches
from tests.simulation.checks import Shadows, Watch, check_conserved, check_log, check_tables, require
from tests.simulation.database import Tables, is_fence
from tests.simulation.disk import Disk
from tests.simulation.faults import Faults
from tests.simulation.flow import Wish, wishes
from tests.simulation.group import Group
from tests.simulation.log import SimLog
from tests.simulation.oms import Backends, Oms
from tests.simulation.people import People
from tests.simulation.shell import Worker
from tests.simulation.world import Process, Violation, World
from tests.support.market_events import depth_of, depth_of_engine

_STEPS_MAX = 100_000
_RESTART_STEPS = (0, 20, 200, 2000)
_STATES: dict[str, tuple[str, type[EnginePartition | MarketDataState]]] = {
    "engine": (ENGINE_CHANGELOG, EnginePartition),
    "keeper": (KEEPER_CHANGELOG, MarketDataState),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did.

    Attributes:
        counts: crashes, zombies and so on, and what was checked.
        digest: of every record that the log took, in order: two runs of a seed have the same.
    """

    seed: int
    counts: Counter[str]
    digest: str


class Exchange:
    """All processes of a run and what serves them."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None) -> None:
        world = self.world = World(seed, trace=trace)
        rng = world.rng
        self.log = SimLog(world, rng.randint(1, 3))
        self.watch = Watch(self.log)
        self.shadows = Shadows(self.log)
        self.tables = Tables()
        self.public: dict[int, patches.PublicBook] = defaultdict(patches.PublicBook)
        self.disks: dict[str, Disk] = defaultdict(Disk)
        self.backends = Backends(self.tables)
        flow = wishes(rng, self.log.partitions, rng.choice([40, 120, 250]), is_plain=rng.random() < 0.3)
        engine = Group(world, "engine", ORDERS_NEW, self.log.partitions)
        keeper = Group(world, "keeper", ORDERS_EXCHANGE, self.log.partitions)
        sink = Group(world, "sink", ORDERS_EXCHANGE, self.log.partitions)
        self.groups = [engine, keeper, sink]
        for group in self.groups:
            if group.role in _STATES:
                group.on_commit = partial(self.watch.on_commit, _STATES[group.role][0])
        self._numbers: Counter[str] = Counter()
        self._register: dict[str, Callable[[Any], None]] = {
            "engine": patches.register_engine,
            "keeper": lambda app: patches.register_keeper(app, self.public),
            "sink": lambda app: patches.register_sink(app, self.tables),
        }
        world.on_killed = self._on_killed
        world.on_stopped = self._on_stopped
        self.people = People(world, self.log, flow, _symbols(flow))
        self.faults = Faults(self)

    def workers(self) -> list[Worker]:
        """All workers that are alive."""
        return [process for process in self.world.processes if isinstance(process, Worker)]

    def start(self) -> None:
        """Start all processes."""
        for number in range(1, self.world.rng.randint(1, 2) + 1):
            self._start_oms(f"oms-{number}")
        for group in self.groups:
            for _ in range(self.world.rng.randint(1, 2)):
                self.start_worker(group)

    def start_worker(self, group: Group, name: str | None = None) -> None:
        """Start a worker; under the name of a dead one it has that one's disk."""
        if name is None:
            self._numbers[group.role] += 1
            name = f"{group.role}-{self._numbers[group.role]}"
        worker = Worker(self.world, name, group, self.log, self.disks[name], self._register[group.role])
        worker.on_loaded = self._check_loaded

    def _start_oms(self, name: str) -> None:
        others = [oms for oms in self.people.services if oms.name != name]
        self.people.services = [*others, Oms(self.world, name, self.log, self.backends)]

    def stop_in_order(self, worker: Worker) -> None:
        """Let a worker finish and go, and start it again."""
        worker.spawn(worker.leave())
        self.faults.soon(self.world.rng.choice(_RESTART_STEPS), partial(self._start_again, worker))

    def _start_again(self, worker: Worker) -> None:
        if worker.alive:
            self.faults.soon(50, partial(self._start_again, worker))
        elif not any(other.name == worker.name for other in self.workers()):
            self.start_worker(worker.group, worker.name)

    def _on_killed(self, process: Process) -> None:
        steps = self.world.rng.choice(_RESTART_STEPS)
        if isinstance(process, Worker):
            process.group.lost(process)
            # The session's time-out may come before the worker is back, or after.
            self.faults.soon(self.world.rng.choice(_RESTART_STEPS), partial(process.group.expire, process.name))
            self.faults.soon(steps, partial(self._start_again, process))
        else:
            self.faults.soon(steps, partial(self._start_oms, process.name))

    def _on_stopped(self, process: Process, what: str, exc: BaseException) -> None:
        """A process stopped by itself: only the fence between two writers of one partition is a reason for that."""
        if not is_fence(exc):
            self.world.failure = Violation(f"{process} stopped by itself, {what}: {exc!r}")
            self.world.failure.__cause__ = exc
            return
        self.world.counts["writers fenced"] += 1
        self.world.log("{} is fenced", process)
        if process.alive:
            self.world.kill(process)

    def _check_loaded(self, worker: Worker) -> None:
        """What was recovered is the newest there is, and as if nothing had happened (I-14, I-18)."""
        if worker.kind not in _STATES:
            return
        topic, _ = _STATES[worker.kind]
        for partition, assigned in _agent(worker).partitions.items():
            self.world.counts["states recovered"] += 1
            self.shadows.check(assigned.state)
            self._check_newest(worker, topic, partition, assigned.state.next_offset)

    def _check_newest(self, worker: Worker, topic: str, partition: int, found: int) -> None:
        [table] = worker.app.registered_tables
        rows = self.log.of(topic, partition).table(before=table.replayed_to[partition])
        newest = recover(rows).newest
        reached = 0 if newest is None else newest.reached
        require(
            found >= reached,
            f"I-18: {worker} starts {partition} at {found}, the changelog has a checkpoint at {reached}",
        )
        committed = worker.committed_before.get(partition, 0)
        require(
            found >= committed or "corruption" in self.faults.kinds,
            f"I-18: {worker} starts {partition} at {found}, the checkpoint behind the commit at {committed} is gone",
        )

    def run(self) -> Result:
        """Run until everything is done, then check.

        Raises:
            Violation: a promise is broken.
        """
        world = self.world
        self.start()
        lull = world.rng.choice([0, 0, 300, 3000])
        while not self.people.is_done or lull:
            lull -= self.people.is_done
            self.faults.step()
            world.step()
            self._require_time_left()
        self.faults.end()
        while not self._is_drained():
            for _ in range(50):
                self.faults.step()
                world.step()
            self._require_time_left()
        self._check()
        return Result(world.seed, world.counts, self.watch.digest.hexdigest())

    def _require_time_left(self) -> None:
        if self.world.steps > _STEPS_MAX:
            raise Violation(f"I-20: not done after {_STEPS_MAX} steps: {self._why_not_drained()}")

    def _is_drained(self) -> bool:
        return not self._why_not_drained()

    def _why_not_drained(self) -> str:
        """What is still to be done; the empty text when nothing is."""
        if any(channel.queue for channel in self.world.active if not channel.owner.alive):
            return "messages of the dead are under way"
        for group in self.groups:
            if not group.members or not all(member.is_settled for member in group.members):
                return f"{group.role} has no settled members"
            for partition in range(self.log.partitions):
                end, at = self.log.of(group.topic, partition).end, self._place(group, partition)
                if at != end:
                    return f"{group.role} is durable at {at} of {end} in {partition}"
        return ""

    def _place(self, group: Group, partition: int) -> int:
        """Up to where a role has processed a partition and made it durable; -1 while it is at it."""
        if group.role == "sink":
            return self.tables.progress.get((group.topic, partition), 0)
        owned = [_agent(member).partitions.get(partition) for member in group.members]
        [assigned] = [found for found in owned if found is not None] or [None]
        # Inside a batch the state is further already, and the batch is not counted yet.
        is_busy = any(member.is_in_batch for member in group.members)
        if assigned is None or assigned.records or assigned.is_writing or is_busy:
            return -1
        return int(assigned.state.next_offset)

    def _check(self) -> None:
        check_log(self.watch, self.people.journal)
        check_tables(self.watch, self.tables)
        check_conserved(self.tables)
        self._check_public_books()
        for role in _STATES:
            self._check_durable(role)
        counts = self.world.counts
        counts["commands"] = sum(len(reference.expected) for reference in self.watch.references.values())
        counts["events checked"] = sum(len(reference.events) for reference in self.watch.references.values())
        counts["events repeated"] = sum(reference.repeats for reference in self.watch.references.values())
        counts["orders acknowledged by the OMS"] = len(self.people.journal.acknowledged)
        disturbances = {"zombie", "corruption", "folder behind", "folder lost", "kill"}
        is_orderly = not self.world.armed and not disturbances & set(self.faults.kinds)
        require(
            not (is_orderly and counts["events repeated"]), "F-6: events were repeated though every end was orderly"
        )

    def _check_public_books(self) -> None:
        """I-12 and I-13: what readers of market data have is what the engine has."""
        for partition in range(self.log.partitions):
            engine = EnginePartition(partition, self.log.partitions)
            engine.process(self.log.of(ORDERS_NEW, partition).records.values())
            keeper = MarketDataState(partition)
            keeper.apply(self.log.of(ORDERS_EXCHANGE, partition).records.values())
            for symbol_id, book in keeper.books.items():
                depth = depth_of_engine(engine, symbol_id)
                require(depth_of(book) == depth, f"I-12: the keeper has {depth_of(book)}, the engine {depth}")
                public = self.public[symbol_id]
                require(public.sides == depth, f"I-13: readers have {public.sides}, the engine {depth}")
                missing = [trade for trade in book.tape() if public.trades.get(trade.sequence) != trade]
                require(not missing, f"I-13: readers lack the trades {missing}")

    def _check_durable(self, role: str) -> None:
        """I-14: the changelog alone gives the state back."""
        topic, kind = _STATES[role]
        for partition in range(self.log.partitions):
            found = recover(self.log.of(topic, partition).table())
            if found.newest is not None:
                entries = found.entries.items()
                state = kind.restore(partition, found.newest.reached, found.head, entries, found.journal)
                self.shadows.check(state)


def _agent(worker: Worker) -> CheckpointedAgent[Any]:
    [agent] = [service for service in worker.app.services if isinstance(service, CheckpointedAgent)]
    return agent


def _symbols(flow: list[Wish]) -> dict[int, Symbol]:
    """The symbols of the flow by id, as the OMS knows them."""
    symbols: dict[int, Symbol] = {}
    for wish in flow:
        if wish.command is not None and wish.command.get("command") == "SYMBOL":
            symbols.setdefault(wish.command["symbolId"], Symbol(decode_command(wish.value)))  # type: ignore[arg-type]
    return symbols


def run_seed(
    seed: int,
    *,
    trace: Callable[[str], None] | None = None,
    defect: Callable[[Exchange], AbstractContextManager[Any]] = nullcontext,
) -> Result:
    """Run one seed from the start to the checks.

    Args:
        seed: decides everything.
        trace: called with a line for all that happens.
        defect: given the exchange before it starts, breaks the product for the time of the run.

    Raises:
        Violation: a promise is broken; the message says which and where.
    """
    exchange = Exchange(seed, trace=trace)
    processes: list[Process] = exchange.world.processes
    everyone = exchange.world.everyone
    with patches.simulated(exchange.world), defect(exchange):
        try:
            return exchange.run()
        finally:
            for process in everyone:
                process.loop.discard()
            processes.clear()
