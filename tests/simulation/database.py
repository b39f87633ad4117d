"""The simulated database: the statements of ``storage/sql`` that the sink runs, each a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import psycopg2

from forkast_streams.errors import CorruptLog
from forkast_streams.storage.postgres import is_transient
from forkast_streams.storage.queries import query
from tests.simulation.world import Process, World

ResultT = TypeVar("ResultT")
Row = dict[str, Any]

# What a change leaves as it is when it has no value for it.
_KEPT = frozenset({"reason", "price", "quantity", "executedAt"})


class Tables:
    """The tables with what ``persist_events.sql`` and its neighbours do to them.

    Attributes:
        is_fenced: whether a write is refused when the tables are not where the writer thinks; always, except in the
            test which shows that this matters.
    """

    def __init__(self) -> None:
        self.orders: dict[tuple[str, int], Row] = {}
        self.trades: dict[str, Row] = {}
        self.symbols: dict[int, Row] = {}
        self.sequences: dict[int, tuple[int, int]] = {}
        self.progress: dict[tuple[str, int], int] = {}
        self.digests: dict[tuple[str, int], str] = {}
        self.is_fenced = True
        self._statements: dict[str, Callable[[Mapping[str, Any]], list[tuple[Any, ...]]]] = {
            query("start_progress"): self._start,
            query("read_progress"): self._read,
            query("persist_events"): self._persist,
        }

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement, whole."""
        return self._statements[statement](parameters)

    def _start(self, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.progress.setdefault((parameters["topic"], parameters["partition"]), 0)
        return []

    def _read(self, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        place = parameters["topic"], parameters["partition"]
        at = self.progress.get(place)
        here = {str(s): sequence for s, (p, sequence) in self.sequences.items() if p == parameters["partition"]}
        return [] if at is None else [(at, here, self.digests.get(place))]

    def _persist(self, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        kinds = "orders", "changes", "trades", "symbols", "sequences"
        rows = {kind: msgspec.json.decode(parameters[kind]) for kind in kinds}
        place = parameters["topic"], parameters["partition"]
        is_here = self.progress[place] == parameters["first_offset"] or not self.is_fenced
        if not is_here or any((change["id"], change["symbolId"]) not in self.orders for change in rows["changes"]):
            return [(0,)]
        repeated = [trade["id"] for trade in rows["trades"] if trade["id"] in self.trades]
        if repeated:
            raise psycopg2.IntegrityError(f"duplicate key {repeated}")
        self.progress[place], self.digests[place] = parameters["next_offset"], parameters["last_digest"]
        for order in rows["orders"]:
            self._upsert(order)
        for change in rows["changes"]:
            self._change(change)
        self.trades.update((trade["id"], trade) for trade in rows["trades"])
        self.symbols.update((symbol["id"], symbol) for symbol in rows["symbols"])
        for row in rows["sequences"]:
            self.sequences[row["symbolId"]] = place[1], row["sequence"]
        return [(1,)]

    def _upsert(self, order: Row) -> None:
        there = self.orders.get((order["id"], order["symbolId"]))
        if there is None or (
            there["sequence"] < order["sequence"] and (order["status"] != "REJECTED" or there["status"] == "REJECTED")
        ):
            self.orders[order["id"], order["symbolId"]] = order

    def _change(self, change: Row) -> None:
        row = self.orders[change["id"], change["symbolId"]]
        if row["sequence"] < change["sequence"]:
            row.update((name, value) for name, value in change.items() if value is not None or name not in _KEPT)


class SimPostgres:
    """A worker's way to the tables, as `forkast_streams.storage.postgres.Postgres`: it may break at any moment."""

    def __init__(self, process: Process, tables: Tables) -> None:
        self._process = process
        self._tables = tables
        self.outage_until = 0

    async def fetch(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement; a lost connection leaves open whether it ran."""
        process, world = self._process, self._process.world
        writes = statement == query("persist_events")
        if writes:
            world.point("sink: before the transaction", process)

        def arrive() -> list[tuple[Any, ...]]:
            if writes and process.alive:
                world.point("sink: in the middle of the transaction", process)
                if not process.alive:
                    return []
            if _chance(world, 0.02):
                raise psycopg2.OperationalError("the server closed the connection before the statement")
            rows = self._tables.execute(statement, parameters)
            if writes and process.alive:
                world.point("sink: committed in the database, not answered", process)
            if _chance(world, 0.02):
                raise psycopg2.OperationalError("the server closed the connection, who knows when")
            return rows

        # Each statement has a connection of its own: a later one may overtake it.
        return await world.request(process, process.channel(), process.channel(), arrive)

    async def fetch_prepared(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one of the named statements."""
        return await self.fetch(query(name), parameters)

    async def retrying(self, _what: str, attempt: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Again and again while errors are transient."""
        while True:
            try:
                return await attempt()
            except Exception as exc:
                if not is_transient(exc):
                    raise
                self._process.world.counts["database errors"] += 1
                await asyncio.sleep(0.01)

    def why_not_ready(self) -> str | None:
        """It is always said to be there."""
        return None


def _chance(world: World, probability: float) -> bool:
    return not world.is_calm and world.rng.random() < probability


def is_same_number(left: str | None, right: str | None) -> bool:
    """Whether two decimal texts are one number."""
    return left == right or (left is not None and right is not None and Decimal(left) == Decimal(right))


def is_fence(exc: BaseException) -> bool:
    """Whether a writer stopped because another one writes its partition, too: the fence at work."""
    return isinstance(exc, CorruptLog) and "another worker" in str(exc)
