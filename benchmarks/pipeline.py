"""Everything on one machine under a steady load: how far each role is behind."""

from __future__ import annotations

import uvloop

from benchmarks.flows import mixed_commands
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.results import Plot
from benchmarks.servers import cpu_seconds
from benchmarks.steady_load import STAGES, all_roles, load, ticks_of

_RATES = (5_000, 10_000, 15_000, 20_000)
_SECONDS = 60
_LAG_S_MAX = 2.0


@benchmark(
    "pipeline",
    "How many orders a second does everything on one machine sustain, no role more than two seconds behind?",
    [Goal("sustained", ">=", 15_000)],
)
def pipeline(run: Run) -> None:
    """All roles, and orders at one rate after the other; each rate until everything is done."""
    seconds = max(10, run.scaled(_SECONDS))
    sustained, worst = 0.0, dict[str, list[float]]((stage, []) for stage in STAGES)
    flow = mixed_commands(sum(_RATES) * seconds)
    with all_roles(run) as (at, roles):
        for rate in _RATES:
            with run.step(f"Making {rate * seconds:,} commands"):
                ticks = list(ticks_of(flow, rate, seconds))
            before = {role: cpu_seconds(one.pid) for role, one in roles.items()}
            with run.step(f"{rate:,} orders/s for {seconds} s", seconds) as done:
                looks, took = uvloop.run(load(at, roles.values(), ticks, done))
            lags = {stage: looks.worst(stage) for stage in STAGES}
            for role, one in roles.items():
                share = (cpu_seconds(one.pid) - before[role]) / (rate * seconds)
                run.record(f"{rate:,} orders/s: CPU of the {role}", share * 1e6, "µs/order")
            for stage, lag in lags.items():
                run.record(f"{rate:,} orders/s: {stage} behind at most", lag, "s")
                worst[stage].append(lag)
            run.record(f"{rate:,} orders/s: sent within", took, "s")
            if max(lags.values()) <= _LAG_S_MAX and took < seconds * 1.02:
                sustained = float(rate)
    run.record("sustained", sustained, "orders/s")
    rates = [float(rate) for rate in _RATES]
    run.plot(Plot("lags", "The longest time a role was behind", "line", rates, worst, "orders/s", "s", mark=_LAG_S_MAX))
    run.note(
        f"Engine, sink, keeper, OMS, Kafka, Postgres, Redis and the client share the cores. Each rate lasts {seconds} "
        "s, in batches every 20 ms by a Kafka producer, whether anybody is behind or not. The commands are limit and "
        "market orders, cancels and amends on ten symbols."
    )
    run.note("Behind is how long ago the role's input ended where the role is; the first five seconds are left out.")
