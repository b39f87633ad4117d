"""The audit passes a true log, and catches every damage by the invariant that it breaks."""

from __future__ import annotations

import copy
import json
import random
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from forkast_streams.audit.findings import INVARIANTS
from forkast_streams.audit.records import Record
from tests.unit.audit_world import World
from tests.unit.flows import PARTITIONS, home_of, mixed_flow, order_command, symbol_command

HOME = home_of(1)
FOREIGN = (HOME + 1) % PARTITIONS
OTHER_SYMBOL = 2


@lru_cache(maxsize=1)
def _true_world() -> World:
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
    world.send_command(order_command(id=_id(7_001), price=90), partition=FOREIGN)
    world.send(b"[]", partition=FOREIGN)
    world.send_command(order_command(id=_id(7_002), price=90), partition=FOREIGN)
    world.send_command({"command": "CANCEL", "symbolId": 77, "orderId": _id(1), "userId": 1})
    world.process()
    for topic in (world.events, world.letters):
        records = topic[HOME]
        cut, back = len(records) * 2 // 3, len(records) // 3
        topic[HOME] = records[:cut] + records[back:cut] + records[cut:] + records[-2:]
    return world.derive()


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))


@pytest.fixture
def world() -> World:
    """A true world of the test's own."""
    return copy.deepcopy(_true_world())


@pytest.fixture
def plain() -> World:
    """Two makers at one price, an order that takes the first, one that is cancelled, and one that is refused."""
    world = World()
    world.send_command(symbol_command(1))
    for number, changes in enumerate((
        {"side": "SELL"}, {"side": "SELL", "userId": 2}, {"userId": 3}, {"price": 90, "userId": 4},
        {"id": _id(1)}, {"type": "MARKET", "price": None, "quantity": 25, "userId": 5},
    ), start=1):  # fmt: skip
        world.send_command(order_command(**({"id": _id(number)} | changes)))
    world.send_command({"command": "AMEND", "symbolId": 1, "orderId": _id(4), "userId": 4, "quantity": 15})
    world.send_command({"command": "CANCEL", "symbolId": 1, "orderId": _id(4), "userId": 4})
    return world.process().derive()


def broken(world: World) -> set[str]:
    """The invariants that the audit finds broken."""
    findings = world.audit()
    assert findings.first.keys() == findings.violations.keys() <= INVARIANTS.keys()
    return set(findings.violations)


def test_a_true_log_passes_and_everything_was_looked_at(world: World) -> None:
    """Repeats, poison and strays are no violations; each invariant had something to check."""
    world.journal = [{"status": 201, "orderId": _id(7_001), "userId": 1, "clientOrderId": "a"}]
    findings = world.audit()
    assert findings.is_clean, findings.first
    assert {name for name in INVARIANTS if not findings.looked[name]} == set()
    assert len(world.books) >= 20


@pytest.mark.parametrize("flow", range(3))
def test_true_logs_of_other_flows_pass(flow: int) -> None:
    """Whatever the commands, a log by the real engine passes."""
    world = World()
    for command in mixed_flow(800, seed=flow):
        world.send_command(command)
    assert broken(world.process().derive()) == set()


def test_small_true_log_passes(plain: World) -> None:
    """The log that tests damage by hand is true to begin with."""
    assert broken(plain) == set()


Damage = Callable[[World], Any]


def _drop(world: World) -> None:
    del world.events[HOME][200]


def _drop_a_trade(world: World) -> None:
    del world.events[HOME][world.place_of(HOME, "TRADE")]


def _drop_last(world: World) -> None:
    world.events[home_of(OTHER_SYMBOL)].pop()


def _drop_outcome(world: World) -> None:
    """Take out a whole command's events, and count sequences as if they had never been."""
    events = world.events[HOME]
    at = world.place_of(HOME, "ORDER")
    assert world.event(HOME, at)["source"]["count"] == 1
    del events[at]
    for place in range(len(events)):
        event = world.event(HOME, place)
        if event["symbolId"] == 1 and event["sequence"] > 1:
            event["sequence"] -= 1
            world.put(HOME, place, event)


def _swap(world: World) -> None:
    events = world.events[HOME]
    events[50], events[51] = events[51], events[50]


def _change_order_quantity(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "ORDER"), quantity="999")


def _change_trade_quantity(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), quantity="999")


def _change_price(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), price="100.01")


