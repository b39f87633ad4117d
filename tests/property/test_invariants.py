"""The invariants find what is wrong: a right stream of events passes, and each kind of damage to it does not."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.property.invariants import Invariants
from tests.support.exchanges import Engine
from tests.support.flows import mixed_flow, order_command, symbol_command

Command = list[dict[str, Any]]


@pytest.fixture(scope="module")
def stream() -> list[Command]:
    """The engine's events for a mixed flow, command by command."""
    engine, stream = Engine(), []
    for command in mixed_flow(2_500, seed=21):
        first = len(engine.envelopes)
        engine.process(command)
        stream.append(engine.envelopes[first:])
    return stream


def follow(stream: list[Command]) -> None:
    invariants = Invariants()
    for envelopes in stream:
        invariants.follow(envelopes)


def test_what_the_engine_answers_passes(stream: list[Command]) -> None:
    """Nothing is found where nothing is wrong, and every event that says something of an order is in the stream."""
    follow(stream)
    kinds = {envelope["type"] for envelopes in stream for envelope in envelopes}
    assert kinds == {
        "ORDER", "TRIGGER", "TRADE", "SHOW", "CANCEL", "AMEND", "CANCEL_ALL", "CANCEL_AFTER", "REJECT", "SYMBOL"
    }  # fmt: skip


def test_the_largest_amounts_are_calculated_exactly() -> None:
    """A thousand billion with 18 decimals, of which a trade took some."""
    engine = Engine()
    amount = {"type": "MARKET", "price": None, "quantity": None, "quoteQuantity": "999999999999999.999999999999999999"}
    commands = [
        symbol_command(1, tickSize="0.00000001", lotSize="0.00000001"),
        order_command(side="SELL", price="0.00000003", quantity="0.00000007"),
        order_command(id=str(uuid.UUID(int=2)), **amount),
    ]
    for command in commands:
        engine.process(command)
    follow([[event] for event in engine.envelopes[:2]] + [engine.envelopes[2:]])
    assert engine.envelopes[-1]["data"]["quoteQuantity"] == "999999999999999.999999999999997899"


def _is(kind: str, **fields: Any) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["type"] == kind and all(event["data"].get(name) == to for name, to in fields.items())


def _has(kind: str, *fields: str) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["type"] == kind and all(event["data"].get(name) is not None for name in fields)


def _plus_one(text: str) -> str:
    return str(int(text) + 1)


