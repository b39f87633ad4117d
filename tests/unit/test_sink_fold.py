"""The fold of events into rows: last states, repeats, holes, and what a rejection may touch."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.records import record_digest
from forkast_streams.repeats import RecentEvents
from forkast_streams.sink.fold import OrderChange, OrderRow, SymbolRow, Write, fold
from forkast_streams.wire_events import TradeEvent, decode_event
from tests.support.flows import (
    PARTITIONS,
    START_MS,
    Record,
    home_of,
    mixed_flow,
    order_command,
    records_of,
    symbol_command,
)
from tests.support.hand_written import (
    Event,
    amend,
    cancel,
    order,
    order_id,
    records,
    reject,
    show,
    trade,
    trigger,
)

EPOCH_9999_END_MS = 253_402_300_799_999
A = "00000000-0000-0000-0000-00000000000a"
B = "00000000-0000-0000-0000-00000000000b"


def events_of(commands: list[dict[str, Any]]) -> list[Record]:
    """The engine's own events for ``commands`` behind the definition of symbol 1, as records from offset 0."""
    outputs = EnginePartition(home_of(1), PARTITIONS).process(records_of([symbol_command(1), *commands]))
    assert not outputs.dead
    return [Record(at, event.timestamp, event.key, event.value) for at, event in enumerate(outputs.events)]


def written(records: list[Record], next_offset: int, sequences: dict[int, int]) -> Write:
    """The write of records with nothing read before them."""
    return fold(records, next_offset, sequences, RecentEvents())


def folded(*commands: dict[str, Any]) -> Write:
    """All events of ``commands`` in one write."""
    return written(events_of(list(commands)), 0, {})


def test_a_write_tells_which_record_is_the_last() -> None:
    """Also where that is a repeat; known records in front do not count."""
    records = events_of([order_command(id=A)])
    write = written(records, 0, {})
    assert write.last_digest == record_digest(records[-1])
    again = [Record(2, START_MS + 9, records[0].key, records[0].value)]
    assert written(records + again, 2, {1: 2}).last_digest == record_digest(again[0])
    assert written(records, 2, {1: 2}).last_digest is None


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
    rows = written(events[2:], 2, {1: 2}).rows
    assert [order.id for order in rows.orders] == [B]
    assert rows.changes == [OrderChange(A, 1, "4", "PARTIALLY_FILLED", 4, START_MS + 2, executed_at=START_MS + 2)]


def test_amend_and_cancel_change_price_quantity_status_and_reason() -> None:
    """An amendment brings price and quantity, a cancellation the reason; what neither names stays."""
    amend = {"command": "AMEND", "symbolId": 1, "orderId": A, "userId": 1, "price": "99.50", "quantity": 7}
    cancel = {"command": "CANCEL", "symbolId": 1, "orderId": A, "userId": 1}
    events = events_of([BUY_10, amend, cancel])
    [change] = written(events[2:], 2, {1: 2}).rows.changes
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
    rows = written(events[2:], 2, {1: 2}).rows
    assert (rows.orders, rows.changes, rows.trades) == ([], [], [])
    assert [(row.symbol_id, row.sequence) for row in rows.sequences] == [(1, 3)]


def test_repeats_are_dropped() -> None:
    """Events that come again, within a batch or from before it, change nothing but the offset."""
    events = events_of([BUY_10, SELL_4])
    repeats = [Record(len(events) + at, e.timestamp, e.key, e.value) for at, e in enumerate(events)]
    once, twice = written(events, 0, {}), written(events + repeats, 0, {})
    assert twice.rows == once.rows
    assert twice.next_offset == 2 * len(events)
    assert written(repeats, len(events), {1: 4}).rows == written([], 0, {}).rows


def test_the_known_prefix_of_a_batch_is_dropped() -> None:
    """Records before the tables' place are not even decoded."""
    events = events_of([BUY_10, SELL_4])
    damaged = [Record(at, 0, b"1", b"no event") for at in range(2)]
    assert written(damaged + events[2:], 2, {1: 2}) == written(events[2:], 2, {1: 2})


