"""The audit passes a true log, and catches every damage by the invariant that it breaks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from forkast_streams.audit.findings import INVARIANTS
from forkast_streams.audit.records import Record
from tests.support.audit_world import FOREIGN, HOME, OTHER_SYMBOL, World, order_id, plain_world, true_world
from tests.support.flows import PARTITIONS, home_of, mixed_flow, order_command, symbol_command


@pytest.fixture
def world() -> World:
    """A true world of the test's own."""
    return copy.deepcopy(true_world())


@pytest.fixture
def plain() -> World:
    """A small one, made by hand."""
    return plain_world()


def broken(world: World) -> set[str]:
    """The invariants that the audit finds broken."""
    findings = world.audit()
    assert findings.first.keys() == findings.violations.keys() <= INVARIANTS.keys()
    return set(findings.violations)


def test_a_true_log_passes_and_everything_was_looked_at(world: World) -> None:
    """Repeats, poison and strays are no violations; each invariant had something to check."""
    world.journal = [{"status": 201, "orderId": order_id(7_001), "userId": 1, "clientOrderId": "a"}]
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
    orders = [at for at in range(100) if world.event(HOME, at)["type"] == "ORDER"]
    at = next(at for at in orders if world.event(HOME, at)["source"]["count"] == 1)
    gone = world.event(HOME, at)["sequence"]
    events[:] = [record for record in events if record != events[at]]
    for place in range(len(events)):
        event = world.event(HOME, place)
        if event["symbolId"] == 1 and event["sequence"] > gone:
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
    world.send_command(order_command(id=order_id(7_003)), partition=FOREIGN)


def _make_up_stray(world: World) -> None:
    value = json.dumps(order_command(id=order_id(7_004))).encode()
    world.send(value, partition=HOME, headers=(("forwarded-from", b"%d:1" % ((HOME + 2) % PARTITIONS)),))
    world.send(value, partition=(HOME + 2) % PARTITIONS, key=None)
    world.send(value, partition=(HOME + 2) % PARTITIONS, key=None)


def _hole_in_the_inputs(world: World) -> None:
    del world.inputs[HOME][300]


def _unanswered(world: World) -> None:
    world.send_command(order_command(id=order_id(7_005)))


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


def test_the_first_offending_record_is_told_in_full(world: World) -> None:
    """With its topic, partition, offset, key and value."""
    _leak_order(world)
    at = world.place_of(HOME, "ORDER")
    record = world.audit().first["I-5"].record
    assert record is not None
    assert record["where"] == f"orders.exchange-{HOME} offset {at}"
    assert (record["key"], record["value"]) == ("1", (world.events[HOME][at].value or b"").decode())


def test_what_need_not_be_answered_yet_is_no_violation(world: World) -> None:
    """Inputs behind the cut may have no outcome yet, or the beginning of one."""
    world.required = {partition: len(records) for partition, records in world.inputs.items()}
    _unanswered(world)
    world.send(b"{", partition=HOME)
    assert broken(world) == set()


_CANCEL = {"command": "CANCEL", "symbolId": 1, "orderId": order_id(1), "userId": 1}
_ODD = {
    "a field twice": b'{"symbolId":"10",' + json.dumps(order_command(id=order_id(2))).encode()[1:],
    "an odd field that a heartbeat does not use": b'{"command":"HEARTBEAT","symbolId":1,"side":0}',
    "an odd field that a cancel does not use": json.dumps(_CANCEL | {"side": 5}).encode(),
    "an odd field that an order does not use": json.dumps(order_command(id=order_id(2), timeout="1")).encode(),
    "a price next to nothing": json.dumps(order_command(id=order_id(2))).encode().replace(b": 100", b": 1E-999999999"),
    "a quantity next to nothing": json.dumps(order_command(id=order_id(2)))
    .encode()
    .replace(b": 10,", b": 1E-1000027,"),
    "a price next to next to nothing": json.dumps(order_command(id=order_id(2)))
    .encode()
    .replace(b"100", b"1E-1000026"),
    "a price beyond all bounds": json.dumps(order_command(id=order_id(2))).encode().replace(b"100", b"1E999999999"),
}


def _odd_world(value: bytes, partition: int) -> World:
    """An odd record between two strays, of which the second must still be found."""
    world = World()
    world.send_command(symbol_command(1))
    world.send_command(order_command(id=order_id(1)))
    world.send_command(order_command(id=order_id(3)), partition=FOREIGN)
    world.send(value, partition=partition)
    world.send_command(order_command(id=order_id(4)), partition=FOREIGN)
    return world.process().derive()


@pytest.mark.parametrize("partition", [HOME, FOREIGN])
@pytest.mark.parametrize("value", _ODD.values(), ids=_ODD.keys())
def test_odd_records_are_answered_as_the_engine_does(value: bytes, partition: int) -> None:
    """Whatever comes of a record that no client of ours sends, at home and where it must be forwarded."""
    assert broken(_odd_world(value, partition)) == set()


def test_an_odd_record_on_a_foreign_partition_has_an_outcome() -> None:
    """Its letter is one; without it and without a copy at home it has none, unless that may still come."""
    world = _odd_world(_ODD["an odd field that a cancel does not use"], FOREIGN)
    world.letters[FOREIGN].clear()
    assert broken(world) == {"I-2"}
    world.required = {partition: len(records) for partition, records in world.inputs.items()} | {FOREIGN: 0}
    assert broken(world) == set()


def test_marks_of_transactions_are_no_hole(world: World) -> None:
    """They take offsets that no reader is shown; a hole beside them is one."""
    inputs = world.inputs[HOME]
    hidden = next(at for at, record in enumerate(inputs) if record.value == b"{")
    inputs[hidden] = Record(hidden, 0, None, None, is_control=True)
    world.letters[HOME] = [letter for letter in world.letters[HOME] if letter.value != b"{"]
    assert broken(world) == set()
    del inputs[hidden]
    assert broken(world) == {"I-18"}


def test_what_has_not_caught_up_is_told(world: World) -> None:
    """An exchange that stands still in front of its inputs is not well."""
    world.late = ["the engine has not caught up in time: partition 3 is at 7 of 9."]
    assert broken(world) == {"I-20"}
