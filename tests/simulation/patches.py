"""Puts simulated things where the product's modules have real ones, for the time of one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import patch

import agents.checkpointed
import agents.heartbeats
import agents.keep_market_data
import agents.match_orders
import agents.persist_events
import forkast_streams.breaker
import forkast_streams.checkpoint
import forkast_streams.market_data.book
import forkast_streams.market_data.changes
import forkast_streams.market_data.state
import forkast_streams.orders.claims
import forkast_streams.orders.command_log
import forkast_streams.orders.pending
import tables.segments
from forkast_streams.market_data.book import SymbolBook
from forkast_streams.market_data.changes import BookChange
from tests.simulation import disk
from tests.simulation.database import SimPostgres, Tables
from tests.simulation.disk import SimTable
from tests.simulation.log import SimEventProducer
from tests.simulation.world import START_MS, Killed, Violation, World


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Let time, chance, disks and the end of a process be those of ``world``; make everything happen often."""
    rng = world.rng

    def fail_fast(what: str, exc: BaseException) -> NoReturn:
        process = world.current
        assert process is not None
        if isinstance(exc, Violation):
            world.failure = world.failure or exc
        else:
            world.on_stopped(process, what, exc)
        raise Killed

    no_collector = SimpleNamespace(
        **dict.fromkeys(("freeze", "unfreeze", "collect", "enable", "disable"), lambda: None)
    )
    clock = SimpleNamespace(monotonic=lambda: world.now, time=lambda: START_MS / 1000 + world.now + world.clock_skew_s)
    replaced: list[tuple[Any, str, object]] = [
        (agents.checkpointed, "time", clock),
        (agents.heartbeats, "time", clock),
        (forkast_streams.breaker, "time", clock),
        (forkast_streams.orders.command_log, "time", clock),
        (forkast_streams.orders.command_log, "_SEND_S_MAX", 0.4),
        (forkast_streams.orders.claims, "_PLACED_MAX", rng.choice([3, 1000])),
        (forkast_streams.orders.pending, "_OWN_MAX", rng.choice([5, 1000])),
        (agents.heartbeats, "HEARTBEAT_INTERVAL_S", 0.2),
        (agents.checkpointed, "gc", no_collector),
        (agents.checkpointed, "random", SimpleNamespace(getrandbits=rng.getrandbits)),
        (agents.checkpointed, "fail_fast", fail_fast),
        (agents.checkpointed, "CHECKPOINT_INTERVAL_S", rng.choice([0.02, 0.1, 0.4])),
        (agents.checkpointed, "CHECKPOINT_RECORDS_MAX", rng.choice([5, 20, 1000])),
        (agents.persist_events, "fail_fast", fail_fast),
        (agents.persist_events, "WRITE_EVENTS_MAX", rng.choice([5, 20, 1000])),
        (agents.persist_events, "WAITING_EVENTS_MAX", rng.choice([20, 1000])),
        (forkast_streams.checkpoint, "CHECKPOINT_CHUNK_BYTES", rng.choice([320, 1024])),
        (forkast_streams.checkpoint, "BASE_SLICE_MIN", rng.choice([1, 3, 8])),
        (forkast_streams.checkpoint, "BASE_SLICES_MAX", rng.choice([2, 5])),
        (forkast_streams.checkpoint, "JOURNAL_ROWS_MAX", rng.choice([2, 5])),
        (forkast_streams.market_data.book, "TAPE_TRADES", 7),
        (forkast_streams.market_data.changes, "TAPE_TRADES", 7),
        (forkast_streams.market_data.state, "TAPE_TRADES", 7),
        (tables.segments, "rocksdict", SimpleNamespace(WriteBatch=disk.WriteBatch)),
        (tables.segments, "log", SimpleNamespace(warning=lambda *_: None)),
        (agents.checkpointed, "log", SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)),
        (forkast_streams.orders.pending, "log", SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)),
        (agents.persist_events, "log", SimpleNamespace(info=lambda *_: None, warning=lambda *_: None)),
    ]
    with ExitStack() as stack:
        for module, name, value in replaced:
            stack.enter_context(patch.object(module, name, value))
        yield