@pytest.mark.parametrize(
    ("value", "says"), [(None, "no value"), (b"{}", "no event"), (b"\xff", "no event"), (b"[" * 9_999, "no event")]
)
def test_what_is_no_event_stops_the_sink(value: bytes | None, says: str) -> None:
    """Only the engine writes this topic: damage is never skipped."""
    with pytest.raises(CorruptLog, match=says):
        written([Record(0, 0, b"1", value)], 0, {})


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_hole_in_the_sequence_stops_the_sink(missing: int) -> None:
    """An event that is gone is found by the next one, also when it is the symbol's first."""
    events = events_of([BUY_10, SELL_4])
    left = [Record(at, e.timestamp, e.key, e.value) for at, e in enumerate(events[:missing] + events[missing + 1 :])]
    with pytest.raises(CorruptLog, match=f"sequence {missing + 2} at offset {missing}, expected {missing + 1}"):
        written(left, 0, {})


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_hole_in_the_offsets_stops_the_sink(missing: int) -> None:
    """What was not read is never passed over, be it of another symbol: the next start reads it."""
    events = events_of([BUY_10, SELL_4])
    with pytest.raises(CorruptLog, match=f"goes on at offset {missing + 1}, expected {missing}"):
        written(events[:missing] + events[missing + 1 :], 0, {})


def test_a_reused_id_is_the_new_order() -> None:
    """The engine forgets ids after a while; the row is then that of the order the id means now."""
    events = events_of([BUY_10, SELL_4])
    again = msgspec.json.decode(events[1].value or b"") | {"sequence": 5}
    rows = written([*events[2:], Record(4, START_MS + 9, b"1", msgspec.json.encode(again))], 2, {1: 2}).rows
    assert [(order.id, order.sequence, order.filled_quantity) for order in rows.orders] == [(B, 4, "4"), (A, 5, "0")]
    assert rows.changes == []


@pytest.mark.parametrize("batch", [1, 7, 100, 5_000])
def test_any_cut_into_batches_gives_the_same_rows(batch: int) -> None:
    """Applied one after the other, the writes of any batch size end in the state that one write has."""
    events = events_of(list(mixed_flow(1_500, seed=3))[1:])
    whole = {order.id: order for order in written(events, 0, {}).rows.orders}
    orders: dict[str, Any] = {}
    trades, sequences = 0, {}
    for at in range(0, len(events), batch):
        rows = written(events[at : at + batch], at, sequences).rows
        sequences = {row.symbol_id: row.sequence for row in rows.sequences}
        trades += len(rows.trades)
        for row in rows.orders:
            orders[row.id] = row
        for change in rows.changes:
            for field, value in msgspec.structs.asdict(change).items():
                if value is not None:
                    setattr(orders[change.id], field, value)
    assert orders == whole
    assert trades == sum(isinstance(decode_event(event.value), TradeEvent) for event in events) > 100


def rows_of(*commands: list[Event]) -> list[OrderRow]:
    """The rows of the orders in events written by hand."""
    return written(records(*commands), 0, {}).rows.orders


STOP_LIMIT = order("stop", "BUY", "103.00", "5", type="STOP_LIMIT", stopPrice="102.00")
TRIGGER = trigger("stop", "BUY", "103.00", "102.00", "5", "102.50")


def test_an_order_is_stored_with_all_that_it_says() -> None:
    """Every field of the wire has its column; what an order does not say is NULL or the default."""
    everything = {
        "stopPrice": "102.00", "expiresAt": START_MS + 99, "postOnly": True, "displayQuantity": "2",
        "selfTradePrevention": "EXPIRE_BOTH", "replaces": A, "timeInForce": "GTD", "type": "STOP_LIMIT",
    }  # fmt: skip
    full, plain = rows_of([order("full", "BUY", "103.00", "5", **everything)], [order("plain", "BUY", "1.00", "5")])
    assert (full.type, full.time_in_force, full.stop_price, full.expires_at) == (
        "STOP_LIMIT", "GTD", "102.00", START_MS + 99
    )  # fmt: skip
    assert (full.post_only, full.display_quantity, full.self_trade_prevention) == (True, "2", "EXPIRE_BOTH")
    assert (full.replaces, full.triggered_at, full.quote_quantity) == (A, None, None)
    assert (plain.stop_price, plain.expires_at, plain.post_only, plain.display_quantity) == (None, None, False, None)
    assert (plain.self_trade_prevention, plain.replaces) == ("EXPIRE_TAKER", None)
    assert b"null" not in msgspec.json.encode(plain)


