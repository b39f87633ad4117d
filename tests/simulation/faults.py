"""What goes wrong, when, and how it is put right again; all of it drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from forkast_streams.topics import ENGINE_CHANGELOG, KEEPER_CHANGELOG
from tests.simulation.log import PartitionLog, flipped, replaced

if TYPE_CHECKING:
    from tests.simulation.exchange import Exchange
    from tests.simulation.shell import Worker

_CHECKPOINT_POINTS = (
    "before produce to the changelog",
    "the changelog has it, not acknowledged",
    "checkpoint acknowledged, not on disk",
    "checkpoint on disk, input not acknowledged",
    "acknowledged, not committed",
    "before the commit",
    "committed",
    "during recovery",
    "loaded, not sought",
)
CRASH_POINTS = (
    "engine: before produce to orders.exchange",
    "engine: orders.exchange has it, not acknowledged",
    "engine: before produce to orders.dead",
    "engine: orders.dead has it, not acknowledged",
    "engine: before produce to orders.new",
    "engine: orders.new has it, not acknowledged",
    *(f"engine: {point}" for point in _CHECKPOINT_POINTS),
    *(f"keeper: {point}" for point in _CHECKPOINT_POINTS),
    "sink: before the transaction",
    "sink: in the middle of the transaction",
    "sink: committed in the database, not answered",
    "sink: acknowledged, not committed",
    "sink: before the commit",
    "sink: committed",
    "sink: loaded, not sought",
    "oms: before the claim",
    "oms: claimed, not answered",
    "oms: before produce to orders.new",
    "oms: orders.new has it, not acknowledged",
    "oms: acknowledged, not answered",
    "oms: answer ready, not sent",
)
# What must have happened in a long row of runs, or it was not tested.
EXPECTED = (
    *(f"crash: {point}" for point in CRASH_POINTS),
    *(f"crash at any moment: {kind}" for kind in ("engine", "keeper", "sink", "oms")),
    *(f"zombie: {role}" for role in ("engine", "keeper", "sink")),
    *(f"rebalance: {role}" for role in ("engine", "keeper", "sink")),
    # The keeper waits for nothing inside a batch, so nothing can come in between.
    *(f"rebalance in mid-batch: {role}" for role in ("engine", "sink")),
    *(f"rebalance before the checkpoint: {role}" for role in ("engine", "keeper")),
    *(f"stop in order: {role}" for role in ("engine", "keeper", "sink")),
    *(f"newest segment {how}: {role}" for role in ("engine", "keeper") for how in ("truncated", "corrupt")),
    "folder lost",
    "folder behind",
    "compaction",
    "compacted records",
    "clock jump: the log's",
    "clock jump: the workers'",
    "Redis flushed",
    "orders remembered in Redis",
    "orders read from Redis",
    "messages delayed",
    "late batches of the dead",
    "records delivered again",
    "record sent twice",
    "request sent again",
    "client order id used again, answer 409",
    "connections lost: Unavailable",
    "connections lost: ConnectionError",
    "database errors",
    "commits refused",
    "writers fenced",
    "dead letters",
    "records forwarded to their partition",
)
# Some points are passed in each batch, some a few times in a run.
_PASSAGES_MAX = (2, 8, 60)


class Faults:
    """The faults of one run: which kinds there are, and how often.

    Attributes:
        kinds: the kinds this seed uses; few kinds at a time find more than all at once.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._world = exchange.world
        rng = self._world.rng
        kinds: dict[str, Callable[[], None]] = {
            "kill": self._kill,
            "zombie": self._make_zombie,
            "rebalance": self._rebalance,
            "stop in order": self._stop_in_order,
            "corruption": self._corrupt,
            "folder lost": self._lose_folder,
            "folder behind": self._put_folder_back,
            "compaction": self._compact,
            "clock jump": self._jump,
            "Redis flushed": self._flush,
        }
        self.kinds = rng.sample(list(kinds), rng.randint(0, 5))
        self._actions = [kinds[kind] for kind in self.kinds]
        self._chance = rng.choice([0.001, 0.003, 0.006])
        self._later: list[tuple[int, Callable[[], None]]] = []
        self._left = 40
        if rng.random() < 0.7:
            for point in rng.sample(CRASH_POINTS, rng.randint(1, 6)):
                self._world.armed.setdefault(point, set()).add(rng.randint(1, rng.choice(_PASSAGES_MAX)))
        if rng.random() < 0.6:
            self._world.delay_chance = rng.choice([0.01, 0.05])

    def step(self) -> None:
        """Let something go wrong, or put something right that is due."""
        now = self._world.steps
        if self._later and self._later[0][0] <= now:
            due = [action for at, action in self._later if at <= now]
            self._later = [later for later in self._later if later[0] > now]
            for action in due:
                action()
        if self._left and self._actions and self._world.rng.random() < self._chance:
            self._left -= 1
            self._world.rng.choice(self._actions)()

    def soon(self, steps: int, action: Callable[[], None]) -> None:
        """Do ``action`` in some steps; at once when faults have ended."""
        self._later.append((self._world.steps + (0 if self._world.is_calm else steps), action))
        self._later.sort(key=lambda later: later[0])

    def end(self) -> None:
        """No more faults: put right at once what is not right yet."""
        self._world.is_calm = True
        self._left = 0
        self._exchange.log.skew_ms = 0
        self._world.clock_skew_s = 0.0
        later, self._later = self._later, []
        for _, action in later:
            action()
        for process in self._world.processes:
            process.paused_until = 0

    def _count(self, what: str, *subjects: object) -> None:
        self._world.counts[what] += 1
        self._world.log("{}: {}", what, " ".join(map(str, subjects)))

    def _any_worker(self) -> Worker | None:
        workers = self._exchange.workers()
        return self._world.rng.choice(workers) if workers else None

    def _kill(self) -> None:
        process = self._world.rng.choice([p for p in self._world.processes if p.kind != "clients"] or [None])
        if process is not None:
            self._count(f"crash at any moment: {process.kind}", process)
            self._world.kill(process)

    def _make_zombie(self) -> None:
        """A worker stands still or is cut off; its partitions move, it does not know, and goes on some time later."""
        worker = self._any_worker()
        if worker is None or worker not in worker.group.members or worker.group.is_joining(worker):
            return
        rng = self._world.rng
        self._count(f"zombie: {worker.kind}", worker)
        if len(worker.group.members) == 1:
            self._exchange.start_worker(worker.group)
        if rng.random() < 0.7:
            worker.paused_until = self._world.steps + rng.randint(50, 1500)
        worker.group.remove(worker)
        self.soon(rng.randint(200, 4000), partial(self._wake, worker))

    def _wake(self, worker: Worker) -> None:
        """The zombie learns that it is none of the group any more."""
        if worker.alive and worker not in worker.group.members:
            worker.rebalance.set()

    def _rebalance(self) -> None:
        group = self._world.rng.choice(self._exchange.groups)
        self._count(f"rebalance: {group.role}")
        group.rebalance()

    def _stop_in_order(self) -> None:
        worker = self._any_worker()
        if worker is not None and worker.is_settled and worker in worker.group.members:
            self._count(f"stop in order: {worker.kind}", worker)
            self._exchange.stop_in_order(worker)

    def _corrupt(self) -> None:
        """The newest segment of a partition is damaged, in the log and on all disks, and who has it must recover."""
        rng = self._world.rng
        topic, role = rng.choice([(ENGINE_CHANGELOG, "engine"), (KEEPER_CHANGELOG, "keeper")])
        partition = rng.randrange(self._exchange.log.partitions)
        log = self._exchange.log.of(topic, partition)
        is_cut = rng.random() < 0.5
        damaged = _damage_newest(log, partial(self._damaged, is_cut))
        if damaged is None:
            return
        self._count(f"newest segment {'truncated' if is_cut else 'corrupt'}: {role}", partition, damaged[0])
        for name, disk in self._exchange.disks.items():
            for folder in disk.folders() if name.startswith(role) else ():
                if damaged[0] in folder.rows:
                    folder.rows[damaged[0]] = damaged[1]
        for worker in self._exchange.workers():
            if worker.kind == role and partition in worker.assignment.partitions:
                self._world.kill(worker)

    def _damaged(self, is_cut: bool, value: bytes) -> bytes:
        at = self._world.rng.randrange(len(value))
        return value[:at] if is_cut else flipped(value, at)

    def _lose_folder(self) -> None:
        self._with_dead_worker("folder lost", lambda worker: worker.disk.lose())

    def _put_folder_back(self) -> None:
        """A worker's folder is replaced by a copy of earlier on; the next copy is made now."""

        def put_back(worker: Worker) -> None:
            worker.disk.restore_backup()

        self._with_dead_worker("folder behind", put_back)
        for disk in self._exchange.disks.values():
            disk.back_up()

    def _with_dead_worker(self, what: str, action: Callable[[Worker], None]) -> None:
        worker = self._any_worker()
        if worker is not None:
            self._count(what, worker)
            self._world.kill(worker)
            action(worker)

    def _compact(self) -> None:
        rng = self._world.rng
        topic = rng.choice([ENGINE_CHANGELOG, KEEPER_CHANGELOG])
        log = self._exchange.log.of(topic, rng.randrange(self._exchange.log.partitions))
        if log.end > 1:
            # The last segment file is never compacted, and tombstones stay for a day.
            below = rng.randint(0, log.end - 1)
            self._world.counts["compacted records"] += log.compact(below, rng.randint(0, below))
            self._count("compaction", topic)

    def _jump(self) -> None:
        rng = self._world.rng
        skew_ms = rng.choice([0, -3_600_000, 3_600_000, 86_400_000, 40, -40])
        if rng.random() < 0.5:
            self._exchange.log.skew_ms = skew_ms
            self._count("clock jump: the log's", skew_ms)
        else:
            self._world.clock_skew_s = skew_ms / 1000
            self._count("clock jump: the workers'", skew_ms)

    def _flush(self) -> None:
        self._exchange.backends.values.clear()
        self._count("Redis flushed")


def _damage_newest(log: PartitionLog, damage: Callable[[bytes], bytes]) -> tuple[bytes, bytes] | None:
    segments = [(r.key, o) for o, r in log.records.items() if r.value and r.key is not None and b".s." in r.key]
    if not segments:
        return None
    key, offset = max(segments)
    value = damage(log.records[offset].value or b"")
    log.records[offset] = replaced(log.records[offset], value)
    return key, value
