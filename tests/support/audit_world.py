"""A whole exchange as lists: inputs through the real engine, rows by the sink's fold, books by the keeper's."""

from __future__ import annotations

import copy
import json
import tempfile
import uuid
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from forkast_streams.audit.evidence import (
    ORDERS_DEAD,
    ORDERS_EXCHANGE,
    ORDERS_NEW,
    TOPICS,
    BookAnswer,
    Cut,
    Row,
    TablesCut,
)
from forkast_streams.audit.findings import Findings
from forkast_streams.audit.records import Record
from forkast_streams.audit.rows import DEFAULTS, LATER_ORDER_COLUMNS, ORDER_COLUMNS, TRADE_COLUMNS, Sum, row_hash
from forkast_streams.audit.run import audit_evidence
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.producer_keys import KeyFile, KeyRing
from forkast_streams.record_signatures import Signer
from forkast_streams.repeats import RecentEvents
from forkast_streams.sink.fold import OrderRow, TradeRow, fold
from tests.support.flows import PARTITIONS, START_MS, home_of, mixed_flow, order_command, symbol_command

HOME = home_of(1)
FOREIGN = (HOME + 1) % PARTITIONS
OTHER_SYMBOL = 2

Event = dict[str, Any]


class World:
    """The topics by partition, to be damaged, and what follows from them.

    Attributes:
        inputs, events, letters: records of a partition without their offsets, which are their places.
        rows: of "Order" and "Trade".
        committed: of the engine; where nothing else is said everything.
        keys: of the producers, which engines and audit judge by; None: they have none.
        signer: what signs what an engine forwards.
    """

    def __init__(self) -> None:
        self.inputs: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}
        self.events: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}
        self.letters: dict[int, list[Record]] = {partition: [] for partition in range(PARTITIONS)}
        self.rows: dict[str, list[Row]] = {"Order": [], "Trade": []}
        self.tables: TablesCut | None = None
        self.books: list[BookAnswer] = []
        self.required: dict[int, int] | None = None
        self.late: list[str] = []
        self.journal: list[dict[str, Any]] = []
        self.keys: KeyFile | None = None
        self.signer: Signer | None = None
        self._clock = START_MS

    def send(self, value: bytes | None, *, partition: int, key: bytes | None = b"1", headers: Any = ()) -> None:
        """Append an input, a millisecond after the one before."""
        of_partition = self.inputs[partition]
        self._clock += 1
        of_partition.append(Record(len(of_partition), self._clock, key, value, tuple(headers)))

    def send_command(self, command: dict[str, Any], *, partition: int | None = None) -> None:
        """Append a command, where it belongs unless something else is said."""
        symbol_id = command["symbolId"]
        home = home_of(symbol_id) if partition is None else partition
        self.send(json.dumps(command).encode(), partition=home, key=b"%d" % symbol_id)

    def process(self) -> World:
        """Let the engine answer all inputs, and the records it forwards, which are forwarded twice."""
        engines = [EnginePartition(partition, PARTITIONS) for partition in range(PARTITIONS)]
        for engine in engines if self.keys is not None else ():
            engine.use_keys(KeyRing(self.keys))
        for _ in range(2):
            for partition, engine in enumerate(engines):
                outputs = engine.process(self.inputs[partition][engine.next_offset :])
                for records, made in ((self.events, outputs.events), (self.letters, outputs.dead)):
                    of_partition = records[partition]
                    of_partition += [Record(0, r.timestamp, r.key, r.value, tuple(r.headers)) for r in made]
                for home, stray in outputs.strays * 2:
                    headers = list(stray.headers)
                    if self.signer is not None:
                        headers.append(self.signer.header(ORDERS_NEW, stray.key, stray.value, headers))
                    self.send(stray.value, partition=home, key=stray.key, headers=headers)
        assert all(engine.next_offset == len(self.inputs[n]) for n, engine in enumerate(engines))
        return self

    def derive(self) -> World:
        """Make tables and books of the events as they are now."""
        self.rows = {"Order": [], "Trade": []}
        sequences: dict[int, int] = {}
        for records in self.events.values():
            rows = fold(self._numbered(records), 0, {}, RecentEvents()).rows
            assert not rows.changes, "an order that changes was placed in the same log"
            self.rows["Order"] += [_texts(row, [*ORDER_COLUMNS, *LATER_ORDER_COLUMNS]) for row in rows.orders]
            self.rows["Trade"] += [_texts(row, list(TRADE_COLUMNS)) for row in rows.trades]
            sequences |= {row.symbol_id: row.sequence for row in rows.sequences}
        places = {partition: len(records) for partition, records in self.events.items()}
        self.tables = TablesCut(list(LATER_ORDER_COLUMNS), dict(places), dict(places), sequences, {}, {})
        self.books = []
        for partition, records in self.events.items():
            state = MarketDataState(partition)
            step = max(1, len(records) // 20)
            for start in range(0, len(records), step):
                numbered = self._numbered(records)[start : start + step]
                self.books += [_book(state, change.symbol_id) for change in state.apply(numbered)]
        return self

    def edit(self, partition: int, at: int, **data: Any) -> None:
        """Change fields in the data of an event."""
        event = self.event(partition, at)
        event["data"] |= data
        self.put(partition, at, event)

    def event(self, partition: int, at: int) -> Event:
        """An event as JSON."""
        event: Event = json.loads(self.events[partition][at].value or b"")
        return event

    def put(self, partition: int, at: int, event: Event) -> None:
        """Write an event in the place of another."""
        old = self.events[partition][at]
        value = json.dumps(event, separators=(",", ":")).encode()
        self.events[partition][at] = Record(0, old.timestamp, old.key, value, old.headers)

    def place_of(self, partition: int, kind: str, *, last: bool = False, **data: Any) -> int:
        """The place of the first, or last, event of a kind with such data."""
        places = [
            at
            for at, event in enumerate(self.event(partition, at) for at in range(len(self.events[partition])))
            if event["type"] == kind and event["data"].items() >= data.items()
        ]
        return places[-1 if last else 0]

    def evidence(self) -> _Evidence:
        """The world as it is now, cut at its end."""
        ends = {
            topic: {partition: len(records) for partition, records in of_topic.items()}
            for topic, of_topic in zip(TOPICS, (self.inputs, self.events, self.letters), strict=True)
        }
        required = self.required or ends[ORDERS_NEW]
        if self.tables is not None:
            self.tables.orders, self.tables.trades = _sums(self.rows["Order"]), _sums(self.rows["Trade"])
        return _Evidence(self, Cut(PARTITIONS, ends, required, copy.deepcopy(self.tables), self.books, self.late))

    def audit(self, **options: Any) -> Findings:
        """What the audit finds, with more options for it."""
        evidence = self.evidence()
        with tempfile.TemporaryDirectory() as folder:
            if self.journal:
                options["journal"] = Path(folder) / "journal.jsonl"
                options["journal"].write_text("\n".join(map(json.dumps, self.journal)))
            if self.keys is not None:
                options.setdefault("producer_keys", Path(folder) / "keys.json")
                (Path(folder) / "keys.json").write_bytes(msgspec.json.encode(self.keys))
            return audit_evidence(evidence, **options)[0]

    def _numbered(self, records: list[Record]) -> list[Record]:
        return [Record(at, r.timestamp, r.key, r.value, r.headers) for at, r in enumerate(records)]


class _Evidence:
    """A world as evidence."""

    def __init__(self, world: World, cut: Cut) -> None:
        self.cut = cut
        self._world = world
        self._topics = {ORDERS_NEW: world.inputs, ORDERS_EXCHANGE: world.events, ORDERS_DEAD: world.letters}

    def records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        records = self._topics[topic][partition]
        # Inputs keep the offsets they were given, so that a hole stays one.
        return iter((records if topic == ORDERS_NEW else self._world._numbered(records))[start:end])

    def rows(self, table: str, symbol_id: int) -> Iterator[Row]:
        return (row for row in self._world.rows[table] if row[1] == str(symbol_id))

    def close(self) -> None:
        """Nothing is open."""


def _book(state: MarketDataState, symbol_id: int) -> BookAnswer:
    whole = state.books[symbol_id].whole()
    sides = []
    for levels, best_first in ((whole.buy, -1), (whole.sell, 1)):
        ordered = sorted(levels.items(), key=lambda level: best_first * Decimal(level[0]))
        sides.append([(price, quantity, orders) for price, (quantity, orders) in ordered])
    return BookAnswer(symbol_id, whole.sequence, *sides)


def _sums(rows: list[Row]) -> dict[int, Sum]:
    sums: dict[int, Sum] = {}
    for row in rows:
        sums.setdefault(int(row[1]), Sum()).add(row_hash("|".join(row)))
    return sums


def _texts(row: OrderRow | TradeRow, columns: list[str]) -> Row:
    """A row that the sink writes, as the texts of its columns."""
    values = {field.encode_name: getattr(row, field.name) for field in msgspec.structs.fields(row)}
    kinds = ORDER_COLUMNS | LATER_ORDER_COLUMNS | TRADE_COLUMNS
    return [_text(values[name], kinds[name], DEFAULTS.get(name)) for name in columns]


def _text(value: Any, kind: str, default: str | None) -> str:
    if value is None:
        return "~"
    text = _decimal(Decimal(value)) if kind == "decimal" else str(value)
    text = text.lower() if kind == "flag" else text
    return "~" if text == default else text


def _decimal(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@lru_cache(maxsize=1)
def true_world() -> World:
    """Two symbols, poison, strays that are forwarded twice, and what happened repeated after crashes."""
    world = World()
    commands = list(mixed_flow(500, seed=5))
    for number, command in enumerate(commands):
        world.send_command(command)
        if number == 100:
            world.send(b"{", partition=HOME)
            world.send(json.dumps(order_command()).encode(), partition=HOME, key=b"2")
            world.send(None, partition=HOME)
    for command in mixed_flow(200, seed=6, symbol_id=OTHER_SYMBOL):
        world.send_command(command)
    world.send_command(order_command(id=order_id(7_001), price=90), partition=FOREIGN)
    world.send(b"[]", partition=FOREIGN)
    world.send(b"x" * 70_000, partition=HOME, key=b"1" * 2_000)
    forged = json.dumps(order_command(id=order_id(7_006), price=90)).encode()
    for origin in (None, b"nowhere", b"%d:1" % HOME, b"%d:1" % PARTITIONS, b"3:" + b"9" * 30):
        world.send(forged, partition=HOME, headers=(("forwarded-from", origin),))
    world.send(forged, partition=(HOME + 3) % PARTITIONS, headers=(("forwarded-from", b"%d:1" % HOME),))
    world.send_command(order_command(id=order_id(7_002), price=90), partition=FOREIGN)
    world.send_command({"command": "CANCEL", "symbolId": 77, "orderId": order_id(1), "userId": 1})
    world.process()
    for topic in (world.events, world.letters):
        records = topic[HOME]
        cut, back = len(records) * 2 // 3, len(records) // 3
        topic[HOME] = records[:cut] + records[back:cut] + records[cut:] + records[-2:]
    return world.derive()


def order_id(number: int) -> str:
    """An order's id by its number."""
    return str(uuid.UUID(int=number))


def plain_world() -> World:
    """Two makers at one price, an order that takes the first, one that is cancelled, and one that is refused."""
    world = World()
    world.send_command(symbol_command(1))
    for number, changes in enumerate((
        {"side": "SELL"}, {"side": "SELL", "userId": 2}, {"userId": 3}, {"price": 90, "userId": 4},
        {"id": order_id(1)}, {"type": "MARKET", "price": None, "quantity": 25, "userId": 5},
    ), start=1):  # fmt: skip
        world.send_command(order_command(**({"id": order_id(number)} | changes)))
    world.send_command({"command": "AMEND", "symbolId": 1, "orderId": order_id(4), "userId": 4, "quantity": 15})
    world.send_command({"command": "CANCEL", "symbolId": 1, "orderId": order_id(4), "userId": 4})
    return world.process().derive()


def other_than(value: Any) -> Any:
    """Another value of the same kind, as a damaged field might have."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + ("1" if value[-1:] == "0" else "0")
        case dict():
            return {name: other_than(field) for name, field in value.items()}
        case _:
            return "100.00"