def test_an_order_for_an_amount_has_no_quantity() -> None:
    """What is left of the amount when it ends changes neither."""
    market = {"type": "MARKET", "quoteQuantity": "250.50"}
    ends = cancel("spends", "BUY", None, None, filledQuantity="2", quoteQuantity="48.50", reason="MARKET")
    [row] = rows_of([order("spends", "BUY", None, None, **market), ends])
    assert (row.quantity, row.quote_quantity, row.filled_quantity) == (None, "250.50", "2")
    assert (row.status, row.reason) == ("CANCELLED", "MARKET")


def test_a_trigger_is_stored_with_its_time() -> None:
    """In the batch of its order as in a later one; the trades behind it change the rest."""
    maker = order("maker", "SELL", "102.50", "5")
    fill = trade(("stop", "5", True), ("maker", "5", True), "BUY", "102.50", "5")
    events = records([STOP_LIMIT], [maker], [TRIGGER, fill])
    stop, _ = written(events, 0, {}).rows.orders
    assert (stop.status, stop.filled_quantity, stop.triggered_at, stop.sequence) == ("FILLED", "5", START_MS + 3, 5)
    [change] = written(events[3:4], 3, {1: 3}).rows.changes
    assert change == OrderChange(
        order_id("stop"), 1, "0", "PENDING", 4, START_MS + 3, triggered_at=START_MS + 3
    )  # fmt: skip


def test_an_amended_stop_order_has_its_new_stop_price() -> None:
    """Both prices move; a STOP still has no price."""
    stops = {"stopPrice": "101.00", "previousStopPrice": "102.00", "shownQuantity": "0", "previousShownQuantity": "0"}
    moved = amend("stop", "BUY", ("103.00", "5"), ("102.00", "6"), **stops)
    [row] = rows_of([STOP_LIMIT], [moved])
    assert (row.price, row.stop_price, row.quantity) == ("102.00", "101.00", "6")
    plain = order("plain", "BUY", None, "5", type="STOP", stopPrice="102.00")
    [row] = rows_of([plain], [amend("plain", "BUY", (None, "5"), (None, "6"), **stops)])
    assert (row.price, row.stop_price, row.quantity) == (None, "101.00", "6")


@pytest.mark.parametrize("reason", ["EXPIRED", "SELF_TRADE"])
def test_an_order_that_expires_ends_so(reason: str) -> None:
    """The status and the reason are the event's."""
    order_then_end = [order("a", "BUY", "1.00", "5"), cancel("a", "BUY", "1.00", "5", status="EXPIRED", reason=reason)]
    [row] = rows_of(order_then_end)
    assert (row.status, row.reason) == ("EXPIRED", reason)


def test_a_refused_replacement_is_a_rejected_order() -> None:
    """The new order is stored as it was sent; the one it should have replaced stays as it is."""
    sent = {
        "id": B, "type": "LIMIT", "side": "BUY", "price": "1e400", "quantity": None, "timeInForce": "GTD",
        "expiresAt": 10**30, "stopPrice": "-1", "displayQuantity": "2.50", "quoteQuantity": "1e-400", "replaces": A,
        "postOnly": True,
    }  # fmt: skip
    kept, refused = rows_of([order("kept", "BUY", "1.00", "5")], [reject("REPLACE", "QUANTITY_REQUIRED", **sent)])
    assert (kept.status, kept.sequence) == ("PENDING", 2)
    assert (refused.id, refused.status, refused.reason) == (B, "REJECTED", "QUANTITY_REQUIRED")
    assert (refused.price, refused.quantity, refused.quote_quantity) == (None, None, None)
    assert (refused.stop_price, refused.display_quantity, refused.replaces) == ("-1", "2.50", A)
    assert (refused.post_only, refused.expires_at) == (True, EPOCH_9999_END_MS)