def register_engine(app: Any) -> None:
    """The engine's own wiring on simulated things."""
    with (
        patch.object(agents.match_orders, "EventProducer", lambda *_, **__: SimEventProducer(app.process, app.log)),
        patch.object(agents.match_orders, "SegmentTable", SimTable),
    ):
        agents.match_orders.register(app)


def register_sink(app: Any, database: Tables) -> None:
    """The sink's own wiring on simulated things."""
    with patch.object(agents.persist_events, "Postgres", lambda *_, **__: SimPostgres(app.process, database)):
        agents.persist_events.register(app)


def register_keeper(app: Any, public: Mapping[int, PublicBook]) -> None:
    """The keeper's own wiring on simulated things."""
    with (
        patch.object(agents.keep_market_data, "EventProducer", lambda *_, **__: SimEventProducer(app.process, app.log)),
        patch.object(agents.keep_market_data, "SegmentTable", SimTable),
        patch.object(agents.keep_market_data, "RedisPublisher", lambda *_, **__: SimPublisher(public)),
    ):
        agents.keep_market_data.register(app)


class PublicBook:
    """A book as a reader of changes has it (I-13): it takes what it can use and asks for the whole when it cannot."""

    def __init__(self) -> None:
        self.sequence = 0
        self.sides: dict[str, dict[str, tuple[str, int]]] = {"BUY": {}, "SELL": {}}
        self.trades: dict[int, Any] = {}
        self._seen: dict[int, dict[str, dict[str, tuple[str, int]]]] = {}

    def offer(self, change: BookChange) -> bool:
        """Apply ``change``; False when something between it and the book is missing."""
        if change.sequence <= self.sequence:
            return True
        if change.previous > self.sequence:
            return False
        if not change.previous:
            self.sides = {"BUY": {}, "SELL": {}}
        for side, levels in (("BUY", change.buy), ("SELL", change.sell)):
            for price, state in levels.items():
                if state[1]:
                    self.sides[side][price] = state
                else:
                    self.sides[side].pop(price, None)
        self.trades.update((trade.sequence, trade) for trade in change.trades)
        self.sequence = change.sequence
        self.check()
        return True

    def check(self) -> None:
        """Who keeps a book, and however its changes were merged, it is one book at one sequence (I-12)."""
        sides = {side: dict(levels) for side, levels in self.sides.items()}
        seen = self._seen.setdefault(self.sequence, sides)
        if seen != sides:
            raise Violation(f"I-12: readers have two books at {self.sequence}:\n{seen}\n{sides}")


class SimPublisher:
    """The keeper's publisher straight to one reader."""

    def __init__(self, public: Mapping[int, PublicBook]) -> None:
        self._public = public
        self._books: dict[int, SymbolBook] = {}

    def own(self, books: Mapping[int, Mapping[int, SymbolBook]], _partitions: int) -> None:
        """Publish whole books."""
        self._books = {symbol_id: book for of_partition in books.values() for symbol_id, book in of_partition.items()}
        for of_partition in books.values():
            for symbol_id, book in of_partition.items():
                self._public[symbol_id].offer(book.whole())

    def ahead(self) -> set[int]:
        """The log loses nothing."""
        return set()

    def caught_up(self, _partition: int) -> None:
        """Nobody asks for what there is not."""

    def write_anew(self, symbol_ids: Iterable[int]) -> None:
        """Publish whole books again."""
        for symbol_id in symbol_ids:
            self._public[symbol_id].offer(self._books[symbol_id].whole())

    def publish(self, changes: list[BookChange], books: Mapping[int, SymbolBook]) -> None:
        """Publish changes, and the whole book where the reader lacks something."""
        for change in changes:
            self._books[change.symbol_id] = books[change.symbol_id]
            if not self._public[change.symbol_id].offer(change):
                self._public[change.symbol_id].offer(books[change.symbol_id].whole())

    def why_not_ready(self) -> str | None:
        """It is always there."""
        return None
