"""What must hold during a run and after it, by the numbers of the list of invariants."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.topics import ENGINE_CHANGELOG, ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from tests.property.invariants import Invariants
from tests.simulation.database import Row, Tables, is_same_number
from tests.simulation.log import LogRecord, SimLog
from tests.simulation.people import Journal
from tests.simulation.reference import PartitionReference
from tests.simulation.world import Violation

_ORDER_COLUMNS = ("id", "userId", "symbolId", "type", "side", "timeInForce", "clientOrderId", "reason")
_DECIMAL_COLUMNS = ("price", "quantity", "filledQuantity")


def require(holds: bool, otherwise: str) -> None:
    """Raise a `Violation` unless ``holds``."""
    if not holds:
        raise Violation(otherwise)


class Watch:
    """Looks at every record the moment the log takes it.

    Attributes:
        durable: by changelog topic and partition: the input offset that the newest complete segment reaches.
        digest: of every record so far.
    """

    def __init__(self, log: SimLog) -> None:
        self.log = log
        self.references = {p: PartitionReference(p, log.partitions) for p in range(log.partitions)}
        self.durable: Counter[tuple[str, int]] = Counter()
        self.digest = hashlib.blake2b(digest_size=16)
        log.on_append = self._on_append

    def _on_append(self, topic: str, partition: int, record: LogRecord) -> None:
        self.digest.update(f"{self.log.world.steps} {topic} {partition} {record}".encode())
        if topic == ORDERS_NEW:
            self._on_input(partition, record)
        elif topic == ORDERS_EXCHANGE:
            self.references[partition].take_event(record)
        elif topic == ORDERS_DEAD:
            headers = dict(record.headers)
            source = self.log.of(ORDERS_NEW, int(headers["partition"])).records[int(headers["offset"])]
            self.references[partition].take_dead(record, source)
            self.log.world.counts["dead letters"] += 1
        else:
            self._on_checkpoint_row(topic, partition, record)

    def _on_input(self, partition: int, record: LogRecord) -> None:
        self.references[partition].take_input(record)
        forwarded = self.references[partition].origin_of(record)
        if forwarded is not None:
            origin, offset = forwarded
            stray = self.log.of(ORDERS_NEW, origin).records[offset]
            self.references[origin].take_forwarded(offset, record, stray, partition)
            self.log.world.counts["records forwarded to their partition"] += 1

    def _on_checkpoint_row(self, topic: str, partition: int, record: LogRecord) -> None:
        """A segment may not reach further than the outputs that are in the log (I-18)."""
        fields = (record.key or b"").split(b".")
        if record.value is None or fields[1] != b"s":
            return
        reached = int(fields[2])
        if topic == ENGINE_CHANGELOG:
            done = self.references[partition].done
            require(reached <= done, f"I-18: a checkpoint of {partition} reaches {reached}, outputs only {done}")
        chunk, chunks = int.from_bytes(record.value[1:3], "big"), int.from_bytes(record.value[3:5], "big")
        if chunk == chunks - 1:
            self.durable[topic, partition] = max(self.durable[topic, partition], reached)

    def on_commit(self, changelog: str, partition: int, offset: int) -> None:
        """The input may be committed up to the newest durable checkpoint, no further (I-18)."""
        reached = self.durable[changelog, partition]
        require(offset <= reached, f"I-18: {changelog}-{partition} is committed at {offset}, checkpoint at {reached}")


class Shadows:
    """Uninterrupted runs that recovered states are compared with (I-14)."""

    def __init__(self, log: SimLog) -> None:
        self._log = log
        self._states: dict[tuple[type, int], Any] = {}

    def check(self, state: EnginePartition | MarketDataState) -> None:
        """``state`` must be that of an uninterrupted run at the same offset.

        Raises:
            Violation: it differs.
        """
        kind, partition = type(state), state.partition
        is_engine = kind is EnginePartition
        shadow = self._states.get((kind, partition))
        if shadow is None or shadow.next_offset > state.next_offset:
            shadow = EnginePartition(partition, self._log.partitions) if is_engine else MarketDataState(partition)
            self._states[kind, partition] = shadow
        topic = ORDERS_NEW if is_engine else ORDERS_EXCHANGE
        records = self._log.of(topic, partition).read(shadow.next_offset, 1 << 60, before=state.next_offset)
        shadow.process(records) if is_engine else shadow.apply(records)
        found, expected = contents(state), contents(shadow)
        require(found == expected, f"I-14: {kind.__name__} {partition} at {state.next_offset}: {found}\n{expected}")


def contents(state: EnginePartition | MarketDataState) -> dict[str, Any]:
    """All that a state holds, in a form that can be compared."""
    if isinstance(state, MarketDataState):
        # `published` depends on where batches ended, and `whole` leaves it out.
        return {str(s): book.whole() for s, book in state.books.items() if book.sequence}
    seen = state.engine.seen
    entries = sorted((str(key), row) for key, row in state.sweep()[1])
    return {"head": state.head(), "entries": entries, "seen": (seen.current.keys(), seen.previous.keys())}


def check_log(watch: Watch, journal: Journal) -> None:
    """I-1 to I-3 and I-6 to I-10, I-15 and I-19, from the log and what clients were told.

    Args:
        watch: saw every record as it was written.
        journal: what clients sent and were answered.
    """
    ids_in = set()
    for partition, reference in watch.references.items():
        records = list(watch.log.of(ORDERS_NEW, partition).records.values())
        ids_in |= {_id_of(record.value) for record in records}
        require(reference.done == len(records), f"I-2: {partition} has no outcome of offset {reference.done}")
        _check_reproduction(partition, watch, records)
        _check_events(reference)
    missing = {order_id for _, _, order_id in journal.acknowledged} - ids_in
    require(not missing, f"I-1: acknowledged, and not in the log: {missing}")
    _check_once(watch, journal)


def _id_of(value: bytes | None) -> str | None:
    try:
        order_id = json.loads(value or b"").get("id")
    except (ValueError, AttributeError):
        return None
    return str(order_id)


def _check_reproduction(partition: int, watch: Watch, records: list[LogRecord]) -> None:
    """I-15: a run in one piece gives the very bytes."""
    outputs = EnginePartition(partition, watch.log.partitions).process(records)
    values = [event.value for event in outputs.events]
    require(values == watch.references[partition].events, f"I-15: {partition} in one piece gives other events")


def _check_events(reference: PartitionReference) -> None:
    """I-6 to I-10: what must be true of any exchange's events, whatever was asked."""
    followers: dict[int, Invariants] = {}
    commands: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for value in reference.events:
        envelope = json.loads(value)
        commands.setdefault((envelope["symbolId"], envelope["source"]["offset"]), []).append(envelope)
    for (symbol_id, _), envelopes in commands.items():
        follower = followers.setdefault(symbol_id, Invariants())
        follower.follow(envelopes)


