"""How many events a second the sink makes durable: ``python benchmarks/sink.py [EVENTS]``, on a database of its own.

The events are what the engine answers to a seeded flow of limit and market orders, cancels and amends. They are
written as the worker writes them, without Kafka: batches of the size of a fetch, some partitions at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from agents.persist_events import CONNECTIONS
from forkast_streams.devstack.ports import free_ports
from forkast_streams.devstack.postgres import Postgres as Server
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.limits import FETCH_BYTES_MAX
from forkast_streams.persistence import fold
from forkast_streams.storage.history import PartitionHistory
from forkast_streams.storage.postgres import Postgres, prepare_database
from forkast_streams.wire_events import OrderEvent, TradeEvent, decode_event
from tests.unit.flows import PARTITIONS, Record, home_of, mixed_flow, records_of

SYMBOLS = 8


def events_of(symbol_id: int, commands: int) -> list[Record]:
    """The engine's events for one symbol, as records."""
    home = home_of(symbol_id)
    outputs = EnginePartition(home, PARTITIONS).process(
        records_of(mixed_flow(commands, seed=symbol_id, symbol_id=symbol_id))
    )
    return [Record(offset, event.timestamp, event.key, event.value) for offset, event in enumerate(outputs.events)]


async def write_all(url: str, events: dict[int, list[Record]], batch: int) -> float:
    """Write the events of each symbol as a partition of its own; return the seconds it took."""
    postgres = Postgres(url, connections=CONNECTIONS + 1)
    statements = asyncio.Semaphore(CONNECTIONS)

    async def write(partition: int, records: list[Record]) -> None:
        history = PartitionHistory(postgres, f"benchmark-{batch}", partition)
        await history.load()
        for at in range(0, len(records), batch):
            async with statements:
                await history.write(records[at : at + batch])

    async with postgres:
        for table in ("Order", "Trade", "SymbolSequence", "SinkProgress"):
            await postgres.fetch(f'TRUNCATE "{table}"')
        started = time.perf_counter()
        await asyncio.gather(*(write(symbol_id, records) for symbol_id, records in events.items()))
        seconds = time.perf_counter() - started
        await check(postgres, events)
        return seconds


async def check(postgres: Postgres, events: dict[int, list[Record]]) -> None:
    """Fail unless the tables hold every order and every trade of ``events``."""
    types = Counter(type(decode_event(record.value)) for records in events.values() for record in records)
    [(orders, trades)] = await postgres.fetch(
        """SELECT (SELECT count(*) FROM "Order" WHERE status <> 'REJECTED'), (SELECT count(*) FROM "Trade")"""
    )
    assert (orders, trades) == (types[OrderEvent], types[TradeEvent]), "the tables do not hold what was written"


def fold_all(events: dict[int, list[Record]]) -> float:
    """Fold all events in batches of 5,000; return the seconds it took."""
    started = time.perf_counter()
    for symbol_id, records in events.items():
        sequence = 0
        for at in range(0, len(records), 5_000):
            write = fold(records[at : at + 5_000], at, {symbol_id: sequence})
            sequence = write.rows.sequences[0].sequence
        assert sequence == len(records), "the fold dropped events"
    return time.perf_counter() - started


def main() -> None:
    """Print one line a batch size."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    events = {symbol_id: events_of(symbol_id, wanted // SYMBOLS) for symbol_id in range(1, SYMBOLS + 1)}
    count = sum(map(len, events.values()))
    size = sum(len(record.value or b"") for record in itertools.chain(*events.values())) / count
    print(f"{count} events of {size:.0f} bytes on average")
    print(f"fold alone: {count / fold_all(events):,.0f} events/s")
    with tempfile.TemporaryDirectory(prefix="forkast-bench-") as folder:
        server = Server(Path(folder), free_ports(1)[0])
        server.start()
        try:
            asyncio.run(prepare_database(server.url, demo_users=False))
            for batch in (1, int(FETCH_BYTES_MAX // size), 1_000, 5_000):
                some = {s: records[: 300 * batch] for s, records in events.items()}
                written = sum(map(len, some.values()))
                seconds = asyncio.run(write_all(server.url, some, batch))
                print(f"{batch:>5} events a statement: {written / seconds:>8,.0f} events/s durable")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