def _off_tick(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), price="100.005")


def _change_repeat(world: World) -> None:
    events = world.events[HOME]
    event = world.event(HOME, 10)
    event["data"]["userId"] = 99
    value = json.dumps(event, separators=(",", ":")).encode()
    events.append(Record(0, events[10].timestamp, events[10].key, value))


def _repeat_with_a_space(world: World) -> None:
    events = world.events[HOME]
    old = events[10]
    events.append(Record(0, old.timestamp, old.key, (old.value or b"") + b" "))


def _leak_cancel(world: World) -> None:
    at = world.place_of(HOME, "CANCEL", reason="USER")
    world.edit(HOME, at, userId=world.event(HOME, at)["data"]["userId"] + 1)


def _leak_trade(world: World) -> None:
    at = world.place_of(HOME, "TRADE")
    world.edit(HOME, at, buyUserId=world.event(HOME, at)["data"]["buyUserId"] + 1)


def _leak_order(world: World) -> None:
    at = world.place_of(HOME, "ORDER")
    world.edit(HOME, at, userId=world.event(HOME, at)["data"]["userId"] + 1)


def _gap(world: World) -> None:
    for at in range(300, len(world.events[HOME])):
        event = world.event(HOME, at)
        event["sequence"] += 1
        world.put(HOME, at, event)


def _unknown_source(world: World) -> None:
    events = world.events[HOME]
    event = world.event(HOME, len(events) - 3)
    assert event["symbolId"] == 1
    event["sequence"] = 1 + max(world.event(HOME, at)["sequence"] for at in range(len(events)))
    event["source"] = {"partition": HOME, "offset": 10**6, "index": 0, "count": 1}
    events.append(events[-1])
    world.put(HOME, len(events) - 1, event)


def _foreign_source(world: World) -> None:
    event = world.event(HOME, 40)
    event["source"]["partition"] = FOREIGN
    world.put(HOME, 40, event)


def _time_back(world: World) -> None:
    event = world.event(HOME, 40)
    event["timestamp"] -= 1
    world.put(HOME, 40, event)


def _garbage(world: World) -> None:
    old = world.events[HOME][40]
    world.events[HOME][40] = Record(0, old.timestamp, old.key, b"\x00")


def _other_key(world: World) -> None:
    old = world.events[HOME][40]
    world.events[HOME][40] = Record(0, old.timestamp, b"7", old.value)


def _source_index(world: World) -> None:
    event = world.event(HOME, 40)
    event["source"]["count"] += 1
    world.put(HOME, 40, event)


def _lose_letter(world: World) -> None:
    world.letters[FOREIGN].clear()


def _lose_first_letter(world: World) -> None:
    first = world.letters[HOME][0]
    world.letters[HOME] = [letter for letter in world.letters[HOME] if letter != first]


def _change_repeated_letter(world: World) -> None:
    letter = world.letters[HOME][0]
    headers = tuple((name, b"OTHER" if name == "reason" else value) for name, value in letter.headers)
    world.letters[HOME].append(Record(0, letter.timestamp, letter.key, letter.value, headers))


def _change_letter(world: World) -> None:
    [letter] = world.letters[FOREIGN]
    world.letters[FOREIGN] = [Record(0, letter.timestamp, letter.key, b"[ ]", letter.headers)]


def _letter_without_source(world: World) -> None:
    [letter] = world.letters[FOREIGN]
    world.letters[FOREIGN].append(Record(0, letter.timestamp, letter.key, letter.value))


def _letter_of_a_command(world: World) -> None:
    letter = world.letters[HOME][-1]
    headers = tuple((name, b"%d" % 650 if name == "offset" else value) for name, value in letter.headers)
    world.letters[HOME].append(Record(0, letter.timestamp, letter.key, letter.value, headers))


def _change_stray(world: World) -> None:
    at = next(at for at, record in enumerate(world.inputs[HOME]) if record.headers)
    old = world.inputs[HOME][at]
    value = (old.value or b"").replace(b"90", b"91")
    world.inputs[HOME][at] = Record(old.offset, old.timestamp, old.key, value, old.headers)


def _lose_stray(world: World) -> None:
    world.send_command(order_command(id=_id(7_003)), partition=FOREIGN)


