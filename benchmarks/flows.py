"""Commands as clients send them, for benchmarks with a worker and the training: seeded, on one symbol a partition."""

from __future__ import annotations

import json
import random
import uuid
from collections import deque
from collections.abc import Iterator
from itertools import chain

from benchmarks.records import START_MS, Record, SymbolRecord
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.topics import PARTITIONS_DEFAULT, partition_for

_LEVELS = 1_000
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
