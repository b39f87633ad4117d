"""The engine's partition: what becomes of each kind of record, and that the same input gives the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forkast_streams.checkpoint import Checkpointer
from forkast_streams.engine_partition import STRAY_HEADER, EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.limits import COMMAND_BYTES_MAX, KEY_BYTES_MAX
from forkast_streams.records import Outputs, TransactionMark
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

HOME = home_of(1)


def run(commands: list[dict[str, Any]]) -> Outputs:
    """Outputs of a fresh partition that is home to symbol 1."""
    return EnginePartition(HOME, PARTITIONS).process(records_of(commands))


def run_raw(value: bytes | None, *, key: bytes | None = b"1") -> Outputs:
    """Outputs of one raw record behind the definition of symbol 1."""
    state = EnginePartition(HOME, PARTITIONS)
    state.process(records_of([symbol_command(1)]))
    return state.process([Record(1, START_MS, key, value)])


VALID = json.dumps(order_command()).encode()


def changed(**changes: Any) -> bytes:
    """A valid order with changed fields."""
    return json.dumps(order_command(**changes)).encode()


def _long_price(digits: int) -> bytes:
    return VALID.replace(b'"price": 100', b'"price": 100.' + b"1" * digits)


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (b"1", None, "NULL_VALUE"),
        (b"1", b"\x1f\x8b\x08\x00\x00", "INVALID_JSON"),
        (b"1", b"", "INVALID_JSON"),
        (b"1", VALID + b" x", "INVALID_JSON"),
        (b"1", b"[" * 60_000, "INVALID_SHAPE"),
        (b"1", VALID + b" " * (COMMAND_BYTES_MAX - len(VALID)) + b"x", "TOO_LARGE"),
        (b"1", b"[]", "INVALID_SHAPE"),
        (b"1", b'{"symbolId":1}', "INVALID_ENUM"),
        (b"1", VALID.replace(b'"price": 100', b'"price": NaN'), "INVALID_JSON"),
        (b"1", changed(id="x"), "INVALID_ID"),
        (b"1", changed(id="{00000000-0000-0000-0000-00000000000}"), "INVALID_ID"),
        (b"1", changed(id="00000000-0000-0000-0000-0000000000 1"), "INVALID_ID"),
        (b"1", changed(clientOrderId='a"b'), "INVALID_ID"),
        (b"1", changed(commandId="a\x00"), "INVALID_ID"),
        (b"1", changed(userId=0), "INVALID_USER"),
        (b"1", changed(userId="1"), "INVALID_SHAPE"),
        (b"1", changed(type="STOPLOSS"), "INVALID_ENUM"),
        (b"1", changed(side="buy"), "INVALID_ENUM"),
        (b"1", changed(timeInForce="DAY"), "INVALID_ENUM"),
        (b"1", changed(command="EXPLODE"), "UNKNOWN_COMMAND"),
        (b"1", changed(quantity=True), "INVALID_TYPE"),
        (b"1", changed(quantity=[10]), "INVALID_TYPE"),
        (b"1", changed(quantity="1_0"), "INVALID_TYPE"),
        (b"1", changed(quantity="١٢"), "INVALID_TYPE"),
        (b"1", changed(price=" 5 "), "INVALID_TYPE"),
        (b"1", changed(price="NaN"), "INVALID_TYPE"),
        (b"1", changed(price={"$gt": 0}), "INVALID_TYPE"),
        (None, VALID, "KEY_MISMATCH"),
        (b"01", VALID, "KEY_MISMATCH"),
        (b"2", VALID, "KEY_MISMATCH"),
    ],
)
def test_record_that_is_no_command_is_dead_lettered(key: bytes | None, value: bytes | None, code: str) -> None:
    """It goes to the dead letters as it was, with its place and a reason, and nothing else happens."""
    outputs = run_raw(value, key=key)
    assert not outputs.events
    [letter] = outputs.dead
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (key, None if value is None else value[:COMMAND_BYTES_MAX])
    assert headers["reason"].decode() == code
    assert (headers["topic"], headers["partition"], headers["offset"]) == (b"orders.new", b"%d" % HOME, b"1")


@pytest.mark.parametrize("key", [b"1", b"1" * 1_000_000])
@pytest.mark.parametrize("value", [b"x" * 1_000_000, _long_price(60_000), _long_price(1_000_000)])
def test_what_a_large_record_leads_to_fits_into_a_record(key: bytes, value: bytes) -> None:
    """Else the broker would refuse it, and the engine could not go on. The letter tells how long it was."""
    outputs = run_raw(value, key=key)
    [output] = outputs.events + outputs.dead
    headers = dict(output.headers)
    told = sum(len(name) + len(text) for name, text in output.headers)
    assert len(output.key or b"") + len(output.value or b"") + told < 100_000
    if outputs.dead:
        assert output.value == value[:COMMAND_BYTES_MAX]
        assert headers.get("value-bytes") == (b"%d" % len(value) if len(value) > COMMAND_BYTES_MAX else None)
        assert headers.get("key-bytes") == (b"%d" % len(key) if len(key) > KEY_BYTES_MAX else None)
    else:
        assert json.loads(output.value or b"")["type"] == "REJECT"


@pytest.mark.parametrize("whole", [VALID + b" " * (COMMAND_BYTES_MAX - len(VALID)), VALID])
def test_command_as_large_as_it_may_be_is_taken(whole: bytes) -> None:
    """Spaces and all."""
    assert [json.loads(event.value or b"")["type"] for event in run_raw(whole).events] == ["ORDER"]


@pytest.mark.parametrize(
    "origin",
    [None, b"", b"x", b"3", b"3:", b":3", b"-1:1", b"3:1:1", b" 3:1", b"3:" + b"9" * 5_000, b"9" * 23 + b":1",
     b"3:" + b"9" * 19, b"%d:1" % PARTITIONS, b"%d:1" % HOME],
)  # fmt: skip
def test_record_that_no_engine_can_have_forwarded_is_dead_lettered(origin: Any) -> None:
    """Whoever may write a record may write its headers: none of them ends an engine, or what it writes down."""
    state = EnginePartition(HOME, PARTITIONS)
    state.process(records_of([symbol_command(1)]))
    outputs = state.process([Record(1, START_MS, b"1", VALID, ((STRAY_HEADER, origin),))])
    assert not outputs.events
    [letter] = outputs.dead
    assert dict(letter.headers)["reason"] == b"INVALID_ORIGIN"
    Checkpointer(HOME, 1).cut(state)
    assert len(state.process([Record(2, START_MS, b"1", VALID)]).events) == 1


def test_forwarded_record_is_not_forwarded_again() -> None:
    """Who copies one to a partition that is not its own has engines make no second one of it."""
    other = (HOME + 2) % PARTITIONS
    outputs = EnginePartition(other, PARTITIONS).process(
        [Record(0, START_MS, b"1", VALID, ((STRAY_HEADER, b"%d:0" % HOME),))]
    )
    assert not outputs.strays
    [letter] = outputs.dead
    assert dict(letter.headers)["reason"] == b"INVALID_ORIGIN"


def test_unknown_symbol_is_dead_lettered() -> None:
    """An order for a symbol that was never defined cannot be taken."""
    [letter] = run([order_command()]).dead
    assert dict(letter.headers)["reason"] == b"UNKNOWN_SYMBOL"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"price": 0}, "INVALID_PRICE"),
        ({"price": -1}, "INVALID_PRICE"),
        ({"price": "1000000000.01"}, "INVALID_PRICE"),
        ({"price": "100.001"}, "INVALID_TICK"),
        ({"price": None}, "PRICE_REQUIRED"),
        ({"type": "MARKET"}, "PRICE_NOT_ALLOWED"),
        ({"quantity": 0}, "INVALID_QUANTITY"),
        ({"quantity": 2**63}, "INVALID_QUANTITY"),
        ({"quantity": 0.5}, "INVALID_LOT"),
    ],
)
def test_order_against_the_rules_is_rejected(changes: dict[str, Any], code: str) -> None:
    """It is answered by a REJECT with the rule's code and the order as it was sent."""
    outputs = run([symbol_command(1), order_command(**changes)])
    event = json.loads(outputs.events[1].value or b"")
    assert event["type"] == "REJECT"
    assert event["data"]["code"] == code
    assert event["data"]["side"] == "BUY"