def _make_up_stray(world: World) -> None:
    value = json.dumps(order_command(id=_id(7_004))).encode()
    world.send(value, partition=HOME, headers=(("forwarded-from", b"%d:1" % ((HOME + 2) % PARTITIONS)),))
    world.send(value, partition=(HOME + 2) % PARTITIONS, key=None)
    world.send(value, partition=(HOME + 2) % PARTITIONS, key=None)


def _hole_in_the_inputs(world: World) -> None:
    del world.inputs[HOME][300]


def _unanswered(world: World) -> None:
    world.send_command(order_command(id=_id(7_005)))


DAMAGES: list[tuple[Damage, str]] = [
    (_drop, "I-3"),
    (_drop_a_trade, "I-5"),
    (_drop_last, "I-2"),
    (_drop_outcome, "I-2"),
    (_swap, "I-3"),
    (_change_order_quantity, "I-5"),
    (_change_trade_quantity, "I-6"),
    (_change_price, "I-7"),
    (_off_tick, "I-7"),
    (_change_repeat, "I-4"),
    (_repeat_with_a_space, "I-4"),
    (_leak_cancel, "I-17"),
    (_leak_trade, "I-17"),
    (_leak_order, "I-17"),
    (_gap, "I-3"),
    (_unknown_source, "I-2"),
    (_foreign_source, "I-2"),
    (_time_back, "I-15"),
    (_garbage, "I-2"),
    (_other_key, "I-2"),
    (_source_index, "I-2"),
    (_lose_letter, "I-2"),
    (_lose_first_letter, "I-2"),
    (_change_repeated_letter, "I-4"),
    (_change_letter, "I-2"),
    (_letter_without_source, "I-2"),
    (_letter_of_a_command, "I-2"),
    (_change_stray, "I-2"),
    (_lose_stray, "I-2"),
    (_make_up_stray, "I-2"),
    (_hole_in_the_inputs, "I-18"),
    (_unanswered, "I-2"),
]


@pytest.mark.parametrize(("damage", "invariant"), DAMAGES, ids=[f"{d.__name__}-{i}" for d, i in DAMAGES])
def test_damage_of_the_log_is_caught(world: World, damage: Damage, invariant: str) -> None:
    """Each way of damaging the topics breaks its invariant."""
    damage(world)
    assert invariant in broken(world)


def _wrong_maker(world: World) -> None:
    at = world.place_of(HOME, "TRADE", sellOrderId=_id(1))
    world.edit(HOME, at, sellOrderId=_id(2), sellUserId=2)


def _crossed(world: World) -> None:
    at = world.place_of(HOME, "TRADE", sellOrderId=_id(1))
    del world.events[HOME][at]
    event = world.event(HOME, at - 1)
    event["source"]["count"] = 1
    world.put(HOME, at - 1, event)


def _market_rests(world: World) -> None:
    at = world.place_of(HOME, "CANCEL", reason="MARKET")
    del world.events[HOME][at]
    for place in (at - 1, at - 2):
        event = world.event(HOME, place)
        event["source"]["count"] -= 1
        world.put(HOME, place, event)


def _after_the_end(world: World) -> None:
    cancel = world.place_of(HOME, "CANCEL", reason="USER")
    world.edit(HOME, cancel, id=_id(3), userId=3, side="BUY", price="100.00")


def _end_twice(world: World) -> None:
    reject = world.place_of(HOME, "REJECT")
    event = world.event(HOME, reject)
    trade = world.event(HOME, world.place_of(HOME, "TRADE", sellOrderId=_id(1)))
    world.put(HOME, reject, event | {"type": "TRADE", "data": trade["data"]})


def _accept_a_duplicate(world: World) -> None:
    reject = world.place_of(HOME, "REJECT", code="DUPLICATE_ORDER")
    event, order = world.event(HOME, reject), world.event(HOME, world.place_of(HOME, "ORDER"))
    world.put(HOME, reject, event | {"type": "ORDER", "data": order["data"] | {"side": "BUY", "price": "50.00"}})


def _accept_a_live_id(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "ORDER", userId=4), id=_id(2))


def _wrong_fill(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), buyFilledQuantity="9")


def _wrong_status(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), sellStatus="PARTIALLY_FILLED")


def _wrong_cancelled_quantity(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "CANCEL", reason="USER"), quantity="14")


def _wrong_cancel_status(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "CANCEL", reason="USER"), status="FILLED")


def _wrong_previous_quantity(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "AMEND"), previousQuantity="11")


