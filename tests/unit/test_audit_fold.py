"""The audit's fold of stops, icebergs, orders by amount and self-trade prevention, by the rules of docs/wire.md."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

import pytest

from forkast_streams.audit.fold import SymbolFold

Event = tuple[str, dict[str, Any]]
Command = list[Event]


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _user(side: str) -> int:
    return 1 if side == "BUY" else 2


def order(name: str, side: str, quantity: str | None, price: str | None, **more: Any) -> Event:
    """A new order of user 1, or of user 2 to sell, that is not filled."""
    data = {"id": _id(name), "userId": _user(side), "symbolId": 1, "type": "LIMIT", "side": side, "price": price}
    rest = {"quantity": quantity, "filledQuantity": "0", "status": "PENDING", "timeInForce": "GTC", "createdAt": 1}
    return "ORDER", data | rest | more


def trade(
    taker_side: str, buyer: str, seller: str, quantity: str, price: str, buy: str, sell: str, **more: Any
) -> Event:
    """A trade; ``buy`` and ``sell`` are the sides' filled quantity and status, such as ``5 FILLED``."""
    filled = {}
    for side, state in (("buy", buy), ("sell", sell)):
        filled[f"{side}FilledQuantity"], filled[f"{side}Status"] = state.split()
    ids = {"buyOrderId": _id(buyer), "sellOrderId": _id(seller), "buyUserId": 1, "sellUserId": 2}
    prices = {"price": price, "quantity": quantity, "takerSide": taker_side, "takerPrice": None}
    return "TRADE", {"tradeId": "t", "timestamp": 1} | ids | prices | filled | more


def show(name: str, side: str, price: str, quantity: str, *, refill: bool) -> Event:
    """What of an order now stands in its level."""
    return "SHOW", {
        "id": _id(name), "userId": _user(side), "side": side, "price": price, "quantity": quantity, "refill": refill
    }  # fmt: skip


def trigger(name: str, side: str, kind: str, price: str | None, stop: str, quantity: str, last: str) -> Event:
    """A stop becomes active."""
    data = {"id": _id(name), "userId": _user(side), "side": side, "type": kind, "price": price, "stopPrice": stop}
    return "TRIGGER", data | {"quantity": quantity, "lastPrice": last}


def cancel(name: str, side: str, price: str | None, quantity: str | None, reason: str = "USER", **more: Any) -> Event:
    """The end of an order of which nothing is filled."""
    state = {"price": price, "quantity": quantity, "filledQuantity": "0"}
    data = {"id": _id(name), "userId": _user(side), "side": side} | state
    return "CANCEL", data | {"status": "CANCELLED", "reason": reason} | more


def broken(*commands: Command) -> tuple[set[str], SymbolFold]:
    """The invariants that the commands' events break, and the fold behind them."""
    found: set[str] = set()
    fold = SymbolFold(1, lambda invariant, _: found.add(invariant))
    sequence = 0
    for command in commands:
        for at, (kind, data) in enumerate(command):
            sequence += 1
            fold.apply(kind, data, sequence, 1, is_last=at + 1 == len(command))
    return found, fold


def depth(fold: SymbolFold, side: str) -> list[tuple[str, str, int]]:
    """The levels of a side as text."""
    return [(str(price), str(quantity), orders) for price, quantity, orders in fold.levels(side)]


ICEBERG = [
    [order("ice", "SELL", "10", "100", displayQuantity="4"), show("ice", "SELL", "100", "4", refill=False)],
    [order("other", "SELL", "5", "100")],
    [
        order("buyer", "BUY", "6", "100"),
        trade("BUY", "buyer", "ice", "4", "100", "4 PARTIALLY_FILLED", "4 PARTIALLY_FILLED", takerPrice="100"),
        show("ice", "SELL", "100", "4", refill=True),
        trade("BUY", "buyer", "other", "2", "100", "6 FILLED", "2 PARTIALLY_FILLED", takerPrice="100"),
    ],
]


def test_an_iceberg_shows_one_slice_after_the_other() -> None:
    """Each slice queues behind all others at its price; the level has what is shown."""
    found, fold = broken(*ICEBERG)
    assert found == set()
    assert depth(fold, "SELL") == [("100", "7", 2)]
    assert [each.id for each in fold.sides["SELL"].levels[Decimal(100)].orders.values()] == [_id("other"), _id("ice")]


