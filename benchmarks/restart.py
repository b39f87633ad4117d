"""How soon a killed engine matches again: ``python -m benchmarks.restart [RESTING_ORDERS] [ROUNDS]``.

Resting orders are loaded over all partitions, then the engine is killed with SIGKILL, a probe order is put on every
partition, and the time is taken from the start of the new process to the event of the last probe in the log: with the
local state there, with it lost, by turns. Prints one line a restart and the shares of its phases.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from forkast_streams.devstack import Stack
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, ensure_topics, partition_for
from tests.integration.exchange import PARTITIONS, Worker, end_offsets, produce, wait_until

# One symbol a partition.
_LEVELS = 1_000


def symbols() -> list[int]:
    """One symbol for each partition, by partition."""
    found: dict[int, int] = {}
    symbol_id = 0
    while len(found) < PARTITIONS:
        symbol_id += 1
        found.setdefault(partition_for(symbol_id, PARTITIONS), symbol_id)
    return [found[partition] for partition in range(PARTITIONS)]


def definitions() -> Iterator[tuple[int, bytes]]:
    """A SYMBOL command a symbol."""
    for symbol_id in symbols():
        rules = {"symbol": f"S{symbol_id}", "tickSize": "0.01", "lotSize": "1", "status": "TRADING"}
        yield symbol_id, json.dumps({"command": "SYMBOL", "symbolId": symbol_id} | rules).encode()


def resting_orders(count: int) -> Iterator[tuple[int, bytes]]:
    """Orders that never cross: buys below 100, sells above."""
    chance = random.Random(count)
    homes = symbols()
    for number in range(count):
        side = number // PARTITIONS % 2
        price = 100 + (1 if side else -1) * (1 + chance.randrange(_LEVELS)) / 100
        yield order(homes[number % PARTITIONS], "SELL" if side else "BUY", f"{price:.2f}", chance)


def order(symbol_id: int, side: str, price: str, chance: random.Random) -> tuple[int, bytes]:
    """A limit order as a record."""
    order_id = uuid.UUID(int=chance.getrandbits(128), version=4)
    fields = {"id": str(order_id), "userId": chance.randint(1, 1_000), "symbolId": symbol_id, "type": "LIMIT"}
    return symbol_id, json.dumps(fields | {"side": side, "quantity": chance.randint(1, 100), "price": price}).encode()


async def _wait_for_each(env: dict[str, str], before: dict[int, int], *, more: int, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while True:
        now = await end_offsets(env, ORDERS_EXCHANGE)
        if all(now[partition] >= before[partition] + more for partition in now):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"no event of each partition within {within_s:g} s: {before} to {now}")


def _phases(log: str) -> str:
    """The worker's own log as seconds since its first line."""
    marks = {
        "Starting...": "faust",
        "Restoring state": "replay",
        "Recovery complete": "replayed",
        "loaded part": "load",
    }
    found = []
    for line in log.splitlines():
        at = re.match(r"\[(\S+ \d+:\d+:\d+,\d+)\]", line)
        for mark, name in marks.items():
            if at and mark in line and name not in [n for n, _ in found]:
                found.append((name, at.group(1).split()[1]))
    return ", ".join(f"{name} {at}" for name, at in found)


def restart(engine: Worker, env: dict[str, str], *, lose_disk: bool, chance: random.Random) -> float:
    """Kill the engine, start it again, return the seconds until each partition has answered a probe."""
    engine.kill()
    if lose_disk:
        engine.lose_disk()
    before = asyncio.run(end_offsets(env, ORDERS_EXCHANGE))
    asyncio.run(produce(env, ORDERS_NEW, [order(symbol_id, "BUY", "1", chance) for symbol_id in symbols()]))
    read_from = engine.log.stat().st_size
    started = time.monotonic()
    wall = time.strftime("%H:%M:%S")
    engine.start()
    asyncio.run(_wait_for_each(env, before, more=1, within_s=120))
    seconds = time.monotonic() - started
    engine.wait_ready()
    with engine.log.open("rb") as log:
        log.seek(read_from)
        print(f"   started {wall}, {_phases(log.read().decode())}")
    return seconds


def main() -> None:
    """Load, then restart by turns with and without the local state."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(prefix="forkast-restart-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Stack(folder / "stack", "auto") as stack:
            env = stack.env()
            asyncio.run(ensure_topics(env["KAFKA_BROKERS"].split(","), partitions=PARTITIONS))
            asyncio.run(produce(env, ORDERS_NEW, definitions()))
            asyncio.run(produce(env, ORDERS_NEW, resting_orders(count)))
            engine = Worker("engine", env, folder / "engine")
            try:
                started = time.monotonic()
                engine.start().wait_ready()
                zero = dict.fromkeys(range(PARTITIONS), 0)
                asyncio.run(_wait_for_each(env, zero, more=1 + count // PARTITIONS, within_s=300))
                print(f"{count} resting orders loaded in {time.monotonic() - started:.1f} s")
                chance = random.Random(1)
                for lose_disk in [False, True] * rounds:
                    seconds = restart(engine, env, lose_disk=lose_disk, chance=chance)
                    print(f"{seconds:6.2f} s  local state {'lost' if lose_disk else 'there'}", flush=True)
                wait_until(engine.is_ready, "the engine being ready")
                print(f"SIGTERM: status {engine.terminate()}")
            finally:
                engine.end()


if __name__ == "__main__":
    main()
