"""Whatever event of a true log is damaged in whatever way, the audit says so: drop, swap, change, repeat, leak."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from forkast_streams.audit.records import Record
from tests.support.audit_world import Event, World, other_than
from tests.support.flows import START_MS, home_of, order_command, symbol_command

HOME = home_of(1)
# What a person reads, which the audit does not compare.
_FREE_TEXT = {"message"}
TYPES = (
    "ORDER", "TRIGGER", "TRADE", "SHOW", "CANCEL", "AMEND", "CANCEL_ALL", "CANCEL_AFTER", "REJECT", "SYMBOL",
)  # fmt: skip


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))


def _command(name: str, **fields: Any) -> dict[str, Any]:
    return {"command": name, "symbolId": 1} | fields


def _commands() -> Iterator[dict[str, Any]]:
    """Every command and order type, so that every event and every reason for the end of an order comes up."""
    yield symbol_command(1, minQuantity="1", maxOpenOrders=50)
    # An iceberg that shows its next slice, and an order behind it.
    yield order_command(id=_id(1), side="SELL", displayQuantity=4, clientOrderId="ice")
    yield order_command(id=_id(2), side="SELL", userId=3, quantity=5)
    yield order_command(id=_id(3), quantity=6, userId=4)
    # Stops that the next trades trigger: one into the book, one to the market, one that waits, one amended.
    yield order_command(id=_id(4), userId=5, type="STOP_LIMIT", stopPrice="101", price="99")
    yield order_command(id=_id(5), userId=5, type="STOP", stopPrice="101", price=None, quantity=2)
    yield order_command(id=_id(6), userId=5, side="SELL", type="STOP_LIMIT", stopPrice="90", price="89")
    yield _command("AMEND", orderId=_id(6), userId=5, stopPrice="91")
    yield order_command(id=_id(7), side="SELL", userId=3, price="101", quantity=4)
    yield order_command(id=_id(8), userId=4, price="101", quantity=12)
    # Amended with its place kept and lost, replaced, cancelled, refused.
    yield order_command(id=_id(9), userId=4, price="95")
    yield _command("AMEND", orderId=_id(9), userId=4, quantity=7)
    yield _command("AMEND", orderId=_id(9), userId=4, price="96", commandId="a")
    yield order_command(id=_id(10), userId=4, price="94") | {"command": "REPLACE", "orderId": _id(9)}
    yield _command("CANCEL", orderId=_id(10), userId=4, commandId="c")
    yield _command("CANCEL", orderId=_id(10), userId=4)
    yield order_command(id=_id(1), userId=4)
    yield order_command(id=_id(11), userId=4, price="95.001")
    # What may not rest, by amount, and with oneself.
    yield order_command(id=_id(12), userId=4, type="MARKET", price=None, quantity=None, quoteQuantity=150)
    yield order_command(id=_id(13), userId=4, price="102", timeInForce="IOC", quantity=30)
    yield order_command(id=_id(14), userId=4, price="102", timeInForce="FOK", quantity=30)
    yield order_command(id=_id(15), userId=6, price="97", quantity=3)
    yield order_command(id=_id(16), userId=6, side="SELL", price="97", quantity=3)
    yield order_command(id=_id(17), userId=6, side="SELL", price="97", selfTradePrevention="EXPIRE_MAKER")
    yield order_command(id=_id(18), userId=7, price="97", postOnly=True)
    # Ends by time: an order, and all of a user's; then all of another's at once.
    yield order_command(id=_id(19), userId=7, price="80", timeInForce="GTD", expiresAt=START_MS + 32)
    yield order_command(id=_id(20), userId=8, price="81")
    yield _command("CANCEL_AFTER", userId=8, timeout=4)
    yield order_command(id=_id(21), userId=9, price="82")
    yield order_command(id=_id(22), userId=9, price="83", displayQuantity=2)
    yield _command("CANCEL_ALL", userId=9, commandId="all")
    yield _command("HEARTBEAT")
    yield _command("HEARTBEAT")
    yield _command("CANCEL_AFTER", userId=8, timeout=0)


@lru_cache(maxsize=1)
def _true_world() -> World:
    world = World()
    for command in _commands():
        world.send_command({name: value for name, value in command.items() if value is not None})
    return world.process().derive()


@pytest.fixture
def world() -> World:
    """A true world of the test's own, without tables and books: the log alone must tell."""
    world = copy.deepcopy(_true_world())
    world.tables, world.books = None, []
    return world