@pytest.mark.parametrize(
    ("command", "event", "change", "invariant"),
    [
        (0, 1, {"quantity": "40"}, "I-6"),
        (0, 1, {"price": "101"}, "I-12"),
        (0, 1, {"userId": 9}, "I-17"),
        (2, 1, {"quantity": "5"}, "I-6"),
        (2, 2, {"id": _id("other")}, "I-12"),
        (2, 3, {"sellOrderId": _id("ice")}, "I-8"),
        (2, 3, {"takerPrice": None}, "I-12"),
    ],
)
def test_damaged_iceberg_is_caught(command: int, event: int, change: dict[str, Any], invariant: str) -> None:
    """A slice too large, elsewhere, of another user, or out of turn."""
    commands = [list(events) for events in ICEBERG]
    kind, data = commands[command][event]
    commands[command][event] = (kind, data | change)
    assert invariant in broken(*commands)[0]


def test_an_iceberg_that_is_not_shown_is_caught() -> None:
    """Resting without a SHOW it would be in no queue."""
    assert "I-9" in broken([ICEBERG[0][0]])[0]


def test_cancelled_and_amended_icebergs_take_what_they_show() -> None:
    """A shownQuantity stands beside the open quantity when it is another."""
    amended = {
        "id": _id("ice"), "userId": 2, "side": "SELL", "price": "100", "quantity": "8", "filledQuantity": "0",
        "status": "PENDING", "keptPriority": True, "previousPrice": "100", "previousQuantity": "10",
        "shownQuantity": "4", "previousShownQuantity": "4",
    }  # fmt: skip
    found, fold = broken(ICEBERG[0], [("AMEND", amended)])
    assert (found, depth(fold, "SELL")) == (set(), [("100", "4", 1)])
    end = cancel("ice", "SELL", "100", "8", shownQuantity="4")
    found, fold = broken(ICEBERG[0], [("AMEND", amended)], [end])
    assert (found, depth(fold, "SELL"), fold.live) == (set(), [], {})
    assert "I-12" in broken(ICEBERG[0], [("AMEND", amended | {"previousShownQuantity": "5"})])[0]
    assert "I-12" in broken(ICEBERG[0], [cancel("ice", "SELL", "100", "10", shownQuantity="5")])[0]
    requeued = amended | {"price": "101", "keptPriority": False, "shownQuantity": "0"}
    found, fold = broken(ICEBERG[0], [("AMEND", requeued), show("ice", "SELL", "101", "4", refill=False)])
    assert (found, depth(fold, "SELL")) == (set(), [("101", "4", 1)])


STOP = [
    [order("stop", "BUY", "3", None, type="STOP", stopPrice="101")],
    [order("limit", "BUY", "3", "103", type="STOP_LIMIT", stopPrice="101")],
    [order("ask", "SELL", "5", "101")],
    [
        order("buyer", "BUY", "1", "101"),
        trade("BUY", "buyer", "ask", "1", "101", "1 FILLED", "1 PARTIALLY_FILLED", takerPrice="101"),
        trigger("stop", "BUY", "STOP", None, "101", "3", "101"),
        trade("BUY", "stop", "ask", "3", "101", "3 FILLED", "4 PARTIALLY_FILLED"),
        trigger("limit", "BUY", "STOP_LIMIT", "103", "101", "3", "101"),
        trade("BUY", "limit", "ask", "1", "101", "1 PARTIALLY_FILLED", "5 FILLED"),
        show("limit", "BUY", "103", "2", refill=False),
    ],
]


def test_triggered_stops_trade_and_rest() -> None:
    """Before its trigger a stop is in no level; after it, it takes what it can and shows the rest."""
    found, fold = broken(*STOP)
    assert found == set()
    assert (depth(fold, "BUY"), depth(fold, "SELL")) == ([("103", "2", 1)], [])
    assert depth(broken(*STOP[:2])[1], "BUY") == []


@pytest.mark.parametrize(
    ("event", "change", "invariant"),
    [
        (2, {"lastPrice": "100.00"}, "I-8"),
        (2, {"stopPrice": "102"}, "I-8"),
        (2, {"quantity": "4"}, "I-6"),
        (2, {"userId": 9}, "I-17"),
        (2, {"id": _id("ask")}, "I-8"),
        (5, {"price": "104"}, "I-7"),
        (6, {"quantity": "3"}, "I-6"),
    ],
)
def test_damaged_stop_is_caught(event: int, change: dict[str, Any], invariant: str) -> None:
    """Triggered too early, at a made-up price, twice, or for more than it has."""
    command = list(STOP[3])
    kind, data = command[event]
    command[event] = (kind, data | change)
    assert invariant in broken(*STOP[:3], command)[0]


