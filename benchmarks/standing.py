"""Books with many resting orders, filled as a worker fills them; run in a process of its own.

``python -m benchmarks.standing memory ORDERS`` prints the bytes that a resting order takes.
``python -m benchmarks.standing depth ORDERS COMMANDS`` prints what commands cost over them and how long batches took.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import islice

import psutil

from benchmarks.children import collect_as_a_worker_does
from benchmarks.flows import SymbolRecord, definitions, order, resting_orders, symbols
from forkast_streams.checkpoint import Checkpointer
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.limits import FETCH_BYTES_MAX
from forkast_streams.topics import PARTITIONS_DEFAULT, partition_for
from tests.unit.flows import Record

_START_MS = 1_700_000_000_000
# A second's worth of records of one partition, when ten take some 60,000 commands a second.
_RECORDS_BETWEEN_CUTS = 6_000
_MS_CLASSES = (0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 1_000)


class Books:
    """The partitions of one worker, with their checkpoints, which go nowhere."""

    def __init__(self) -> None:
        self.engines = [EnginePartition(partition, PARTITIONS_DEFAULT) for partition in range(PARTITIONS_DEFAULT)]
        self._checkpointers = [Checkpointer(partition, 1) for partition in range(PARTITIONS_DEFAULT)]
        self._since_cut = [0] * PARTITIONS_DEFAULT
        self.cut_ms: list[float] = []

    def process(self, partition: int, records: list[Record]) -> None:
        """One batch; then a checkpoint of that partition, if one is due."""
        self.engines[partition].process(records)
        self._since_cut[partition] += len(records)
        if self._since_cut[partition] >= _RECORDS_BETWEEN_CUTS:
            started = time.process_time()
            self._checkpointers[partition].cut(self.engines[partition])
            self.cut_ms.append((time.process_time() - started) * 1e3)
            self._since_cut[partition] = 0

    def load(self, records: Iterable[SymbolRecord]) -> None:
        """Process records that are made meanwhile."""
        for partition, batch in batches(records, [engine.next_offset for engine in self.engines]):
            self.process(partition, batch)

    def resting(self) -> int:
        """How many orders rest."""
        return sum(engine.engine.open_orders.count for engine in self.engines)


def batches(records: Iterable[SymbolRecord], offsets: list[int]) -> Iterator[tuple[int, list[Record]]]:
    """Records as fetches deliver them: a partition's, as many as fit into one fetch; the rest at the end."""
    waiting: list[list[Record]] = [[] for _ in offsets]
    sizes, offsets = [0] * len(offsets), list(offsets)
    for symbol_id, value in records:
        partition = partition_for(symbol_id, len(offsets))
        record = Record(offsets[partition], _START_MS + offsets[partition], str(symbol_id).encode(), value)
        offsets[partition] += 1
        waiting[partition].append(record)
        sizes[partition] += len(value) + 10
        if sizes[partition] >= FETCH_BYTES_MAX:
            yield partition, waiting[partition]
            waiting[partition], sizes[partition] = [], 0
    yield from ((partition, batch) for partition, batch in enumerate(waiting) if batch)


def commands_over(standing: list[SymbolRecord], count: int) -> Iterator[SymbolRecord]:
    """Life at the top of deep books, whose number of orders stays as it is.

    Of ten commands two cancel a standing order, wherever it is, and place another one, three place orders beside the
    best price, two take from those, and the others cancel them.
    """
    chance = random.Random(7)
    homes = symbols()
    young: dict[int, list[tuple[str, int]]] = {symbol_id: [] for symbol_id in homes}
    made = 0
    while made < count:
        kind, symbol_id = chance.randrange(10), chance.choice(homes)
        if kind < 2:
            at = chance.randrange(len(standing))
            home, value = standing[at]
            fields = json.loads(value)
            yield home, _cancel(home, fields["id"], fields["userId"])
            standing[at] = order(home, fields["side"], f"{fields['price']:.2f}", chance)
            yield standing[at]
            made += 2
            continue
        made += 1
        if kind >= 7 and young[symbol_id]:
            yield symbol_id, _cancel(symbol_id, *young[symbol_id].pop())
        elif kind < 5:
            side = chance.choice(["BUY", "SELL"])
            off = chance.randint(1, 9) / 100
            record = order(symbol_id, side, f"{100 - off if side == 'BUY' else 100 + off:.2f}", chance)
            fields = json.loads(record[1])
            young[symbol_id].append((fields["id"], fields["userId"]))
            yield record
        else:
            side = chance.choice(["BUY", "SELL"])
            _, value = order(symbol_id, side, "100.09" if side == "BUY" else "99.91", chance)
            yield symbol_id, value.replace(b'"createdAt"', b'"timeInForce":"IOC","createdAt"')