@pytest.mark.parametrize(
    ("which", "field", "change"),
    [
        (_has("ORDER", "price"), "status", lambda _: "FILLED"),
        (_has("ORDER", "displayQuantity"), "displayQuantity", lambda _: "1000"),
        (_has("ORDER", "stopPrice"), "stopPrice", lambda _: None),
        (_has("ORDER", "expiresAt"), "expiresAt", lambda _: 0),
        (_has("ORDER", "replaces"), "replaces", lambda _: "00000000-0000-0000-0000-000000000000"),
        (_has("TRIGGER"), "lastPrice", lambda _: "1.00"),
        (_has("TRIGGER"), "quantity", _plus_one),
        (_is("SHOW", refill=True), "quantity", _plus_one),
        (_is("SHOW", refill=True), "refill", lambda _: False),
        (_is("SHOW", refill=False), "refill", lambda _: True),
        (_is("SHOW"), "price", lambda _: "1.00"),
        (_is("TRADE"), "quantity", _plus_one),
        (_is("TRADE"), "buyFilledQuantity", _plus_one),
        (_is("TRADE", sellStatus="FILLED"), "sellStatus", lambda _: "PARTIALLY_FILLED"),
        (_is("TRADE", takerPrice=None), "takerPrice", lambda _: "100.00"),
        (_has("TRADE", "takerPrice"), "takerPrice", lambda _: None),
        (_has("CANCEL", "shownQuantity"), "shownQuantity", _plus_one),
        (_has("CANCEL", "quoteQuantity"), "quoteQuantity", lambda _: "0.5"),
        (_is("CANCEL", reason="SELF_TRADE"), "status", lambda _: "CANCELLED"),
        (_is("CANCEL", reason="USER"), "status", lambda _: "EXPIRED"),
        (_is("CANCEL", reason="USER"), "reason", lambda _: "EXPIRED"),
        (_is("CANCEL", reason="USER"), "reason", lambda _: "CANCEL_AFTER"),
        (_is("CANCEL", reason="USER"), "quantity", _plus_one),
        (_has("AMEND"), "keptPriority", lambda kept: not kept),
        (_has("AMEND", "shownQuantity"), "shownQuantity", _plus_one),
        (_has("AMEND", "previousShownQuantity"), "previousShownQuantity", _plus_one),
        (_has("AMEND"), "previousQuantity", _plus_one),
        (_is("CANCEL_ALL"), "count", lambda count: count + 1),
        (_has("CANCEL_AFTER", "deadline"), "deadline", lambda _: 1),
        (_is("REJECT"), "command", lambda _: "HEARTBEAT"),
    ],
)
def test_a_field_that_is_wrong_is_found(
    stream: list[Command], which: Callable[[dict[str, Any]], bool], field: str, change: Callable[[Any], Any]
) -> None:
    """One wrong field of one event is found, at that event or when its command is complete, or by what follows."""
    damaged = copy.deepcopy(stream)
    event = next(event for envelopes in damaged for event in envelopes if which(event))
    event["data"][field] = change(event["data"].get(field))
    if event["data"][field] is None and field == "stopPrice":
        del event["data"][field]
    with pytest.raises(AssertionError):
        follow(damaged)


@pytest.mark.parametrize(
    "which",
    [
        _has("ORDER", "price"),
        _is("TRIGGER"),
        _is("TRADE"),
        _is("SHOW", refill=True),
        _is("SHOW", refill=False),
        _is("CANCEL", reason="USER"),
        _is("CANCEL", reason="EXPIRED"),
        _is("CANCEL", reason="CANCEL_AFTER"),
        _is("CANCEL", reason="REPLACED"),
        _is("AMEND"),
        _is("SYMBOL"),
    ],
)
def test_an_event_that_is_left_out_is_found(stream: list[Command], which: Callable[[dict[str, Any]], bool]) -> None:
    """An engine that forgets to tell of something is found, even if its numbers have no gap."""
    damaged = copy.deepcopy(stream)
    at, envelopes = next((at, envelopes) for at, envelopes in enumerate(damaged) if any(map(which, envelopes)))
    left_out = next(event for event in envelopes if which(event))
    envelopes.remove(left_out)
    for index, event in enumerate(envelopes):
        event["source"] |= {"index": index, "count": len(envelopes)}
    for event in [event for later in damaged[at:] for event in later]:
        if event["sequence"] > left_out["sequence"]:
            event["sequence"] -= 1
            if event["type"] == "TRADE":
                event["data"]["tradeId"] = f"{event['data']['tradeId'][:-12]}{event['sequence']:012x}"
    with pytest.raises((AssertionError, KeyError)):
        follow(damaged)


def test_a_taker_that_passes_the_first_in_the_queue_is_found(stream: list[Command]) -> None:
    """Two trades of a command in the wrong order break the priority of price and time."""
    damaged = copy.deepcopy(stream)
    for envelopes in damaged:
        trades = [event for event in envelopes if event["type"] == "TRADE"]
        makers = {event["data"]["sellOrderId"] for event in trades if event["data"]["takerSide"] == "BUY"}
        if len(makers) > 1:
            first, second = [event for event in trades if event["data"]["takerSide"] == "BUY"][:2]
            first["data"], second["data"] = second["data"], first["data"]
            for event in (first, second):
                event["data"]["tradeId"] = f"{event['data']['tradeId'][:-12]}{event['sequence']:012x}"
            break
    with pytest.raises(AssertionError, match="another order was first"):
        follow(damaged)
