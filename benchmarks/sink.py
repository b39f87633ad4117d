"""How fast events become rows: the sink worker behind a backlog, and its write path without Kafka."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from agents.persist_events import CONNECTIONS
from benchmarks.flows import event_records
from benchmarks.harness import Goal, Run, benchmark
from benchmarks.passages import Passage, watch
from benchmarks.records import Record, SymbolRecord
from benchmarks.results import Plot
from benchmarks.servers import Servers, send, servers, worker
from forkast_streams.repeats import RecentEvents
from forkast_streams.sink.fold import fold
from forkast_streams.sink.history import PLAN_OPTIONS, PartitionHistory
from forkast_streams.storage.postgres import Postgres
from forkast_streams.topics import ORDERS_EXCHANGE
from forkast_streams.wire_events import OrderEvent, TradeEvent, decode_event
from tests.integration.exchange import Worker

_EVENTS = 1_000_000
_IN_MEMORY = 200_000
_BATCHES = (150, 1_000, 5_000)
_UNIT = "events/s"
_TABLES = ("Order", "Trade", "SymbolSequence", "SinkProgress")


@benchmark(
    "sink",
    "How many events a second does the sink make durable in Postgres?",
    [Goal("worker: events to committed rows", ">=", 40_000)],
)
def sink(run: Run) -> None:
    """The worker over a backlog; then the same writes without Kafka, by batch size."""
    with servers(run) as at:
        with run.step(f"Making {run.scaled(_EVENTS):,} events"):
            events = list(event_records(run.scaled(_EVENTS)))
            asyncio.run(send(at, ORDERS_EXCHANGE, events))
        types = Counter(type(decode_event(value)) for _, value in events)
        for _ in run.rounds(3):
            asyncio.run(_truncate(at))
            _pass(run, at, len(events))
            asyncio.run(_check(at, types))
        some = _by_symbol(events[: run.scaled(_IN_MEMORY)])
        for _ in run.rounds(3):
            run.record("fold alone", _fold_speed(some), _UNIT)
            for batch in _BATCHES:
                with run.step(f"Writing {batch:,} events a statement"):
                    run.record(f"{batch:,} events a statement", asyncio.run(_write_speed(at, some, batch)), _UNIT)
    names = [f"{batch:,} events a statement" for batch in _BATCHES]
    speeds = {"speed": [run.median(name) for name in names]}
    run.plot(Plot("batches", "Events a second without Kafka, by batch size", "bars", names, speeds, "", _UNIT))
    run.note(
        f"{len(events):,} events of the mixed commands in ten partitions; the tables are checked after each round."
    )


def _pass(run: Run, at: Servers, count: int) -> None:
    with worker(at, "sink") as one:
        one.start()
        found = asyncio.run(_watch_rows(run, at, one, count))
        one.terminate()
    one.lose_disk()
    run.record("worker: events to committed rows", count / found.seconds, _UNIT)
    run.record("worker: CPU", found.cpu_s / count * 1e6, "µs/event")


async def _watch_rows(run: Run, at: Servers, one: Worker, count: int) -> Passage:
    async with Postgres(at.env["DATABASE_URL"], connections=1) as postgres:

        async def written() -> int:
            [(rows,)] = await postgres.fetch('SELECT coalesce(sum("nextOffset"), 0)::bigint FROM "SinkProgress"')
            return int(rows)

        found = await watch(run, written, [one], what="rows", expected=count)
    assert found.outputs == count, f"{found.outputs:,} of {count:,} events were written"
    return found


async def _truncate(at: Servers) -> None:
    async with Postgres(at.env["DATABASE_URL"], connections=1) as postgres:
        for table in _TABLES:
            await postgres.fetch(f'TRUNCATE "{table}"')


async def _check(at: Servers, types: Counter[type]) -> None:
    """Fail unless the tables hold every order and every trade."""
    async with Postgres(at.env["DATABASE_URL"], connections=1) as postgres:
        [(orders, trades)] = await postgres.fetch(
            """SELECT (SELECT count(*) FROM "Order" WHERE status <> 'REJECTED'), (SELECT count(*) FROM "Trade")"""
        )
    assert (orders, trades) == (types[OrderEvent], types[TradeEvent]), "the tables do not hold what was written"


def _by_symbol(events: list[SymbolRecord]) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for symbol_id, value in events:
        of_symbol = found.setdefault(symbol_id, [])
        of_symbol.append(Record(len(of_symbol), 0, str(symbol_id).encode(), value))
    return found


def _fold_speed(events: dict[int, list[Record]]) -> float:
    started = time.process_time()
    for symbol_id, records in events.items():
        sequence, recent = 0, RecentEvents()
        for at in range(0, len(records), 5_000):
            sequence = fold(records[at : at + 5_000], at, {symbol_id: sequence}, recent).rows.sequences[0].sequence
        assert sequence == len(records), "the fold dropped events"
    return sum(map(len, events.values())) / (time.process_time() - started)


async def _write_speed(at: Servers, events: dict[int, list[Record]], batch: int) -> float:
    """Write the events of each symbol as a partition of its own."""
    await _truncate(at)
    statements = asyncio.Semaphore(CONNECTIONS)
    async with Postgres(at.env["DATABASE_URL"], connections=CONNECTIONS + 1, options=PLAN_OPTIONS) as postgres:

        async def write(partition: int, records: list[Record]) -> None:
            history = PartitionHistory(postgres, f"benchmark-{batch}", partition, statements)
            await history.load()
            for first in range(0, len(records), batch):
                await history.write(records[first : first + batch])

        started = time.perf_counter()
        await asyncio.gather(*(write(symbol_id, records) for symbol_id, records in events.items()))
        return sum(map(len, events.values())) / (time.perf_counter() - started)
