"""Half an hour of everything on one machine: what the processes take of the memory, and whether that grows.

The engine begins as one that has run for a day: it remembers as many ids of used orders as it ever will, those of the
generation before and, of ten partitions, a twentieth of a generation to nineteen. What it forgets is then what comes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import psutil
import uvloop

from benchmarks.flows import lasting_commands
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.results import Plot
from benchmarks.servers import Servers
from benchmarks.steady_load import STAGES, all_roles, load, ticks_of
from forkast_streams.checkpoint import Checkpointer, Journal, Key
from forkast_streams.engine.id_keys import ID_BYTES
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.limits import SEEN_IDS_MAX
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ENGINE_CHANGELOG, PARTITIONS_DEFAULT

_SECONDS = 30 * 60
# Half of what all roles together sustain on two cores.
_RATE = 5_000
_LOOK_S = 10.0
# Buffers, caches and the remembered trades fill in the first third.
_FILLED = 1 / 3
_MIB = float(1 << 20)
_GROWTH_MAX = 2.0
# Of all partitions: of each the older generation, and half of the newer one at the mean.
_REMEMBERED = PARTITIONS_DEFAULT * SEEN_IDS_MAX * 3 // 2


@benchmark(
    "soak",
    "Does memory stay bounded in half an hour at half load?",
    [Goal(f"{process}: growth", "<=", _GROWTH_MAX) for process in ("engine", "sink", "keeper", "oms", "redis")],
)
def soak(run: Run) -> None:
    """All roles under one rate for long; the slope of each process's memory after the first third."""
    seconds = max(180, run.scaled(_SECONDS))
    with all_roles(run, _remember_a_day) as (at, roles):
        redis = at.stack.server("redis").process()
        assert redis is not None, "it was started"
        processes = {role: psutil.Process(one.pid) for role, one in roles.items()} | {"redis": redis}
        times: list[float] = []
        resident: dict[str, list[float]] = {name: [] for name in processes}
        with run.step(f"{_RATE:,} orders/s for {seconds} s", seconds) as done:
            watch = _every(_LOOK_S, times, resident, processes)
            looks, _ = uvloop.run(load(at, roles.values(), ticks_of(lasting_commands(), _RATE, seconds), done, watch))
    since = next(index for index, at_s in enumerate(times) if at_s >= seconds * _FILLED)
    for name, values in resident.items():
        minutes = [at_s / 60 for at_s in times[since:]]
        run.record(f"{name}: memory after the first third", values[since], "MiB")
        run.record(f"{name}: memory at the end", values[-1], "MiB")
        run.record(f"{name}: growth", statistics.linear_regression(minutes, values[since:]).slope, "MiB/min")
    for stage in STAGES:
        run.record(f"{stage} behind at most", looks.worst(stage), "s")
    hundredth = max(1, len(times) // 100)
    at_minutes = [at_s / 60 for at_s in times[::hundredth]]
    series = {name: values[::hundredth] for name, values in resident.items()}
    run.plot(Plot("memory", "Resident memory", "line", at_minutes, series, "minutes", "MiB"))
    run.note(
        f"{_RATE:,} commands a second for {seconds / 60:g} minutes: limit and market orders and cancels, each order "
        "filled or cancelled after a while, so that the books stay as large as they are. Growth is the slope after the "
        "first third."
    )
    run.note(
        f"The engine begins as one that has run for a day, with the ids of {_REMEMBERED:,} used orders: a partition "
        f"remembers at most {2 * SEEN_IDS_MAX:,}, and forgets the older half when the newer one is full. The "
        "partitions are at different places of that, so that one forgets what the others take up; before it has run "
        "so long, an engine grows by 22 bytes an order."
    )


def _every(
    pause_s: float, times: list[float], resident: dict[str, list[float]], processes: dict[str, psutil.Process]
) -> Callable[[float], None]:
    """What to call at each look: it notes the memory of ``processes`` in MiB when a pause is over."""

    def look(now: float) -> None:
        if not times or now >= times[-1] + pause_s:
            times.append(now)
            for name, process in processes.items():
                resident[name].append(process.memory_info().rss / _MIB)

    return look


async def _remember_a_day(at: Servers) -> None:
    """Let the engine find checkpoints of partitions that have seen many orders, all of which are gone."""
    async with EventProducer(at.brokers) as producer:
        for partition in range(PARTITIONS_DEFAULT):
            newer = SEEN_IDS_MAX * (2 * partition + 1) // (2 * PARTITIONS_DEFAULT)
            rows = Checkpointer(partition, 1).cut(cast("Any", _Aged.of(partition, newer)))
            records = [OutputRecord(key, value, 0) for key, value in rows.puts]
            for batch in await producer.send_batch(ENGINE_CHANGELOG, partition, records):
                await batch.acknowledged


@dataclass(slots=True)
class _Aged:
    """An engine's partition without orders, as a checkpoint sees it, and the ids it has seen."""

    engine: EnginePartition
    journal: Journal
    next_offset: int = 0

    @classmethod
    def of(cls, partition: int, newer: int) -> _Aged:
        """One that has seen a whole generation of ids and ``newer`` of the next one."""
        engine = EnginePartition(partition, PARTITIONS_DEFAULT)
        journal = [(1, os.urandom(SEEN_IDS_MAX * ID_BYTES)), (2, os.urandom(newer * ID_BYTES))]
        seen = engine.engine.seen
        seen.reset(2, int(time.time() * 1e3), newer, SEEN_IDS_MAX)
        for generation, ids in journal:
            seen.restore(generation, ids)
        return cls(engine, journal)

    def head(self) -> Any:
        """The engine's."""
        return self.engine.head()

    def drain_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """None."""
        return [], []

    def sweep(self) -> tuple[int, Iterator[tuple[Key, Any]]]:
        """No entries."""
        return 0, iter(())

    def drain_journal(self) -> Journal:
        """All ids."""
        return self.journal

    def oldest_generation(self) -> int:
        """That before the current one."""
        return 1