@pytest.mark.parametrize("text", [b"1e400", b"1e-400", b"0.30000000000000004", b"100.00000000000000000001", b"9" * 400])
def test_absurd_json_numbers_never_reach_the_book(text: bytes) -> None:
    """A number is read exactly from its text: it is rejected or dead-lettered, never rounded into a price."""
    outputs = run_raw(VALID.replace(b'"price": 100', b'"price": ' + text))
    kinds = [json.loads(event.value or b"")["type"] for event in outputs.events]
    assert kinds == ["REJECT"] or (not kinds and len(outputs.dead) == 1)


def test_same_order_id_twice_is_one_order() -> None:
    """The second one is rejected, whatever else it says."""
    outputs = run([symbol_command(1), order_command(), order_command(quantity=5)])
    types = [json.loads(event.value or b"")["type"] for event in outputs.events]
    assert types == ["SYMBOL", "ORDER", "REJECT"]
    assert json.loads(outputs.events[2].value or b"")["data"]["code"] == "DUPLICATE_ORDER"


def test_rules_that_come_again_leave_a_halted_symbol_halted() -> None:
    """With ``keepStatus`` only a symbol that is new gets the command's status, however the rest changes."""
    again = symbol_command(1, keepStatus=True)
    commands = [again, symbol_command(1, status="HALTED"), again, again | {"tickSize": "0.5"}, again, symbol_command(1)]
    events = [json.loads(event.value or b"")["data"] for event in run(commands).events]
    assert [data["status"] for data in events] == ["TRADING", *["HALTED"] * 4, "TRADING"]
    assert not any("keepStatus" in data for data in events)
    new = run([symbol_command(1, status="CANCEL_ONLY", keepStatus=True), again])
    assert [json.loads(event.value or b"")["data"]["status"] for event in new.events] == ["CANCEL_ONLY"] * 2


