"""How soon a killed engine with many resting orders matches again."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from benchmarks.flows import definitions, order, resting_orders, symbols
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.passages import LogEnds
from benchmarks.records import SymbolRecord
from benchmarks.results import Plot
from benchmarks.servers import Servers, cpu_seconds, send, servers, worker
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW
from tests.integration.exchange import Worker

_ORDERS = 1_000_000
_LOAD_S_MAX = 600.0
_RESTART_S_MAX = 120.0
_LOCAL, _LOST = "local state there", "changelog alone"


@benchmark(
    "recovery",
    "How long after kill -9 with a million resting orders is the first new event acknowledged?",
    [Goal(f"{_LOCAL}: every partition", "<=", 5.0), Goal(f"{_LOST}: every partition", "<=", 8.0)],
)
def recovery(run: Run) -> None:
    """Load, then kill and start by turns with the local state there and lost."""
    count = run.scaled(_ORDERS)
    chance = random.Random(1)
    with servers(run) as at, worker(at, "engine") as engine:
        asyncio.run(send(at, ORDERS_NEW, definitions()))
        with run.step(f"Writing {count:,} resting orders"):
            asyncio.run(send(at, ORDERS_NEW, resting_orders(count)))
        engine.start()
        with run.step("Loading them", count) as done:
            asyncio.run(_wait_for(at, count + len(symbols()), _LOAD_S_MAX, done))
        engine.wait_ready()
        for _ in run.rounds(3):
            for name in (_LOCAL, _LOST):
                with run.step(f"Restarting, {name}"):
                    first, every = _restart(at, engine, chance, lose_disk=name == _LOST)
                run.record(f"{name}: first event", first, "s")
                run.record(f"{name}: every partition", every, "s")
                run.record(f"{name}: CPU of the new process", cpu_seconds(engine.pid), "s")
                engine.wait_ready()
    seconds = {"every partition": [run.median(f"{name}: every partition") for name in (_LOCAL, _LOST)]}
    run.plot(Plot("seconds", "From kill -9 to new events", "bars", [_LOCAL, _LOST], seconds, "", "s"))
    run.note(
        f"{count:,} orders rest in ten partitions of one worker. The time is from the kill, with a new process started "
        "at once, to the acknowledged event of a new order: the first of all, and the last of one on each partition."
    )


async def _wait_for(at: Servers, total: int, within_s: float, done: Callable[[float], None]) -> None:
    deadline = time.monotonic() + within_s
    async with LogEnds(at.brokers, ORDERS_EXCHANGE) as ends:
        while (count := await ends.total()) < total:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{ORDERS_EXCHANGE} got {count:,} of {total:,} events within {within_s:g} s")
            done(count)
            await asyncio.sleep(0.2)


def _restart(at: Servers, engine: Worker, chance: random.Random, *, lose_disk: bool) -> tuple[float, float]:
    """Kill and start; return the seconds to the first probe's event and to the last one's."""
    probes = [order(symbol_id, "BUY", "1", chance) for symbol_id in symbols()]
    return asyncio.run(_killed_and_back(at, engine, probes, lose_disk=lose_disk))


async def _killed_and_back(
    at: Servers, engine: Worker, probes: list[SymbolRecord], *, lose_disk: bool
) -> tuple[float, float]:
    async with LogEnds(at.brokers, ORDERS_EXCHANGE) as ends:
        before = await ends.by_partition()
        started = time.perf_counter()
        engine.kill()
        if lose_disk:
            engine.lose_disk()
        engine.start()
        await send(at, ORDERS_NEW, probes)
        first = 0.0
        while True:
            answered = [now > then for now, then in zip(await ends.by_partition(), before, strict=True)]
            seconds = time.perf_counter() - started
            if any(answered) and not first:
                first = seconds
            if all(answered):
                return first, seconds
            engine.check()
            if seconds > _RESTART_S_MAX:
                raise TimeoutError(f"not every partition matches again within {_RESTART_S_MAX:g} s")
            await asyncio.sleep(0.02)