def test_what_concerns_no_order_only_moves_the_sequence() -> None:
    """Answers to a user, slices that are shown and refused commands of a user change no row."""
    events = records(
        [("CANCEL_AFTER", {"userId": 1, "deadline": None})],
        [("CANCEL_ALL", {"userId": 1, "count": 0, "commandId": "c"})],
        [show("x", "BUY", "1.00", "5", refill=True)],
        [reject("CANCEL_ALL", "SYMBOL_HALTED"), reject("CANCEL_AFTER", "SYMBOL_HALTED")],
        [reject("REPLACE", "DUPLICATE_ORDER", id=A)],
    )
    rows = written(events[1:], 1, {1: 1}).rows
    assert (rows.orders, rows.changes, rows.trades, rows.symbols) == ([], [], [], [])
    assert [(row.symbol_id, row.sequence) for row in rows.sequences] == [(1, 7)]


def test_the_rules_of_a_symbol_are_those_of_its_last_event() -> None:
    """A rule that is not named does not hold any more."""
    names = {"symbol": "SYM", "tickSize": "0.01", "lotSize": "1", "status": "CANCEL_ONLY"}
    ruled = names | {"minQuantity": "2", "maxQuantity": "50", "minNotional": "10.5", "priceCollar": "0.1"}
    [row] = written(records([("SYMBOL", ruled | {"maxOpenOrders": 10**12})]), 0, {}).rows.symbols
    assert row == SymbolRow(
        1, "SYM", "0.01", "1", "CANCEL_ONLY", START_MS + 1, "2", "50", "10.5", "0.1", 2**31 - 1
    )  # fmt: skip
    [row] = written(records([("SYMBOL", ruled)], [("SYMBOL", names)]), 0, {}).rows.symbols
    assert (row.min_quantity, row.max_quantity, row.min_notional, row.price_collar) == (None, None, None, None)


def test_an_event_that_comes_again_otherwise_stops_the_sink() -> None:
    """The same sequence with other content is two stories of one log: within a batch, and batches later."""
    events = records([STOP_LIMIT], [cancel("stop", "BUY", "103.00", "5", shownQuantity="0", stopPrice="102.00")])
    other = (events[1].value or b"").replace(b'"5"', b'"6"')
    assert other != events[1].value
    again = [Record(3, 0, b"1", events[1].value), Record(4, 0, b"1", other)]
    with pytest.raises(CorruptLog, match="two different events with sequence 2"):
        fold(events + again, 0, {}, RecentEvents())
    recent = RecentEvents()
    assert fold(events, 0, {}, recent).next_offset == 3
    assert fold(again[:1], 3, {1: 3}, recent).next_offset == 4
    with pytest.raises(CorruptLog, match="two different events with sequence 2"):
        fold(again[1:], 4, {1: 3}, recent)


def test_a_triggered_stop_keeps_its_stop_price_when_it_is_amended() -> None:
    """Its AMEND names none, and the row has the one it had, whether both are in one batch or not."""
    trade = [order_command(id=B, side="SELL", quantity=1), order_command(id=A, quantity=1)]
    stop = "00000000-0000-0000-0000-00000000000c"
    waiting = order_command(id=stop, type="STOP_LIMIT", price=99, stopPrice=100)
    change = {"command": "AMEND", "symbolId": 1, "orderId": stop, "userId": 1, "quantity": 5}
    rows = folded(*trade, waiting, change).rows
    [row] = [order for order in rows.orders if order.id == stop]
    assert (row.stop_price, row.quantity, row.triggered_at) == ("100.00", "5", START_MS + 3)