def test_stray_is_forwarded_once_to_its_own_partition() -> None:
    """A record on a foreign partition goes home with a header, and home drops it when it comes again."""
    foreign = (HOME + 1) % PARTITIONS
    away = EnginePartition(foreign, PARTITIONS)
    record = Record(0, START_MS, b"1", VALID)
    [(partition, forwarded)] = away.process([record]).strays
    assert partition == HOME
    assert forwarded.headers == ((STRAY_HEADER, b"%d:0" % foreign),)
    home = EnginePartition(HOME, PARTITIONS)
    home.process(records_of([symbol_command(1)]))
    arrivals = [Record(at, START_MS, forwarded.key, forwarded.value, forwarded.headers) for at in (1, 2)]
    assert [json.loads(e.value or b"")["type"] for e in home.process(arrivals).events] == ["ORDER"]


def test_every_record_has_exactly_one_outcome() -> None:
    """Each offset is the source of events or of one dead letter."""
    commands = list(mixed_flow(500))
    records = records_of(commands)
    records[100] = Record(100, START_MS, b"1", b"{")
    outputs = EnginePartition(HOME, PARTITIONS).process(records)
    sources = {json.loads(event.value or b"")["source"]["offset"] for event in outputs.events}
    dead = {int(dict(letter.headers)["offset"]) for letter in outputs.dead}
    assert dead == {100}
    heartbeats = {at for at, command in enumerate(commands) if command.get("command") == "HEARTBEAT"}
    assert (sources | dead) - heartbeats == set(range(500)) - heartbeats
    assert not sources & dead


