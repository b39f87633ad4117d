"""Engine workers on a real Kafka: beside a worker without an engine, beside plain Faust, and several of them."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks import naive_worker, passthrough_worker
from benchmarks.flows import definitions, mixed_commands
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.passages import ENGINE_OUTPUTS, Passage, delete_topics, forget, passage
from benchmarks.records import Record, SymbolRecord
from benchmarks.results import Plot
from benchmarks.servers import Servers, send, servers, worker
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.topics import ORDERS_NEW, PARTITIONS_DEFAULT, partition_for
from tests.integration.exchange import Worker, wait_until

# So many, because rounds differ by a quarter on machines that are shared.
_ROUNDS = 7
_COMMANDS = 1_000_000
_NAIVE_COMMANDS = 60_000
_SAMPLE = 50_000
# A worker that is held up for longer loses its partitions.
_SESSION_S = 10.0
_RATE, _CPU = "commands/s", "µs/command"
_MIX = "The commands are limit orders (67 %), market orders (5 %), cancels (25 %) and amends (3 %) on ten symbols."


def _commands(count: int) -> Iterator[SymbolRecord]:
    return chain(definitions(), mixed_commands(count))


def _outputs_of_a_sample() -> tuple[float, float]:
    """Events a command and bytes an event, of the first commands of the flow."""
    engines = [EnginePartition(partition, PARTITIONS_DEFAULT) for partition in range(PARTITIONS_DEFAULT)]
    events = size = 0
    for symbol_id, value in _commands(_SAMPLE):
        engine = engines[partition_for(symbol_id, PARTITIONS_DEFAULT)]
        record = Record(engine.next_offset, 1_700_000_000_000, str(symbol_id).encode(), value)
        for event in engine.process([record]).events:
            events += 1
            size += len(event.value or b"")
    return events / _SAMPLE, size / events


def _send(run: Run, at: Servers, topic: str, count: int) -> int:
    with run.step(f"Writing {count:,} commands"):
        return asyncio.run(send(at, topic, _commands(count)))


def _pass(run: Run, at: Servers, commands: int, module: str = "forkast_streams") -> Passage:
    """Let one worker do the backlog, from a fresh state."""
    with worker(at, "engine", module=module) as one:
        one.start()
        found = asyncio.run(passage(run, at, [one], expected=round(commands * 1.6)))
        one.terminate()
    one.lose_disk()
    asyncio.run(forget(at, ENGINE_OUTPUTS))
    return found


def _record(run: Run, name: str, commands: int, found: Passage) -> None:
    run.record(f"{name}: speed", commands / found.seconds, _RATE)
    run.record(f"{name}: CPU", found.cpu_s / commands * 1e6, _CPU)
    run.record(f"{name}: events per command", found.outputs / commands, "events")


@benchmark(
    "engine",
    "How many commands a second does one engine worker take from Kafka to Kafka, with checkpoints?",
    [Goal("engine: speed", ">=", 60_000), Goal("engine / passthrough", ">=", 0.75)],
)
def engine(run: Run) -> None:
    """The engine and the passthrough by turns on one backlog."""
    with servers(run) as at:
        count = _send(run, at, ORDERS_NEW, run.scaled(_COMMANDS))
        plain = _without_an_engine(run, at)
        for _ in run.rounds(_ROUNDS):
            _record(run, "engine", count, _pass(run, at, count))
            _record(run, "passthrough", count, _pass(run, plain, count, "benchmarks.passthrough_worker"))
    run.ratio("engine / passthrough", "engine: speed", "passthrough: speed")
    # Turned round, so that a larger number is a better one here as well.
    run.ratio("engine / passthrough, by CPU", "passthrough: CPU", "engine: CPU")
    names = ["engine", "passthrough"]
    speeds = {"speed": [run.median(f"{name}: speed") for name in names]}
    run.plot(Plot("speed", "Commands a second of one worker", "bars", names, speeds, "", _RATE, mark=60_000))
    run.note(f"{count:,} commands wait in ten partitions; checkpoints are on. {_MIX}")
    run.note("The time is from the first acknowledged output to the last; CPU is that of the worker's process.")


@benchmark("passthrough", "How many commands a second would a worker take whose matching costs nothing?")
def passthrough(run: Run) -> None:
    """The passthrough worker alone; the engine beside it is in the benchmark `engine`."""
    with servers(run) as at:
        count = _send(run, at, ORDERS_NEW, run.scaled(_COMMANDS))
        plain = _without_an_engine(run, at)
        for _ in run.rounds(3):
            _record(run, "passthrough", count, _pass(run, plain, count, "benchmarks.passthrough_worker"))
    run.note(f"{count:,} commands wait in ten partitions; checkpoints are on and have nothing in them. {_MIX}")


def _without_an_engine(run: Run, at: Servers) -> Servers:
    """The servers, with what a passthrough worker must know to write as much as an engine."""
    events, size = _outputs_of_a_sample()
    run.note(
        f"passthrough is the same worker without books: it decodes each command and encodes {events:.2f} events a "
        f"command of {size:.0f} bytes, as the engine has on average."
    )
    variables = {passthrough_worker.EVENTS_VARIABLE: f"{events:.4f}", passthrough_worker.BYTES_VARIABLE: f"{size:.1f}"}
    return replace(at, env=at.env | variables)


@benchmark(
    "naive",
    "How much faster is the engine worker than the same engine in a plain Faust agent?",
    [Goal("engine / naive", ">=", 8.0)],
)
def naive(run: Run) -> None:
    """The engine on its backlog, plain Faust on a smaller one of the same flow, by turns."""
    with servers(run) as at:
        count = _send(run, at, ORDERS_NEW, run.scaled(_COMMANDS // 2))
        for _ in run.rounds(3):
            _record(run, "engine", count, _pass(run, at, count))
            asyncio.run(_make_naive_topics(at))
            few = _send(run, at, naive_worker.INPUT, run.scaled(_NAIVE_COMMANDS))
            with worker(at, "engine", instance="naive", module="benchmarks.naive_worker") as one:
                one.start()
                found = asyncio.run(passage(run, at, [one], topic=naive_worker.OUTPUT, expected=round(few * 1.6)))
            shutil.rmtree(one.data_dir, ignore_errors=True)
            _record(run, "naive", few, found)
    run.ratio("engine / naive", "engine: speed", "naive: speed")
    run.ratio("engine / naive, by CPU", "naive: CPU", "engine: CPU")
    names = ["engine", "naive"]
    speeds = {"speed": [run.median(f"{name}: speed") for name in names]}
    run.plot(Plot("speed", "Commands a second of one worker", "bars", names, speeds, "", _RATE))
    run.note(f"engine: {count:,} commands; naive: the first {few:,} of them. {_MIX}")
    run.note("naive is Faust 0.15.3 as it comes: an event at a time, a send an output, a table write an order touched.")


async def _make_naive_topics(at: Servers) -> None:
    """Empty topics, those of an earlier round deleted, and with them what was committed of them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=at.brokers)
    await admin.start()
    try:
        old = [topic for topic in await admin.list_topics() if "naive" in topic]
        if old:
            await delete_topics(admin, old)
        topics = [naive_worker.INPUT, naive_worker.OUTPUT]
        await admin.create_topics([NewTopic(topic, naive_worker.PARTITIONS, 1) for topic in topics])
    finally:
        await admin.close()