def test_the_true_log_has_everything_and_passes(world: World) -> None:
    """Each type of event comes, and each kind of end, triggered and shown orders among them."""
    assert world.audit().is_clean, world.audit().first
    events = _events(world)
    assert {event["type"] for event in events} == set(TYPES)
    reasons = {event["data"]["reason"] for event in events if event["type"] == "CANCEL"}
    assert reasons >= {"USER", "IOC", "FOK", "EXPIRED", "SELF_TRADE", "REPLACED", "CANCEL_ALL", "CANCEL_AFTER"}
    assert {event["data"]["refill"] for event in events if event["type"] == "SHOW"} == {True, False}
    assert {event["data"]["type"] for event in events if event["type"] == "TRIGGER"} == {"STOP", "STOP_LIMIT"}


def _events(world: World) -> list[Event]:
    return [world.event(HOME, at) for at in range(len(world.events[HOME]))]


def _places(world: World, kind: str) -> list[int]:
    return [at for at, event in enumerate(_events(world)) if event["type"] == kind]


@pytest.mark.parametrize("kind", TYPES)
def test_every_damaged_event_is_caught(world: World, kind: str) -> None:
    """Each event of the type is dropped, swapped with the next, and repeated with a change, one at a time."""
    records = world.events[HOME]
    for at in _places(world, kind):
        damages = {
            "dropped": records[:at] + records[at + 1 :],
            "repeated with a change": [*records, _changed(world, at)],
        }
        if at + 1 < len(records):
            damages["swapped"] = [*records[:at], records[at + 1], records[at], *records[at + 2 :]]
        for name, damaged in damages.items():
            world.events[HOME] = damaged
            assert world.audit().violations, f"{name}: {records[at].value!r}"
        world.events[HOME] = records


def _changed(world: World, at: int) -> Record:
    event, old = world.event(HOME, at), world.events[HOME][at]
    event["timestamp"] += 1
    return Record(0, old.timestamp, old.key, json.dumps(event, separators=(",", ":")).encode())


@pytest.mark.parametrize("kind", TYPES)
def test_every_changed_field_is_caught(world: World, kind: str) -> None:
    """Each field of the first and the last event of the type: a price, a quantity, an owner, a reason, a time."""
    places = _places(world, kind)
    for at in {places[0], places[-1]}:
        record = world.events[HOME][at]
        for field, value in world.event(HOME, at)["data"].items():
            if field in _FREE_TEXT:
                continue
            world.edit(HOME, at, **{field: other_than(value)})
            assert world.audit().violations, f"{field} of {record.value!r}"
            world.events[HOME][at] = record


@pytest.mark.parametrize("kind", TYPES)
def test_every_repeated_and_whole_event_passes(world: World, kind: str) -> None:
    """The negative control of the negative control: what comes again as it was is no damage."""
    records = world.events[HOME]
    world.events[HOME] = records + [records[at] for at in _places(world, kind)]
    assert world.audit().is_clean


@pytest.mark.parametrize("name", ["STOP", "ICEBERG", "GTD"])
def test_every_omitted_command_is_caught(world: World, name: str) -> None:
    """A command whose events are gone with their numbers closed up behind them: nothing but the input tells."""
    data = {"STOP": {"type": "STOP"}, "ICEBERG": {"displayQuantity": "2"}, "GTD": {"timeInForce": "GTD"}}[name]
    at = world.place_of(HOME, "ORDER", **data)
    gone = world.event(HOME, at)
    kept = [event for event in _events(world) if event["source"]["offset"] != gone["source"]["offset"]]
    for number, event in enumerate(kept, start=1):
        event["sequence"] = number
    old = world.events[HOME]
    world.events[HOME] = [
        Record(0, event["timestamp"], old[0].key, json.dumps(event, separators=(",", ":")).encode()) for event in kept
    ]
    assert "I-2" in world.audit().violations