def _kept_place(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "AMEND"), keptPriority=True)


def _born_filled(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "ORDER"), filledQuantity="1")


def _beyond_the_limit(world: World) -> None:
    at = world.place_of(HOME, "TRADE", sellOrderId=_id(1))
    for place, price in ((world.place_of(HOME, "ORDER", id=_id(3)), "99.00"),):
        world.edit(HOME, place, price=price)
    world.edit(HOME, at, takerPrice="99.00")


def _same_side(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "TRADE"), takerSide="SELL")


def _cancel_of_a_stranger(world: World) -> None:
    """The log's CANCEL command becomes another user's, the event stays."""
    old = world.inputs[HOME][-1]
    value = (old.value or b"").replace(b'"userId": 4', b'"userId": 6')
    world.inputs[HOME][-1] = Record(old.offset, old.timestamp, old.key, value)


PLAIN_DAMAGES: list[tuple[Damage, str]] = [
    (_wrong_maker, "I-8"),
    (_crossed, "I-9"),
    (_market_rests, "I-9"),
    (_after_the_end, "I-10"),
    (_end_twice, "I-10"),
    (_accept_a_duplicate, "I-19"),
    (_accept_a_live_id, "I-19"),
    (_wrong_fill, "I-6"),
    (_wrong_status, "I-6"),
    (_wrong_cancelled_quantity, "I-6"),
    (_wrong_cancel_status, "I-10"),
    (_wrong_previous_quantity, "I-6"),
    (_kept_place, "I-8"),
    (_born_filled, "I-6"),
    (_beyond_the_limit, "I-7"),
    (_same_side, "I-7"),
    (_cancel_of_a_stranger, "I-17"),
]


@pytest.mark.parametrize(("damage", "invariant"), PLAIN_DAMAGES, ids=[d.__name__ for d, _ in PLAIN_DAMAGES])
def test_wrong_matching_is_caught_without_the_reference(plain: World, damage: Damage, invariant: str) -> None:
    """What the events say of each other breaks the invariant, also when nothing is replayed."""
    damage(plain)
    assert invariant in plain.audit(replays=False).violations
    assert "I-5" in broken(plain)


@pytest.mark.parametrize("seed", range(150))
def test_random_damage_is_caught(plain: World, seed: int) -> None:
    """A random field of a random event changed, an event gone, doubled with a change or moved: always caught."""
    chance = random.Random(seed)
    events = plain.events[HOME]
    at = chance.randrange(len(events))
    match chance.choice(["drop", "swap", "change", "change", "change", "envelope"]):
        case "drop":
            del events[at]
        case "swap":
            other = chance.choice([place for place in range(len(events)) if place != at])
            events[at], events[other] = events[other], events[at]
        case "change":
            data = plain.event(HOME, at)["data"]
            field = chance.choice(sorted(data.keys() - {"message"}))
            plain.edit(HOME, at, **{field: _other(data[field])})
        case _:
            event = plain.event(HOME, at)
            field = chance.choice(["type", "symbolId", "sequence", "timestamp", "source"])
            plain.put(HOME, at, event | {field: _other(event[field])})
    assert broken(plain)


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + ("1" if value[-1:] == "0" else "0")
        case dict():
            return {name: _other(field) for name, field in value.items()}
        case _:
            return "100.00"


def test_the_first_offending_record_is_told_in_full(world: World) -> None:
    """With its topic, partition, offset, key and value."""
    _leak_order(world)
    at = world.place_of(HOME, "ORDER")
    record = world.audit().first["I-17"].record
    assert record is not None
    assert record["where"] == f"orders.exchange-{HOME} offset {at}"
    assert (record["key"], record["value"]) == ("1", (world.events[HOME][at].value or b"").decode())


def test_what_need_not_be_answered_yet_is_no_violation(world: World) -> None:
    """Inputs behind the cut may have no outcome yet, or the beginning of one."""
    world.required = {partition: len(records) for partition, records in world.inputs.items()}
    _unanswered(world)
    world.send(b"{", partition=HOME)
    assert broken(world) == set()


def test_what_has_not_caught_up_is_told(world: World) -> None:
    """An exchange that stands still in front of its inputs is not well."""
    world.late = ["the engine has not caught up in time: partition 3 is at 7 of 9."]
    assert broken(world) == {"I-20"}


