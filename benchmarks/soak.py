"""Half an hour of everything on one machine: what the processes take of the memory, and whether that grows."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import psutil
import uvloop

from benchmarks.flows import lasting_commands
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.results import Plot
from benchmarks.steady_load import STAGES, all_roles, load, ticks_of
from forkast_streams.limits import SEEN_IDS_MAX
from forkast_streams.topics import PARTITIONS_DEFAULT

_SECONDS = 30 * 60
# Half of what all roles together sustain on two cores.
_RATE = 5_000
_LOOK_S = 10.0
# Buffers, caches and the remembered trades fill in the first third.
_FILLED = 1 / 3
_MIB = float(1 << 20)
_GROWTH_MAX = 2.0


@benchmark(
    "soak",
    "Does memory stay bounded in half an hour at half load?",
    [Goal(f"{process}: growth", "<=", _GROWTH_MAX) for process in ("engine", "sink", "keeper", "oms", "redis")],
)
def soak(run: Run) -> None:
    """All roles under one rate for long; the slope of each process's memory after the first third."""
    seconds = max(180, run.scaled(_SECONDS))
    with all_roles(run) as (at, roles):
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
        "What grows in the engine is the ids of used orders, 21 bytes each: they are remembered for a day, at most "
        f"{2 * SEEN_IDS_MAX:,} of each of {PARTITIONS_DEFAULT} partitions."
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
