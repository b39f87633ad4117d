"""Commands as clients send them, for benchmarks with a worker: seeded, on one symbol a partition."""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from benchmarks.servers import Servers
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import PARTITIONS_DEFAULT, partition_for
from tests.unit.flows import START_MS, Record

# A symbol's id and a record's value.
SymbolRecord = tuple[int, bytes]

_LEVELS = 1_000
_SENT_AT_ONCE = 100_000
# Orders of a symbol that wait for their cancel, filled ones among them.
_LASTING_ORDERS = 1_000


def symbols(partitions: int = PARTITIONS_DEFAULT) -> list[int]:
    """One symbol for each partition, by partition."""
    found: dict[int, int] = {}
    symbol_id = 0
    while len(found) < partitions:
        symbol_id += 1
        found.setdefault(partition_for(symbol_id, partitions), symbol_id)
    return [found[partition] for partition in range(partitions)]


def definitions() -> Iterator[SymbolRecord]:
    """A SYMBOL command a symbol."""
    for symbol_id in symbols():
        rules = {"symbol": f"S{symbol_id}", "tickSize": "0.01", "lotSize": "1", "status": "TRADING"}
        yield symbol_id, json.dumps({"command": "SYMBOL", "symbolId": symbol_id} | rules).encode()


def resting_orders(count: int) -> Iterator[SymbolRecord]:
    """Orders that never cross, by turns on all symbols: buys below 100, sells above, on 2,000 levels."""
    chance = random.Random(count)
    homes = symbols()
    for number in range(count):
        is_sell = number // len(homes) % 2
        price = 100 + (1 if is_sell else -1) * (10 + chance.randrange(_LEVELS)) / 100
        yield order(homes[number % len(homes)], "SELL" if is_sell else "BUY", f"{price:.2f}", chance)


def order(symbol_id: int, side: str, price: str, chance: random.Random) -> SymbolRecord:
    """A limit order as a record."""
    value = (
        f'{{"id":"{_id(chance)}","userId":{chance.randint(1, 1000)},"symbolId":{symbol_id},"type":"LIMIT",'
        f'"side":"{side}","quantity":{chance.randint(1, 100)},"price":{price},"createdAt":1}}'
    )
    return symbol_id, value.encode()


def mixed_commands(count: int, *, seed: int = 1) -> Iterator[SymbolRecord]:
    """Limit orders (67 %) and market orders (5 %) around one price, cancels (25 %) and amends (3 %) of any order.

    Many of the cancelled and amended orders are filled by then, so that those commands are refused.
    """
    chance = random.Random(seed)
    homes = symbols()
    placed: dict[int, list[tuple[str, int]]] = {symbol_id: [] for symbol_id in homes}
    for _ in range(count):
        symbol_id, kind = chance.choice(homes), chance.random()
        known = placed[symbol_id]
        if kind < 0.28 and known:
            at = chance.randrange(len(known))
            order_id, user_id = known[at]
            order_of = f'"symbolId":{symbol_id},"orderId":"{order_id}","userId":{user_id}'
            if kind < 0.25:
                known[at] = known[-1]
                known.pop()
                value = f'{{"command":"CANCEL",{order_of}}}'
            else:
                value = f'{{"command":"AMEND",{order_of},"quantity":{chance.randint(1, 90)}}}'
        else:
            order_id, user_id, value = _around_100(chance, symbol_id, is_market=kind > 0.95)
            known.append((order_id, user_id))
        yield symbol_id, value.encode()


def _around_100(chance: random.Random, symbol_id: int, *, is_market: bool) -> tuple[str, int, str]:
    """Id, user and JSON of an order that trades with many others."""
    order_id, user_id = _id(chance), chance.randint(1, 10)
    side = "BUY" if chance.random() < 0.5 else "SELL"
    terms = '"type":"MARKET"' if is_market else f'"type":"LIMIT","price":{100 + chance.gauss(0, 0.5):.2f}'
    value = (
        f'{{"id":"{order_id}","userId":{user_id},"symbolId":{symbol_id},"side":"{side}",'
        f'"quantity":{chance.randint(1, 100)},{terms},"createdAt":1}}'
    )
    return order_id, user_id, value


def lasting_commands(seed: int = 1) -> Iterator[SymbolRecord]:
    """Limit orders (45 %), market orders (5 %) and cancels (50 %) without end, over books that stay as they are.

    Cancelled is the oldest order that was not: so each is filled or cancelled after a while.
    """
    chance = random.Random(seed)
    homes = symbols()
    placed: dict[int, deque[tuple[str, int]]] = {symbol_id: deque() for symbol_id in homes}
    while True:
        symbol_id = chance.choice(homes)
        known = placed[symbol_id]
        if len(known) > _LASTING_ORDERS:
            order_id, user_id = known.popleft()
            value = f'{{"command":"CANCEL","symbolId":{symbol_id},"orderId":"{order_id}","userId":{user_id}}}'
        else:
            order_id, user_id, value = _around_100(chance, symbol_id, is_market=chance.random() < 0.1)
            known.append((order_id, user_id))
        yield symbol_id, value.encode()


def event_records(count: int) -> Iterator[SymbolRecord]:
    """The first ``count`` events that the engine answers to the mixed commands."""
    engines = [EnginePartition(partition, PARTITIONS_DEFAULT) for partition in range(PARTITIONS_DEFAULT)]
    for symbol_id, value in chain(definitions(), mixed_commands(count)):
        engine = engines[partition_for(symbol_id, PARTITIONS_DEFAULT)]
        key, offset = str(symbol_id).encode(), engine.next_offset
        for event in engine.process([Record(offset, START_MS + offset, key, value)]).events:
            assert event.value is not None, "an event has a value"
            yield symbol_id, event.value
            count -= 1
            if not count:
                return


def _id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


async def send(at: Servers, topic: str, records: Iterable[SymbolRecord], partitions: int = PARTITIONS_DEFAULT) -> int:
    """Send records, each to its symbol's partition, a part at a time; return how many were acknowledged."""
    count, rest = 0, iter(records)
    async with EventProducer(at.brokers) as producer:
        while part := list(islice(rest, _SENT_AT_ONCE)):
            by_partition: dict[int, list[OutputRecord]] = {}
            for symbol_id, value in part:
                record = OutputRecord(str(symbol_id).encode(), value, 0)
                by_partition.setdefault(partition_for(symbol_id, partitions), []).append(record)
            sent = []
            for partition, of_partition in by_partition.items():
                sent += await producer.send_batch(topic, partition, of_partition)
            for batch in sent:
                await batch.acknowledged
                count += batch.count
    return count
