"""The fold of events into rows: last states, repeats, holes, and what a rejection may touch."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.persistence import OrderChange, Write, fold
from forkast_streams.wire_events import TradeEvent, decode_event
from tests.unit.flows import (
    PARTITIONS,
    START_MS,
    Record,
    home_of,
    mixed_flow,
    order_command,
    records_of,
    symbol_command,
)

A = "00000000-0000-0000-0000-00000000000a"
B = "00000000-0000-0000-0000-00000000000b"


def events_of(commands: list[dict[str, Any]]) -> list[Record]:
    """The engine's own events for ``commands`` behind the definition of symbol 1, as records from offset 0."""
    outputs = EnginePartition(home_of(1), PARTITIONS).process(records_of([symbol_command(1), *commands]))
    assert not outputs.dead
    return [Record(at, event.timestamp, event.key, event.value) for at, event in enumerate(outputs.events)]


def folded(*commands: dict[str, Any]) -> Write:
    """All events of ``commands`` in one write."""
    return fold(events_of(list(commands)), 0, {})


BUY_10 = order_command(id=A)
SELL_4 = order_command(id=B, side="SELL", quantity=4, userId=2)


def test_an_order_and_its_fills_become_one_row_with_the_last_state() -> None:
    """A new order is written once, as it is after the batch; the trade stands beside it."""
    rows = folded(BUY_10, SELL_4).rows
    maker, taker = rows.orders
    assert (maker.status, maker.filled_quantity, maker.sequence) == ("PARTIALLY_FILLED", "4", 4)
    assert (taker.status, taker.filled_quantity, taker.executed_at) == ("FILLED", "4", START_MS + 2)
    assert maker.created_at == START_MS + 1
    assert maker.updated_at == maker.executed_at == START_MS + 2
    [trade] = rows.trades
    assert (trade.buy_order_id, trade.sell_order_id, trade.quantity, trade.price) == (A, B, "4", "100.00")
    assert (trade.sequence, trade.taker_side) == (4, "SELL")
    assert rows.changes == []


def test_an_order_of_an_earlier_batch_is_changed_by_absolute_values() -> None:
    """What is known already becomes a change, with the quantities as they are, not as they differ."""
    events = events_of([BUY_10, SELL_4])
    rows = fold(events[2:], 2, {1: 2}).rows
    assert [order.id for order in rows.orders] == [B]
    assert rows.changes == [OrderChange(A, 1, "4", "PARTIALLY_FILLED", 4, START_MS + 2, executed_at=START_MS + 2)]


def test_amend_and_cancel_change_price_quantity_status_and_reason() -> None:
    """An amendment brings price and quantity, a cancellation the reason; what neither names stays."""
    amend = {"command": "AMEND", "symbolId": 1, "orderId": A, "userId": 1, "price": "99.50", "quantity": 7}
    cancel = {"command": "CANCEL", "symbolId": 1, "orderId": A, "userId": 1}
    events = events_of([BUY_10, amend, cancel])
    [change] = fold(events[2:], 2, {1: 2}).rows.changes
    assert (change.price, change.quantity) == ("99.50", "7")
    assert (change.status, change.reason, change.executed_at) == ("CANCELLED", "USER", None)


@pytest.mark.parametrize(
    ("command", "stored"),
    [
        (order_command(price="100.001"), ("INVALID_TICK", "100.001", "10")),
        (order_command(quantity=-5), ("INVALID_QUANTITY", "100", "-5")),
        (order_command(quantity=10**80), ("INVALID_QUANTITY", "100", "0")),
        (order_command(price=None), ("PRICE_REQUIRED", None, "10")),
        (order_command(price=1e300), ("INVALID_PRICE", None, "10")),
        (order_command(price=1e-300), ("INVALID_TICK", None, "10")),
    ],
)
def test_a_rejected_order_is_kept_as_it_was_sent(command: dict[str, Any], stored: tuple[Any, ...]) -> None:
    """The row has the code as its reason; a number that no column holds is left out."""
    [order] = folded(command).rows.orders
    assert (order.reason, order.price, order.quantity) == stored
    assert (order.status, order.filled_quantity) == ("REJECTED", "0")


