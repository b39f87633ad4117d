"""The fold of events into depth and tape."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest

from forkast_streams.errors import CorruptLog
from forkast_streams.limits import TAPE_TRADES
from forkast_streams.market_data.changes import GONE
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.records import record_digest
from forkast_streams.wire_events import decode_event
from tests.support.flows import order_command, symbol_command
from tests.support.market_events import (
    HOME,
    NEIGHBOUR,
    SYMBOL,
    Depth,
    EventRecord,
    apply_change,
    depth_of,
    depth_of_engine,
    engine_with,
    is_crossed,
    two_symbol_flow,
)

BID, ASK = str(UUID(int=1001)), str(UUID(int=1002))


def orders(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Orders with ids of their own behind the definition of the symbol."""
    return [symbol_command(SYMBOL)] + [
        change if "command" in change else order_command(SYMBOL, **{"id": str(UUID(int=at))} | change)
        for at, change in enumerate(changes)
    ]


SELL_10 = {"id": ASK, "side": "SELL", "quantity": 10, "price": "101.00"}
BUY_4 = {"id": BID, "quantity": 4, "price": "101.50"}


@pytest.mark.parametrize(
    ("commands", "buy", "sell"),
    [
        ([BUY_4], {"101.50": ("4", 1)}, {}),
        ([BUY_4, {"quantity": 3, "price": "101.5"}], {"101.50": ("7", 2)}, {}),
        ([SELL_10, BUY_4], {}, {"101.00": ("6", 1)}),
        ([SELL_10, BUY_4 | {"quantity": 10}], {}, {}),
        ([SELL_10, BUY_4 | {"quantity": 15}], {"101.50": ("5", 1)}, {}),
        ([SELL_10, BUY_4 | {"quantity": 15, "timeInForce": "IOC"}], {}, {}),
        ([SELL_10, BUY_4 | {"type": "MARKET", "price": None}], {}, {"101.00": ("6", 1)}),
        ([SELL_10, {"command": "CANCEL", "symbolId": 1, "orderId": ASK, "userId": 2}], {}, {}),
        (
            [SELL_10, {"command": "AMEND", "symbolId": 1, "orderId": ASK, "userId": 2, "quantity": 3}],
            {},
            {"101.00": ("3", 1)},
        ),
        (
            [SELL_10, BUY_4, {"command": "AMEND", "symbolId": 1, "orderId": ASK, "userId": 2, "price": "102"}],
            {},
            {"102.00": ("6", 1)},
        ),
        (
            [
                {"id": BID, "quantity": 5, "price": "100"},
                SELL_10,
                {"command": "AMEND", "symbolId": 1, "orderId": ASK, "userId": 2, "price": "100"},
            ],
            {},
            {"100.00": ("5", 1)},
        ),
        ([BUY_4, {"quantity": 0}], {"101.50": ("4", 1)}, {}),
    ],
)
def test_depth(commands: list[dict[str, Any]], buy: dict[str, Any], sell: dict[str, Any]) -> None:
    """Depth is what is open at each price and in how many orders, whatever happened to them."""
    state = MarketDataState(HOME)
    state.apply(engine_with(orders(*commands))[1])
    assert depth_of(state.books[SYMBOL]) == {"BUY": buy, "SELL": sell}


def test_depth_is_the_engines_after_thousands_of_commands() -> None:
    """Depth folded from events equals the engine's own books, for limit, market, cancel, amend and refused orders."""
    engine, records = engine_with(two_symbol_flow(6_000))
    state = MarketDataState(HOME)
    state.apply(records)
    for symbol_id in (SYMBOL, NEIGHBOUR):
        expected = depth_of_engine(engine, symbol_id)
        assert expected["BUY"]
        assert depth_of(state.books[symbol_id]) == expected


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_changes_rebuild_the_book_and_never_cross(size: int) -> None:
    """A reader that applies each change has the book, and what it has is never crossed, wherever batches are cut."""
    engine, records = engine_with(two_symbol_flow(2_000))
    state = MarketDataState(HOME)
    seen: dict[int, Depth] = {symbol: {"BUY": {}, "SELL": {}} for symbol in (SYMBOL, NEIGHBOUR)}
    last = dict.fromkeys(seen, 0)
    for at in range(0, len(records), size):
        for change in state.apply(records[at : at + size]):
            assert change.previous == last[change.symbol_id] < change.sequence
            last[change.symbol_id] = change.sequence
            apply_change(seen[change.symbol_id], change)
            assert not is_crossed(seen[change.symbol_id])
    assert seen == {symbol: depth_of_engine(engine, symbol) for symbol in seen}


def test_incomplete_command_is_shown_when_its_rest_arrives() -> None:
    """Of an order and its trade nothing is seen before the trade is there."""
    records = engine_with(orders(SELL_10, BUY_4))[1]
    state = MarketDataState(HOME)
    [change] = state.apply(records[:3])
    assert (change.sequence, change.buy, change.trades) == (2, {}, [])
    [change] = state.apply(records[3:])
    assert (change.previous, change.sequence) == (2, 4)
    assert (change.buy, change.sell) == ({"101.50": GONE}, {"101.00": ("6", 1)})
    assert [trade.quantity for trade in change.trades] == ["4"]


def test_repeated_events_change_nothing() -> None:
    """After a crash of the engine events come again; the second time they are dropped."""
    records = engine_with(orders(SELL_10, BUY_4))[1]
    repeated = [EventRecord(at, record.value) for at, record in enumerate(records[:3] + records[1:] + records)]
    state = MarketDataState(HOME)
    state.apply(repeated)
    assert depth_of(state.books[SYMBOL]) == {"BUY": {}, "SELL": {"101.00": ("6", 1)}}
    assert len(state.books[SYMBOL].tape()) == 1