def test_events_are_numbered_without_a_gap_and_tell_where_their_command_ends() -> None:
    """Sequences go up by one; index and count of the source are those of the command's events."""
    events = [json.loads(e.value or b"") for e in run(list(mixed_flow(800))).events]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    by_offset: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        by_offset.setdefault(event["source"]["offset"], []).append(event["source"])
    for sources in by_offset.values():
        assert [source["index"] for source in sources] == list(range(len(sources)))
        assert {source["count"] for source in sources} == {len(sources)}


def test_batch_size_does_not_matter() -> None:
    """The same records in other batches give the same bytes."""
    records = records_of(mixed_flow(700, seed=9))
    whole = EnginePartition(HOME, PARTITIONS).process(records)
    single = EnginePartition(HOME, PARTITIONS)
    assert [event for record in records for event in single.process([record]).events] == whole.events


def test_time_is_the_logs_and_never_goes_back() -> None:
    """A record time before the last one counts as the last one."""
    state = EnginePartition(HOME, PARTITIONS)
    first = records_of([symbol_command(1)])
    late = Record(1, START_MS - 5_000, b"1", VALID)
    [event] = [*state.process(first).events, *state.process([late]).events][1:]
    assert event.timestamp == START_MS
    assert json.loads(event.value or b"")["timestamp"] == START_MS


def test_heartbeats_are_due_for_a_dead_mans_switch_unless_its_symbol_is_halted() -> None:
    """One that never went off would have a heartbeat sent twice a second for as long as the halt lasts."""
    switch = {"command": "CANCEL_AFTER", "symbolId": 1, "userId": 1, "timeout": 2}
    commands = [
        symbol_command(1), order_command(), switch, symbol_command(1, status="HALTED"),
        {"command": "HEARTBEAT", "symbolId": 1}, symbol_command(1), {"command": "HEARTBEAT", "symbolId": 1},
    ]  # fmt: skip
    state, due = EnginePartition(HOME, PARTITIONS), []
    for record in records_of(commands):
        state.process([record])
        due.append(state.due(START_MS + 100))
    assert due == [[], [], [1], [], [], [1], []]
    assert not state.engine.open_orders.count


def test_known_records_are_dropped_and_a_hole_stops_the_engine() -> None:
    """Records before the state's offset are skipped; records behind a hole are an error."""
    records = records_of(mixed_flow(20))
    state = EnginePartition(HOME, PARTITIONS)
    state.process(records[:10])
    assert not state.process(records[:10]).events
    with pytest.raises(CorruptLog, match="expected 10"):
        state.process(records[11:])


def test_the_mark_of_a_transaction_is_no_hole_and_has_no_outcome() -> None:
    engine = EnginePartition(0, 1)
    symbol = json.dumps(symbol_command(1)).encode()
    outputs = engine.process([Record(0, 1, b"1", symbol), TransactionMark(1, 5, 1)])
    assert (len(outputs.events), len(outputs.dead), engine.next_offset, engine.clock) == (1, 0, 2, 1)


def test_largest_order_of_the_smallest_lot_can_be_checkpointed() -> None:
    """Ticks and lots stay within what a checkpoint holds, at the limits of price, quantity and step."""
    state = EnginePartition(HOME, PARTITIONS)
    extreme = order_command(price="1000000000", quantity="1000000000")
    state.process(records_of([symbol_command(1, tickSize="0.00000001", lotSize="0.00000001"), extreme]))
    assert Checkpointer(HOME, writer=1).cut(state).puts
    [letter] = run([symbol_command(1, lotSize="0.000000001")]).dead
    assert dict(letter.headers)["reason"] == b"INVALID_STEP"