@benchmark(
    "scale",
    "Does a command cost the same when more workers share the partitions?",
    [Goal("CPU: dearest / cheapest", "<=", 1.15)],
)
def scale(run: Run) -> None:
    """One, two and four workers, ready before the commands come."""
    counts = [1, 2, 4]
    commands = list(mixed_commands(run.scaled(_COMMANDS)))
    for _ in run.rounds(3):
        for workers in counts:
            with servers(run, f"servers-{workers}") as at:
                found = _shared(run, at, commands, workers)
            shutil.rmtree(at.folder)
            run.record(f"{workers} workers: CPU", found.cpu_s / len(commands) * 1e6, "s/1,000,000 commands")
            run.record(f"{workers} workers: speed", len(commands) / found.seconds, _RATE)
    costs = [run.median(f"{workers} workers: CPU") for workers in counts]
    run.record("CPU: dearest / cheapest", max(costs) / min(costs), "x")
    numbers: list[float] = [float(count) for count in counts]
    run.plot(Plot("cpu", "CPU of all workers", "line", numbers, {"CPU": costs}, "workers", "s/1,000,000 commands"))
    run.note(f"{len(commands):,} commands in ten partitions, written while the workers are held up. {_MIX}")


def _are_ready_for(seconds: float, workers: list[Worker]) -> Callable[[], bool]:
    """Whether all are ready and have been so for a while, as they are when nobody joins any more."""
    since: list[float] = []

    def are_ready() -> bool:
        if not all(one.is_ready() for one in workers):
            since.clear()
            return False
        since.append(time.monotonic())
        return since[-1] - since[0] >= seconds

    return are_ready


def _shared(run: Run, at: Servers, commands: list[SymbolRecord], count: int) -> Passage:
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(at, "engine", instance=str(number))) for number in range(count)]
        asyncio.run(send(at, ORDERS_NEW, definitions()))
        for one in workers:
            one.start()
        for one in workers:
            wait_until(one.is_ready, f"{one.role} {one.instance} getting ready")
        wait_until(_are_ready_for(3.0, workers), "all workers being ready together")
        for one in workers:
            one.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        asyncio.run(send(at, ORDERS_NEW, commands))
        if time.monotonic() - stopped > _SESSION_S:
            run.note("Writing the commands took longer than a worker's session: the workers were assigned anew first.")

        def go() -> None:
            for one in workers:
                one.signal(signal.SIGCONT)

        return asyncio.run(passage(run, at, workers, expected=round(len(commands) * 1.6), go=go))
