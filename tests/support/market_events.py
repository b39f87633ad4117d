"""Events of ``orders.exchange`` for tests of their readers, made by the engine itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.book import SymbolBook
from forkast_streams.market_data.changes import BookChange
from tests.support.flows import PARTITIONS, home_of, mixed_flow, records_of

# Two symbols that share a partition.
SYMBOL = 1
NEIGHBOUR = next(symbol_id for symbol_id in range(2, 1000) if home_of(symbol_id) == home_of(SYMBOL))
HOME = home_of(SYMBOL)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """What a reader of events reads of a consumed record."""

    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None


def engine_with(commands: list[dict[str, Any]]) -> tuple[EnginePartition, list[EventRecord]]:
    """The engine after ``commands``, and its events."""
    engine = EnginePartition(HOME, PARTITIONS)
    outputs = engine.process(records_of(commands))
    return engine, [EventRecord(at, event.value) for at, event in enumerate(outputs.events)]


def two_symbol_flow(count: int, *, seed: int = 1) -> list[dict[str, Any]]:
    """Mixed commands for two symbols of one partition, in turns."""
    flows = [mixed_flow(count // 2, seed=seed + symbol, symbol_id=symbol) for symbol in (SYMBOL, NEIGHBOUR)]
    return [command for command in chain.from_iterable(zip_longest(*flows)) if command is not None]


Depth = dict[str, dict[str, tuple[str, int]]]


def depth_of_engine(engine: EnginePartition, symbol_id: int) -> Depth:
    """The depth of the engine's own book, order by order."""
    symbol = engine.engine.markets[symbol_id].symbol
    depth: Depth = {"BUY": {}, "SELL": {}}
    quantities: Counter[tuple[str, int]] = Counter()
    counts: Counter[tuple[str, int]] = Counter()
    levels = engine.engine.markets[symbol_id].book.levels()
    for order in chain.from_iterable(levels):
        if not order.shown:
            continue
        quantities[order.side, order.price_ticks] += order.shown
        counts[order.side, order.price_ticks] += 1
    for (side, ticks), quantity in quantities.items():
        depth[side][symbol.ticks.text(ticks)] = (symbol.lots.text(quantity), counts[side, ticks])
    return depth


def depth_of(book: SymbolBook) -> Depth:
    """The depth a book has folded."""
    whole = book.whole()
    return {"BUY": whole.buy, "SELL": whole.sell}


def apply_change(depth: Depth, change: BookChange) -> None:
    """What a reader of changes does."""
    for side, levels in (("BUY", change.buy), ("SELL", change.sell)):
        for price, state in levels.items():
            if state[1]:
                depth[side][price] = state
            else:
                depth[side].pop(price, None)


def is_crossed(depth: Depth) -> bool:
    """Whether somebody would buy at a price at which somebody would sell."""
    return bool(depth["BUY"] and depth["SELL"]) and (max(map(float, depth["BUY"])) >= min(map(float, depth["SELL"])))