def _check_once(watch: Watch, journal: Journal) -> None:
    """I-19: one order a client order id, whatever was repeated, and every answer names it."""
    accepted: dict[tuple[int, str], set[str]] = {}
    for reference in watch.references.values():
        for value in reference.events:
            data = json.loads(value)["data"]
            client_order_id = data.get("clientOrderId") or ""
            # Only the clients of the OMS number their orders so.
            if data.get("status") == "PENDING" and client_order_id[1:].isdigit():
                accepted.setdefault((data["userId"], client_order_id), set()).add(data["id"])
    for key, ids in accepted.items():
        require(len(ids) == 1, f"I-19: {key} became the orders {ids}")
    for user_id, client_order_id, order_id in journal.acknowledged:
        ids = accepted.get((user_id, client_order_id), {order_id})
        require(ids == {order_id}, f"I-19: {(user_id, client_order_id)} was told {order_id}, has {ids}")


def check_tables(watch: Watch, tables: Tables) -> None:
    """I-11: the tables are what the log says, each row, both ways."""
    orders: dict[tuple[str, int], Row] = {}
    trades: dict[str, Row] = {}
    for partition, reference in watch.references.items():
        end = watch.log.of(ORDERS_EXCHANGE, partition).end
        place = tables.progress.get((ORDERS_EXCHANGE, partition), 0)
        require(place == end, f"I-11: the tables are at {place} of {partition}, the log ends at {end}")
        for symbol_id, sequence in reference.sequences.items():
            found = tables.sequences.get(symbol_id)
            require(found == (partition, sequence), f"I-11: symbol {symbol_id} is at {found}, not {sequence}")
        _fold(map(json.loads, reference.events), orders, trades)
    require(orders.keys() == tables.orders.keys(), f"I-11: orders differ: {orders.keys() ^ tables.orders.keys()}")
    require(trades.keys() == tables.trades.keys(), f"I-11: trades differ: {trades.keys() ^ tables.trades.keys()}")
    for key, order in orders.items():
        _compare(order, tables.orders[key], (*_ORDER_COLUMNS, "status"), _DECIMAL_COLUMNS)
    for trade_id, trade in trades.items():
        _compare(trade, tables.trades[trade_id], ("symbolId", "buyOrderId", "sellOrderId"), ("price", "quantity"))


def _compare(expected: Row, found: Row, columns: Iterable[str], decimals: Iterable[str]) -> None:
    same = all(found.get(column) == expected.get(column) for column in columns)
    same = same and all(is_same_number(found.get(column), expected.get(column)) for column in decimals)
    require(same, f"I-11: the row {found} should be {expected}")


def _fold(envelopes: Iterable[dict[str, Any]], orders: dict[tuple[str, int], Row], trades: dict[str, Row]) -> None:
    """The events as rows, in the plainest way."""
    for envelope in envelopes:
        data, symbol_id = envelope["data"], envelope["symbolId"]
        match envelope["type"]:
            case "ORDER":
                orders[data["id"], symbol_id] = dict(data)
            case "TRADE":
                trades[data["tradeId"]] = data | {"symbolId": symbol_id}
                for side in ("buy", "sell"):
                    row = orders[data[f"{side}OrderId"], symbol_id]
                    row["filledQuantity"], row["status"] = data[f"{side}FilledQuantity"], data[f"{side}Status"]
            case "CANCEL":
                row = orders[data["id"], symbol_id]
                row |= {name: data[name] for name in ("filledQuantity", "status", "reason")}
            case "AMEND":
                orders[data["id"], symbol_id] |= {name: data[name] for name in ("price", "quantity", "status")}
            case "REJECT" if data["command"] in ("NEW", "REPLACE") and data["code"] != "DUPLICATE_ORDER":
                row = data | {"symbolId": symbol_id, "status": "REJECTED", "reason": data["code"]}
                row |= {"filledQuantity": "0"}
                orders.setdefault((data["id"], symbol_id), row)


def check_conserved(tables: Tables) -> None:
    """I-6 from the tables: what was traded of an order is what it says is filled."""
    traded: Counter[tuple[str, int]] = Counter()
    for trade in tables.trades.values():
        for side in ("buyOrderId", "sellOrderId"):
            traded[trade[side], trade["symbolId"]] += Decimal(trade["quantity"])  # type: ignore[assignment]
    for key, order in tables.orders.items():
        filled = Decimal(order["filledQuantity"])
        require(traded[key] == filled, f"I-6: order {key} traded {traded[key]}, its row says {filled}")
