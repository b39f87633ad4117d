"""What a keeper takes for the books of a log that has lost its end, and what it writes anew."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from faust.types import TP

from agents.keep_market_data import MarketDataKeeper
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.topics import ORDERS_EXCHANGE
from tests.support.flows import PARTITIONS, order_command, symbol_command
from tests.support.market_events import HOME, NEIGHBOUR, SYMBOL, engine_with

_, RECORDS = engine_with([symbol_command(SYMBOL), symbol_command(NEIGHBOUR)])


class Publisher:
    """What is said of Redis, and what is written.

    Attributes:
        redis_has: the sequences that Redis has.
    """

    def __init__(self, state: MarketDataState) -> None:
        self.redis_has: dict[int, int] = {}
        self.state = state
        self.complete: set[int] = set()
        self.written: set[int] = set()

    def own(self, books: Any, partitions: int) -> None:
        """Publish from now on."""
        assert partitions == PARTITIONS
        assert set(books) <= {HOME}
        self.complete.clear()

    def ahead(self) -> set[int]:
        """Those that Redis has more of than the state."""
        books = self.state.books
        return {known for known, has in self.redis_has.items() if known in books and has > books[known].sequence}

    def write_anew(self, symbol_ids: Iterable[int]) -> None:
        """Remember them."""
        self.written |= set(symbol_ids)

    def caught_up(self, partition: int) -> None:
        """Remember it."""
        self.complete.add(partition)


class World:
    """A keeper with one partition, and the end of its log."""

    def __init__(self, state: MarketDataState, end: int) -> None:
        self.end = end
        self.asked = 0
        self.state = state
        self.publisher = Publisher(state)
        app = SimpleNamespace(consumer=self)
        self.keeper = MarketDataKeeper(cast("Any", app), cast("Any", self), cast("Any", self.publisher))

    async def partition_count(self, _topic: str) -> int:
        """Of all partitions this is one."""
        return PARTITIONS

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        """The end of the partition."""
        assert tps == (TP(ORDERS_EXCHANGE, HOME),)
        self.asked += 1
        return {tps[0]: self.end}

    async def look(self) -> None:
        """Let the keeper look at Redis once."""
        await self.keeper._look()


def _state_at(offset: int) -> MarketDataState:
    state = MarketDataState(HOME)
    state.apply(RECORDS[:offset])
    return state


async def test_redis_that_is_ahead_of_all_of_the_log_is_wrong() -> None:
    """Only the symbol of which it has too much is written anew."""
    world = World(_state_at(2), end=2)
    await world.keeper.own({HOME: world.state})
    world.publisher.redis_has = {SYMBOL: 7, NEIGHBOUR: 1}
    await world.look()
    assert world.publisher.written == {SYMBOL}


async def test_redis_that_is_ahead_of_a_keeper_only_is_right() -> None:
    """The log has what Redis has: the keeper was paused, or starts again. It is waited for."""
    world = World(_state_at(1), end=2)
    symbol_id = next(iter(world.state.books))
    await world.keeper.own({HOME: world.state})
    world.publisher.redis_has = {symbol_id: 2}
    for _ in range(3):
        await world.look()
    assert (world.asked, world.publisher.complete) == (1, set())
    world.state.apply(RECORDS[1:])
    world.publisher.redis_has = {symbol_id: world.state.books[symbol_id].sequence}
    await world.look()
    assert (world.publisher.written, world.publisher.complete) == (set(), {HOME})


async def test_redis_that_gets_ahead_after_the_look_is_looked_at_again() -> None:
    """By another keeper, of what the log did not have before; that says nothing of the log."""
    world = World(_state_at(1), end=2)
    await world.keeper.own({HOME: world.state})
    await world.look()
    world.state.apply(RECORDS[1:])
    world.end = 3
    world.publisher.redis_has = {SYMBOL: 2}
    await world.look()
    assert world.publisher.written == set()
    await world.look()
    assert (world.asked, world.publisher.written) == (2, set())


async def test_a_partition_that_is_read_from_its_beginning_is_written_anew_once() -> None:
    """Redis may have the books of another log with the same beginning, that this one has passed already."""
    world = World(MarketDataState(HOME), end=2)
    await world.keeper.own({HOME: world.state})
    world.state.apply(RECORDS)
    await world.look()
    assert world.publisher.written == {SYMBOL, NEIGHBOUR}
    world.publisher.written.clear()
    await world.look()
    assert (world.asked, world.publisher.written) == (1, set())


async def test_nothing_is_written_of_partitions_that_go_meanwhile() -> None:
    """They are another keeper's."""
    world = World(MarketDataState(HOME), end=2)
    await world.keeper.own({HOME: world.state})
    await world.look()
    await world.keeper.own({})
    world.state.apply(RECORDS)
    await world.look()
    assert (world.publisher.written, world.publisher.complete) == (set(), set())


async def test_a_keeper_at_a_log_that_ends_inside_a_command_waits_and_has_read_it_all() -> None:
    """Its place stays at the command's first event for as long as the engine is away: that is no stall."""
    orders = [
        order_command(id=str(UUID(int=1)), side="SELL", price="101"),
        order_command(id=str(UUID(int=2)), userId=2, price="101"),
    ]
    records = engine_with([symbol_command(SYMBOL), *orders])[1]
    state = MarketDataState(HOME)
    state.apply(records[:3])
    world = World(state, end=3)
    await world.keeper.own({HOME: state})
    assert (state.next_offset, state.read_offset) == (2, 3)
    assert f"{ORDERS_EXCHANGE}-{HOME} ends inside a command" in (world.keeper.why_waiting() or "")
    await world.look()
    assert world.publisher.complete == {HOME}
    state.apply(records[3:])
    assert world.keeper.why_waiting() is None
