"""Books with many resting orders, filled as a worker fills them; run in a process of its own.

``python -m benchmarks.standing memory ORDERS`` prints the bytes that a resting order takes.
``python -m benchmarks.standing depth ORDERS COMMANDS`` prints what commands cost over them and how long batches took.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import psutil

from benchmarks.children import collect_as_a_worker_does
from benchmarks.flows import commands_over, definitions, resting_orders
from benchmarks.partitions import Partitions
from benchmarks.records import SymbolRecord, batches
from forkast_streams.topics import PARTITIONS_DEFAULT

_MS_CLASSES = (0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 1_000)


def measure_memory(orders: int) -> dict[str, float]:
    """Bytes of the process for each resting order, with its order id that must not come again."""
    partitions = Partitions()
    partitions.load(definitions())
    # What a first few orders bring in once and for all is no cost of an order.
    partitions.load(resting_orders(1_000))
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    partitions.load(resting_orders(orders))
    gc.collect()
    after = process.memory_info().rss
    assert partitions.resting() == orders + 1_000, f"{partitions.resting()} orders rest"
    return {"bytes": (after - before) / orders}


def measure_allocations(orders: int) -> dict[str, float]:
    """Bytes that Python's allocator holds for each resting order; slow."""
    partitions = Partitions()
    partitions.load(definitions())
    tracemalloc.start(1)
    partitions.load(resting_orders(orders))
    gc.collect()
    return {"bytes": tracemalloc.get_traced_memory()[0] / orders}


def measure_depth(orders: int, count: int) -> dict[str, object]:
    """CPU of a command over ``orders`` resting orders, and the times of all batches with their checkpoints."""
    partitions = Partitions()
    standing = list(resting_orders(orders))
    offsets = [1 + sum(1 for _ in islice(standing, partition, None, PARTITIONS_DEFAULT)) for partition in range(10)]
    work = list(batches(commands_over(list(standing), count), offsets))
    collect_as_a_worker_does()
    partitions.load(chain_definitions(standing))
    partitions.cut_ms.clear()
    resting = partitions.resting()
    assert resting == orders, f"{resting} orders rest"
    pauses, walls = [], []
    cpu = time.process_time()
    for partition, batch in work:
        started, cpu_started = time.perf_counter(), time.process_time()
        partitions.process(partition, batch)
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
        "cuts_us": sum(partitions.cut_ms) * 1e3 / done,
        "cut_ms": max(partitions.cut_ms, default=0.0),
        "classes": _MS_CLASSES,
        "counts": counts,
        "batches": len(pauses),
        "resting_after": partitions.resting(),
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