@pytest.mark.parametrize("column", range(16))
def test_changed_order_row_is_caught(world: World, column: int) -> None:
    """Whatever column it is; the row is shown as it is and as it must be."""
    row = world.rows["Order"][3]
    row[column] = "12345678" if row[column] != "12345678" else "1"
    assert "I-11" in broken(world)


@pytest.mark.parametrize("column", range(9))
def test_changed_trade_row_is_caught(world: World, column: int) -> None:
    """Whatever column it is."""
    world.rows["Trade"][3][column] = "12345678"
    assert "I-11" in broken(world)


@pytest.mark.parametrize("table", ["Order", "Trade"])
def test_missing_and_extra_rows_are_caught(world: World, table: str) -> None:
    """A row too few and a row too many are told with the row."""
    row = world.rows[table].pop(5)
    first = world.audit().first["I-11"]
    assert row[0] in first.message
    assert first.record is not None
    assert first.record["is"] is None
    assert first.record["must be"]["id"] == row[0]
    world.rows[table] += [row, [_id(99), *row[1:]]]
    first = world.audit().first["I-11"]
    assert first.record is not None
    assert first.record["is"]["id"] == _id(99)
    assert first.record["must be"] is None


def test_wrong_progress_is_caught(world: World) -> None:
    """Sequences that are not those of the events, tables ahead of the log, commits ahead of the tables."""
    tables = world.tables
    assert tables is not None
    tables.sequences[1] -= 1
    assert broken(world) == {"I-11"}
    tables.sequences[1] += 1
    tables.committed[HOME] += 1
    assert broken(world) == {"I-18"}
    tables.next_offsets[HOME] += 1
    assert broken(world) == {"I-11"}


def test_tables_are_compared_at_their_own_progress(world: World) -> None:
    """Tables that are behind the log are right when they are what the log was there."""
    events = world.events[HOME]
    world.events[HOME] = events[:250]
    world.derive()
    world.events[HOME] = events
    world.books = []
    assert broken(world) == set()
    tables = world.tables
    assert tables is not None
    tables.next_offsets[HOME] += 1
    assert "I-11" in broken(world)


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("change", ["price", "quantity", "orders", "missing", "extra", "sequence", "beyond"])
def test_wrong_book_is_caught(world: World, side: str, change: str) -> None:
    """A level that is not what the events make it, at any of the moments that were looked at."""
    answer = next(answer for answer in world.books[5:] if len(answer.buy) > 1 and len(answer.sell) > 1)
    levels = getattr(answer, side)
    price, quantity, orders = levels[1]
    match change:
        case "price":
            levels[1] = ("100.77", quantity, orders)
        case "quantity":
            levels[1] = (price, "12345", orders)
        case "orders":
            levels[1] = (price, quantity, orders + 1)
        case "missing":
            levels.pop()
        case "extra":
            levels.append(("0.01" if side == "buy" else "999.00", "1", 1))
        case "sequence":
            answer.sequence -= 1
        case _:
            answer.sequence += 10**6
    assert broken(world) == {"I-12"}


def test_order_that_a_client_was_told_of_is_missed(world: World) -> None:
    """An acknowledged order that is nowhere in the log is lost; refused ones and other answers are not."""
    world.journal = [
        {"status": 201, "orderId": _id(7_001), "userId": 1},
        {"status": 503, "orderId": _id(8_001), "userId": 1},
        {"status": 200},
    ]
    assert broken(world) == set()
    world.journal.append({"status": 201, "orderId": _id(8_002), "userId": 1})
    findings = world.audit()
    assert findings.violations.keys() == {"I-1"}
    assert _id(8_002) in findings.first["I-1"].message


def test_order_in_the_name_of_another_user_is_caught(world: World) -> None:
    """The user in the log is the one that was let in."""
    world.journal = [{"status": 201, "orderId": _id(7_001), "userId": 2}]
    assert broken(world) == {"I-17"}


def test_two_orders_for_one_client_order_id_are_caught(world: World) -> None:
    """A client that sent the same thing twice must have been given the same order."""
    world.journal = [
        {"status": 201, "orderId": _id(number), "userId": 1, "clientOrderId": "a"} for number in (7_001, 7_001)
    ]
    assert broken(world) == set()
    world.journal.append({"status": 201, "orderId": _id(7_002), "userId": 1, "clientOrderId": "a"})
    assert broken(world) == {"I-19"}