def test_rejected_command_is_no_change() -> None:
    """Readers hear nothing of a command that was refused."""
    records = engine_with(orders(SELL_10, {"quantity": 0}))[1]
    state = MarketDataState(HOME)
    state.apply(records[:2])
    assert state.apply(records[2:]) == []


def test_tape_holds_the_last_trades_without_anybodys_ids() -> None:
    """The tape is bounded, in order, and names no user and no order."""
    wash = [SELL_10 | {"quantity": 1}, BUY_4 | {"quantity": 1}] * (TAPE_TRADES + 5)
    commands = orders(*(order | {"id": str(UUID(int=at))} for at, order in enumerate(wash)))
    state = MarketDataState(HOME)
    changes = state.apply(engine_with(commands)[1])
    tape = state.books[SYMBOL].tape()
    assert len(tape) == TAPE_TRADES
    assert tape == sorted(tape, key=lambda trade: trade.sequence) == changes[0].trades
    assert state.books[SYMBOL].trade_count == TAPE_TRADES + 5
    assert tape[0].__struct_fields__ == ("trade_id", "price", "quantity", "taker_side", "timestamp", "sequence")


def changed_event(record: EventRecord, **changes: Any) -> EventRecord:
    """The record with other fields in its envelope."""
    assert record.value is not None
    return EventRecord(record.offset, json.dumps(json.loads(record.value) | changes).encode())


def as_cancel(record: EventRecord) -> EventRecord:
    """The order of an ORDER event as cancelled, as if it had been in the book."""
    assert record.value is not None
    data = json.loads(record.value)["data"] | {"status": "CANCELLED", "reason": "USER"}
    return changed_event(record, type="CANCEL", data=data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda records: records[:1] + records[2:], "offset 2, expected 1"),
        (lambda records: [records[0], changed_event(records[1], sequence=3)], "sequence 3 after 1"),
        (lambda records: [records[0], EventRecord(1, b"{}")], "no event"),
        (lambda records: [records[0], EventRecord(1, None)], "no value"),
        (
            lambda records: [
                records[0],
                as_cancel(records[1]),
            ],
            "takes more from SELL 101.00",
        ),
    ],
)
def test_log_that_contradicts_itself_is_refused(spoil: Any, message: str) -> None:
    """Holes, foreign bytes and impossible events stop the reader instead of spoiling the book."""
    records = engine_with(orders(SELL_10, BUY_4))[1]
    with pytest.raises(CorruptLog, match=message):
        MarketDataState(HOME).apply(spoil(records))


def test_a_restored_keeper_knows_which_record_was_the_last() -> None:
    """A checkpoint of an earlier version, which has the books alone, does not say."""
    records = engine_with(orders(SELL_10))[1]
    state = MarketDataState(HOME)
    assert state.last_digest is None
    state.apply(records)
    entries, _ = state.drain_changes()
    for head, known in ((state.head(), record_digest(records[-1])), (state.head()["books"], None)):
        restored = MarketDataState.restore(HOME, state.next_offset, head, entries, [])
        assert restored.last_digest == known
        assert restored.head()["books"] == state.head()["books"]


def test_an_event_that_comes_again_otherwise_stops_the_keeper() -> None:
    """Dropping it would hide that the log tells two stories; a true repeat before it is dropped."""
    records = engine_with(orders(SELL_10, BUY_4))[1]
    state = MarketDataState(HOME)
    state.apply(records)
    again = [EventRecord(len(records) + at, record.value) for at, record in enumerate(records)]
    assert state.apply(again) == []
    other = changed_event(EventRecord(2 * len(records), records[1].value), timestamp=1)
    with pytest.raises(CorruptLog, match="two different events with sequence 2"):
        state.apply([other])


def test_a_checkpoint_inside_a_command_is_that_of_its_beginning() -> None:
    """However long the command: of its events nothing is repeated with each checkpoint; a restart reads them again."""
    resting = [SELL_10 | {"id": str(UUID(int=at + 1))} for at in range(50)]
    cancel_all = {"command": "CANCEL_ALL", "symbolId": SYMBOL, "userId": 2}
    records = engine_with([*orders(*resting), cancel_all])[1]
    begun = 1 + len(resting)
    state = MarketDataState(HOME)
    state.apply(records[:begun])
    live, _ = state.drain_changes()
    before = state.head()
    state.apply(records[begun : begun + 20])
    assert (state.next_offset, state.head(), state.drain_changes()) == (begun, before, ([], []))
    restored = MarketDataState.restore(HOME, state.next_offset, state.head(), live, [])
    # What a partition that was let go and comes back reads again is known already.
    for reader in (restored, state):
        [change] = reader.apply(records[begun:])
        assert (change.previous, change.sequence) == (begun, len(records))
        assert depth_of(reader.books[SYMBOL]) == {"BUY": {}, "SELL": {}}
        assert reader.next_offset == len(records)


def test_a_checkpoint_of_an_earlier_version_goes_on_inside_its_command() -> None:
    """It has the events of the command; none is made before the command is complete, as its beginning is not known."""
    records = engine_with(orders(SELL_10, BUY_4))[1]
    state = MarketDataState(HOME)
    state.apply(records[:2])
    live, _ = state.drain_changes()
    head = state.head()["books"]
    head[0].append([msgspec.to_builtins(decode_event(records[2].value))])
    restored = MarketDataState.restore(HOME, 3, head, live, [])
    assert restored.next_offset == 3
    [change] = restored.apply(records[3:])
    assert (change.previous, change.sequence, restored.next_offset) == (2, 4, 4)
    assert depth_of(restored.books[SYMBOL]) == {"BUY": {}, "SELL": {"101.00": ("6", 1)}}