@pytest.mark.parametrize(
    "refused",
    [
        BUY_10 | {"price": 1},
        {"command": "CANCEL", "symbolId": 1, "orderId": A, "userId": 9},
        {"command": "AMEND", "symbolId": 1, "orderId": A, "userId": 1, "price": "1.001"},
    ],
)
def test_a_refused_command_leaves_the_order_alone(refused: dict[str, Any]) -> None:
    """A duplicate, and a cancel or amend that is refused, change no row; the sequence goes on."""
    events = events_of([BUY_10, refused])
    assert b'"REJECT"' in (events[2].value or b"")
    rows = fold(events[2:], 2, {1: 2}).rows
    assert (rows.orders, rows.changes, rows.trades) == ([], [], [])
    assert [(row.symbol_id, row.sequence) for row in rows.sequences] == [(1, 3)]


def test_repeats_are_dropped() -> None:
    """Events that come again, within a batch or from before it, change nothing but the offset."""
    events = events_of([BUY_10, SELL_4])
    repeats = [Record(len(events) + at, e.timestamp, e.key, e.value) for at, e in enumerate(events)]
    once, twice = fold(events, 0, {}), fold(events + repeats, 0, {})
    assert twice.rows == once.rows
    assert twice.next_offset == 2 * len(events)
    assert fold(repeats, len(events), {1: 4}).rows == fold([], 0, {}).rows


def test_the_known_prefix_of_a_batch_is_dropped() -> None:
    """Records before the tables' place are not even decoded."""
    events = events_of([BUY_10, SELL_4])
    damaged = [Record(at, 0, b"1", b"no event") for at in range(2)]
    assert fold(damaged + events[2:], 2, {1: 2}) == fold(events[2:], 2, {1: 2})


@pytest.mark.parametrize(
    ("value", "says"), [(None, "no value"), (b"{}", "no event"), (b"\xff", "no event"), (b"[" * 9_999, "no event")]
)
def test_what_is_no_event_stops_the_sink(value: bytes | None, says: str) -> None:
    """Only the engine writes this topic: damage is never skipped."""
    with pytest.raises(CorruptLog, match=says):
        fold([Record(0, 0, b"1", value)], 0, {})


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_hole_in_the_sequence_stops_the_sink(missing: int) -> None:
    """An event that is gone is found by the next one, also when it is the symbol's first."""
    events = events_of([BUY_10, SELL_4])
    with pytest.raises(CorruptLog, match=f"expected {missing + 1}"):
        fold(events[:missing] + events[missing + 1 :], 0, {})


def test_a_reused_id_is_the_new_order() -> None:
    """The engine forgets ids after a while; the row is then that of the order the id means now."""
    events = events_of([BUY_10, SELL_4])
    again = msgspec.json.decode(events[1].value or b"") | {"sequence": 5}
    rows = fold([*events[2:], Record(4, START_MS + 9, b"1", msgspec.json.encode(again))], 2, {1: 2}).rows
    assert [(order.id, order.sequence, order.filled_quantity) for order in rows.orders] == [(B, 4, "4"), (A, 5, "0")]
    assert rows.changes == []


@pytest.mark.parametrize("batch", [1, 7, 100, 5_000])
def test_any_cut_into_batches_gives_the_same_rows(batch: int) -> None:
    """Applied one after the other, the writes of any batch size end in the state that one write has."""
    events = events_of(list(mixed_flow(1_500, seed=3))[1:])
    whole = {order.id: order for order in fold(events, 0, {}).rows.orders}
    orders: dict[str, Any] = {}
    trades, sequences = 0, {}
    for at in range(0, len(events), batch):
        rows = fold(events[at : at + batch], at, sequences).rows
        sequences = {row.symbol_id: row.sequence for row in rows.sequences}
        trades += len(rows.trades)
        for order in rows.orders:
            orders[order.id] = order
        for change in rows.changes:
            for field, value in msgspec.structs.asdict(change).items():
                if value is not None:
                    setattr(orders[change.id], field, value)
    assert orders == whole
    assert trades == sum(isinstance(decode_event(event.value), TradeEvent) for event in events) > 100