def test_a_stop_that_trades_without_its_trigger_is_caught() -> None:
    """It is not the taker of the command."""
    command = [event for at, event in enumerate(STOP[3]) if at != 2]
    assert "I-7" in broken(*STOP[:3], command)[0]


def test_waiting_stops_end_outside_of_any_level() -> None:
    """Cancelled and amended they show nothing."""
    end = cancel("limit", "BUY", "103", "3", shownQuantity="0", stopPrice="101")
    found, fold = broken(STOP[1], [end])
    assert (found, fold.live) == (set(), {})
    amended = {
        "id": _id("limit"), "userId": 1, "side": "BUY", "price": "104", "quantity": "5", "filledQuantity": "0",
        "status": "PENDING", "keptPriority": True, "previousPrice": "103", "previousQuantity": "3",
        "shownQuantity": "0", "previousShownQuantity": "0", "stopPrice": "102", "previousStopPrice": "101",
    }  # fmt: skip
    found, fold = broken(STOP[1], [("AMEND", amended)])
    assert (found, depth(fold, "BUY"), fold.live[_id("limit")].stop_price) == (set(), [], "102")


def test_an_order_by_amount_trades_what_it_affords() -> None:
    """Its quantity is open until it ends; what is left of the amount is cancelled or is too little for a lot."""
    bought = trade("BUY", "amount", "ask", "2", "101", "2 PARTIALLY_FILLED", "2 PARTIALLY_FILLED")
    market = order("amount", "BUY", None, None, type="MARKET", quoteQuantity="250")
    end = cancel("amount", "BUY", None, None, "MARKET", quoteQuantity="48", filledQuantity="2", shownQuantity="0")
    assert broken([order("ask", "SELL", "5", "101")], [market, bought, end])[0] == set()
    assert "I-9" in broken([order("ask", "SELL", "5", "101")], [market, bought])[0]
    filled = ("TRADE", bought[1] | {"buyStatus": "FILLED"})
    assert broken([order("ask", "SELL", "5", "101")], [market, filled])[0] == set()


def test_trade_with_oneself_is_caught() -> None:
    """Unless the taker allows it."""
    ask = [order("ask", "SELL", "5", "101", userId=1)]
    own = {"takerPrice": "101", "sellUserId": 1}
    traded = trade("BUY", "bid", "ask", "5", "101", "5 FILLED", "5 FILLED", **own)
    assert broken(ask, [order("bid", "BUY", "5", "101"), traded])[0] == {"I-7"}
    assert broken(ask, [order("bid", "BUY", "5", "101", selfTradePrevention="NONE"), traded])[0] == set()


def test_expired_orders_say_so() -> None:
    """EXPIRED is the status just of those whose time or whose own user ended them."""
    placed = [order("gtd", "BUY", "5", "99", timeInForce="GTD", expiresAt=5)]
    ended = cancel("gtd", "BUY", "99", "5", "EXPIRED", status="EXPIRED")
    assert broken(placed, [ended])[0] == set()
    assert broken(placed, [cancel("gtd", "BUY", "99", "5", "EXPIRED")])[0] == {"I-10"}
    after = ("CANCEL_AFTER", {"userId": 1, "deadline": 7})
    late = cancel("gtd", "BUY", "99", "5", "CANCEL_AFTER")
    assert broken(placed, [after], [late], [("CANCEL_ALL", {"userId": 1, "count": 0})])[0] == set()


def test_fill_or_kill_that_rests_is_caught() -> None:
    """What is not filled at once is cancelled."""
    placed = order("fok", "BUY", "5", "99", timeInForce="FOK")
    assert broken([placed])[0] == {"I-9"}
    assert broken([placed, cancel("fok", "BUY", "99", "5", "FOK")])[0] == set()


def test_fill_or_kill_that_is_filled_in_part_is_caught() -> None:
    """Whatever ends it."""
    maker, placed = order("maker", "SELL", "2", "99"), order("fok", "BUY", "5", "99", timeInForce="FOK")
    taken = trade("BUY", "fok", "maker", "2", "99", "2 PARTIALLY_FILLED", "2 FILLED", takerPrice="99")
    ended = cancel("fok", "BUY", "99", "3", "SELF_TRADE", filledQuantity="2", status="EXPIRED")
    assert broken([maker], [placed, taken, ended])[0] == {"I-9"}


def test_event_of_an_unknown_type_is_caught() -> None:
    """Only the types of docs/wire.md exist."""
    assert broken([("PAUSE", {})])[0] == {"I-2"}