def _cancel(symbol_id: int, order_id: str, user_id: int) -> bytes:
    command = f'{{"command":"CANCEL","symbolId":{symbol_id},"orderId":"{order_id}","userId":{user_id}}}'
    return command.encode()


def measure_memory(orders: int) -> dict[str, float]:
    """Bytes of the process for each resting order, with its order id that must not come again."""
    books = Books()
    books.load(definitions())
    # What a first few orders bring in once and for all is no cost of an order.
    books.load(resting_orders(1_000))
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    books.load(resting_orders(orders))
    gc.collect()
    after = process.memory_info().rss
    assert books.resting() == orders + 1_000, f"{books.resting()} orders rest"
    return {"bytes": (after - before) / orders}


def measure_allocations(orders: int) -> dict[str, float]:
    """Bytes that Python's allocator holds for each resting order; slow."""
    books = Books()
    books.load(definitions())
    tracemalloc.start(1)
    books.load(resting_orders(orders))
    gc.collect()
    return {"bytes": tracemalloc.get_traced_memory()[0] / orders}


def measure_depth(orders: int, count: int) -> dict[str, object]:
    """CPU of a command over ``orders`` resting orders, and the times of all batches with their checkpoints."""
    books = Books()
    standing = list(resting_orders(orders))
    offsets = [1 + sum(1 for _ in islice(standing, partition, None, PARTITIONS_DEFAULT)) for partition in range(10)]
    work = list(batches(commands_over(list(standing), count), offsets))
    collect_as_a_worker_does()
    books.load(chain_definitions(standing))
    books.cut_ms.clear()
    resting = books.resting()
    assert resting == orders, f"{resting} orders rest"
    pauses, walls = [], []
    cpu = time.process_time()
    for partition, batch in work:
        started, cpu_started = time.perf_counter(), time.process_time()
        books.process(partition, batch)
        pauses.append((time.process_time() - cpu_started) * 1e3)
        walls.append((time.perf_counter() - started) * 1e3)
    cpu = time.process_time() - cpu
    done = sum(len(batch) for _, batch in work)
    counts = [0] * len(_MS_CLASSES)
    for pause in pauses:
        counts[next(at for at, most in enumerate(_MS_CLASSES) if pause <= most or at == len(_MS_CLASSES) - 1)] += 1
    return {
        "us": cpu / done * 1e6,
        "pause_ms": max(pauses),
        "wall_ms": max(walls),
        "p99_ms": sorted(pauses)[len(pauses) * 99 // 100],
        "cuts_us": sum(books.cut_ms) * 1e3 / done,
        "cut_ms": max(books.cut_ms, default=0.0),
        "classes": _MS_CLASSES,
        "counts": counts,
        "batches": len(pauses),
        "resting_after": books.resting(),
    }


def chain_definitions(standing: list[SymbolRecord]) -> Iterator[SymbolRecord]:
    """The symbols, then their orders."""
    yield from definitions()
    yield from standing


def main() -> None:
    """Measure what the arguments name and print it as JSON."""
    what, *numbers = sys.argv[1:]
    measure = {"memory": measure_memory, "allocations": measure_allocations, "depth": measure_depth}[what]
    print(json.dumps(measure(*map(int, numbers))))  # type: ignore[operator]


if __name__ == "__main__":
    main()
