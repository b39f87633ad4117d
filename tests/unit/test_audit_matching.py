"""The audit catches wrong matching from the events alone, without the naive exchange to compare with."""

from __future__ import annotations

import random

import pytest

from forkast_streams.audit.records import Record
from tests.support.audit_world import HOME, World, order_id, other_than, plain_world
from tests.unit.test_audit import Damage, broken


@pytest.fixture
def plain() -> World:
    """A small one, made by hand."""
    return plain_world()


def _wrong_maker(world: World) -> None:
    at = world.place_of(HOME, "TRADE", sellOrderId=order_id(1))
    world.edit(HOME, at, sellOrderId=order_id(2), sellUserId=2)


def _crossed(world: World) -> None:
    at = world.place_of(HOME, "TRADE", sellOrderId=order_id(1))
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
    world.edit(HOME, cancel, id=order_id(3), userId=3, side="BUY", price="100.00")


def _end_twice(world: World) -> None:
    reject = world.place_of(HOME, "REJECT")
    event = world.event(HOME, reject)
    trade = world.event(HOME, world.place_of(HOME, "TRADE", sellOrderId=order_id(1)))
    world.put(HOME, reject, event | {"type": "TRADE", "data": trade["data"]})


def _accept_a_duplicate(world: World) -> None:
    reject = world.place_of(HOME, "REJECT", code="DUPLICATE_ORDER")
    event, order = world.event(HOME, reject), world.event(HOME, world.place_of(HOME, "ORDER"))
    world.put(HOME, reject, event | {"type": "ORDER", "data": order["data"] | {"side": "BUY", "price": "50.00"}})


def _accept_a_live_id(world: World) -> None:
    world.edit(HOME, world.place_of(HOME, "ORDER", userId=4), id=order_id(2))


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
    at = world.place_of(HOME, "TRADE", sellOrderId=order_id(1))
    for place, price in ((world.place_of(HOME, "ORDER", id=order_id(3)), "99.00"),):
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
            plain.edit(HOME, at, **{field: other_than(data[field])})
        case _:
            event = plain.event(HOME, at)
            field = chance.choice(["type", "symbolId", "sequence", "timestamp", "source"])
            plain.put(HOME, at, event | {field: other_than(event[field])})
    assert broken(plain)
