"""Many orders with one request: batches, batches of cancels, cancel-all and the dead-man's switch."""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from typing import Any

import pytest

from forkast_streams.config import RateSettings
from tests.integration.oms_orders.trading import Exchange, Market


def test_batch_of_a_hundred_orders_is_answered_in_its_order(exchange: Exchange) -> None:
    """Good and bad ones of two symbols: each has its own answer, and the good ones are in the log as they stood."""
    markets, user = (exchange.market(), exchange.market()), exchange.user()
    bodies: list[dict[str, Any]] = [markets[n % 2].body(price=50 + n) for n in range(100)]
    bad = {
        3: ({"price": 100.001}, "INVALID_TICK", "price"),
        10: ({"quantity": 0.5}, "INVALID_LOT", "quantity"),
        11: ({"type": "LIMITED"}, "INVALID_ENUM", "type"),
        50: ({"userId": 1}, "UNKNOWN_FIELD", "userId"),
        51: ({"symbolId": 2_000_000_000}, "UNKNOWN_SYMBOL", "symbolId"),
        98: ({"clientOrderId": ""}, "INVALID_VALUE", "clientOrderId"),
    }
    for at, (changes, _, _) in bad.items():
        bodies[at] |= changes
    status, answer, _ = exchange.ask(user, "POST", "/orders/batch", {"orders": bodies})
    assert status == 200
    results = answer["results"]
    assert len(results) == 100
    for at, result in enumerate(results):
        if at in bad:
            assert (result["error"]["code"], result["error"]["field"]) == bad[at][1:], at
        else:
            assert set(result) == {"orderId"}
    good = [(at, result["orderId"]) for at, result in enumerate(results) if at not in bad]
    for parity, market in enumerate(markets):
        placed = [(command["id"], command["price"]) for command in exchange.commands(market.symbol_id)]
        assert placed == [(order_id, str(50 + at)) for at, order_id in good if at % 2 == parity]
    assert exchange.order(user, good[-1][1])["price"] == "149"
    for market in markets:
        market.settled()
    pages = [exchange.ask(user, "GET", f"/orders?limit=100&page={page}")[1]["orders"] for page in (1, 2)]
    assert sorted(order["id"] for page in pages for order in page) == sorted(order_id for _, order_id in good)
    assert {order["status"] for order in pages[0]} == {"PENDING"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"orders": []}, "BATCH_SIZE"),
        ({"orders": [{}] * 101}, "BATCH_SIZE"),
        ({"orders": {}}, "INVALID_TYPE"),
        ({}, "MISSING_FIELD"),
        ([], "BODY_NOT_OBJECT"),
        ({"orders": [{}], "userId": 1}, "UNKNOWN_FIELD"),
    ],
)
def test_what_is_no_batch_is_refused_whole(exchange: Exchange, body: Any, code: str) -> None:
    """400 for the request instead of an answer for each."""
    status, answer, _ = exchange.ask(exchange.spectator, "POST", "/orders/batch", body)
    assert (status, answer["error"]["code"]) == (400, code)


def test_batch_of_cancels_is_answered_one_by_one(exchange: Exchange) -> None:
    """By id and by client id; of another user, unknown, ended and malformed ones each have their error."""
    market, user, other = exchange.market(), exchange.user(), exchange.user()
    mine, also_mine = market.place(user), market.place(user, clientOrderId="mine")
    ended = market.place(user, price=50, timeInForce="IOC")
    foreign = market.place(other)
    exchange.ended(user, ended)
    ids = [mine, foreign, "client:mine", str(uuid.uuid4()), ended, "x", "client:yours", mine]
    status, answer, _ = exchange.ask(user, "POST", "/orders/batch-cancel", {"ids": ids})
    assert status == 200
    told = [result.get("orderId") or result["error"]["code"] for result in answer["results"]]
    unknown = "NOT_FOUND"
    assert told == [mine, unknown, also_mine, unknown, "ALREADY_CLOSED", "INVALID_ID", unknown, mine]
    assert {result["status"] for result in answer["results"] if "status" in result} == {"CANCEL_REQUESTED"}
    for order_id in (mine, also_mine):
        order = exchange.ended(user, order_id)
        assert (order["status"], order["reason"]) == ("CANCELLED", "USER")
    assert exchange.order(other, foreign)["status"] == "PENDING"
    # The second cancel of an order has nothing to cancel any more, which its own command id tells.
    command_id = answer["results"][-1]["commandId"]
    market.settled()
    answers = [event for event in exchange.events(market.symbol_id) if event["data"].get("commandId") == command_id]
    assert [(event["type"], event["data"]["code"]) for event in answers] == [("REJECT", "UNKNOWN_ORDER")]
    for bad in ({"ids": []}, {"ids": [mine] * 101}):
        assert exchange.ask(user, "POST", "/orders/batch-cancel", bad)[1]["error"]["code"] == "BATCH_SIZE"


def statuses(exchange: Exchange, user: str, orders: list[str]) -> set[tuple[str, str | None]]:
    """Status and reason of the orders."""
    found = [exchange.order(user, order_id) for order_id in orders]
    return {(order["status"], order["reason"]) for order in found}


def place_all_kinds(market: Market, user: str) -> list[str]:
    """Orders that rest and orders that wait, none of which trade."""
    return [
        market.place(user),
        market.place(user, side="SELL", price=200, quantity=20, displayQuantity=5),
        market.place(user, type="STOP", stopPrice=300),
        market.place(user, timeInForce="GTD", expiresAt=4_000_000_000_000),
    ]


def test_all_orders_of_a_symbol_are_cancelled_and_then_those_of_all_symbols(exchange: Exchange) -> None:
    """Waiting stop orders too; other users' orders stay."""
    here, there, user, other = exchange.market(), exchange.market(), exchange.user(), exchange.user()
    mine_here, mine_there = place_all_kinds(here, user), place_all_kinds(there, user)
    theirs = [here.place(other), there.place(other)]
    status, answer, _ = exchange.ask(user, "DELETE", f"/orders?symbolId={here.symbol_id}")
    assert (status, answer["status"], answer["symbolIds"]) == (202, "CANCEL_REQUESTED", [here.symbol_id])
    here.settled()
    there.settled()
    assert statuses(exchange, user, mine_here) == {("CANCELLED", "CANCEL_ALL")}
    assert statuses(exchange, user, mine_there) == {("PENDING", None)}
    status, answer, _ = exchange.ask(user, "DELETE", "/orders")
    assert status == 202
    assert {here.symbol_id, there.symbol_id} < set(answer["symbolIds"])
    there.settled()
    assert statuses(exchange, user, mine_there) == {("CANCELLED", "CANCEL_ALL")}
    assert statuses(exchange, other, theirs) == {("PENDING", None)}


@pytest.mark.parametrize(
    ("method", "path", "body"), [("DELETE", "/orders", None), ("POST", "/orders/cancel-after", {"timeout": 0})]
)
def test_each_symbol_of_a_request_counts(exchange: Exchange, method: str, path: str, body: Any) -> None:
    """A request that makes a command for every symbol costs as much as a request for each of them."""
    tries = []
    for _ in range(5):
        user, began = exchange.user(), time.perf_counter()
        status, answer, headers = exchange.ask(user, method, path, body)
        seconds = time.perf_counter() - began
        assert status == 202
        spent = int(headers["RateLimit-Limit"]) - int(headers["RateLimit-Remaining"])
        tries.append((seconds, spent, len(answer["symbolIds"])))
    # Tokens come back while a request is answered, so the quickest one tells most.
    seconds, spent, symbols = min(tries)
    came_back = 1 + RateSettings.user * seconds
    assert 1 < symbols - came_back <= spent <= symbols


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?symbolId=2000000000", "UNKNOWN_SYMBOL"),
        ("?symbolId=x", "INVALID_TYPE"),
        ("?symbolId=1&symbolId=2", "DUPLICATE_PARAM"),
        ("?symbol=1", "UNKNOWN_PARAM"),
    ],
)
def test_misspelt_symbol_does_not_mean_all_of_them(exchange: Exchange, query: str, code: str) -> None:
    """400, for cancel-all as for the dead-man's switch."""
    for method, path, body in (("DELETE", "/orders", None), ("POST", "/orders/cancel-after", {"timeout": 1})):
        status, answer, _ = exchange.ask(exchange.spectator, method, path + query, body)
        assert (status, answer["error"]["code"]) == (400, code)


def test_dead_mans_switch_set_renewed_cleared_and_elapsed(exchange: Exchange) -> None:
    """Who sets it and falls silent has no orders any more; who renews it has them so much longer; who clears it, keeps.

    The orders that came after it was set go, too. Other users' orders are no matter of it.
    """
    market = exchange.market()
    silent, renewing, clearing, bystander = users = [exchange.user() for _ in range(4)]
    orders = {user: [market.place(user)] for user in users}
    path = f"/orders/cancel-after?symbolId={market.symbol_id}"
    for user, timeouts in ((renewing, (2, 3)), (clearing, (2, 0)), (silent, (2,))):
        for timeout in timeouts:
            status, answer, _ = exchange.ask(user, "POST", path, {"timeout": timeout})
            assert (status, answer["timeout"], answer["symbolIds"]) == (202, timeout, [market.symbol_id])
    orders[silent].append(market.place(silent, type="STOP", stopPrice=300))
    for order_id in orders[silent]:
        order = exchange.ended(silent, order_id)
        assert (order["status"], order["reason"]) == ("CANCELLED", "CANCEL_AFTER")
    last = exchange.ended(renewing, orders[renewing][0])
    assert (last["status"], last["reason"]) == ("CANCELLED", "CANCEL_AFTER")
    lived = datetime.fromisoformat(last["updatedAt"]) - datetime.fromisoformat(last["createdAt"])
    assert lived.total_seconds() >= 3
    market.settled()
    for user in (clearing, bystander):
        assert statuses(exchange, user, orders[user]) == {("PENDING", None)}
    after = market.place(silent)
    market.settled()
    assert exchange.order(silent, after)["status"] == "PENDING"


def test_dead_mans_switch_of_all_symbols(exchange: Exchange) -> None:
    """Without a symbol it is set in each of them."""
    markets, user = (exchange.market(), exchange.market()), exchange.user()
    orders = [order_id for market in markets for order_id in place_all_kinds(market, user)]
    status, answer, _ = exchange.ask(user, "POST", "/orders/cancel-after", {"timeout": 1})
    assert status == 202
    assert {market.symbol_id for market in markets} < set(answer["symbolIds"])
    for order_id in orders:
        order = exchange.ended(user, order_id)
        assert (order["status"], order["reason"]) == ("CANCELLED", "CANCEL_AFTER")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"timeout": -1}, "OUT_OF_RANGE"),
        ({"timeout": 86_401}, "OUT_OF_RANGE"),
        ({"timeout": 1.5}, "INVALID_TYPE"),
        ({"timeout": "60"}, "INVALID_TYPE"),
        ({"timeout": True}, "INVALID_TYPE"),
        ({}, "MISSING_FIELD"),
        ({"timeout": 1, "symbolId": 1}, "UNKNOWN_FIELD"),
    ],
)
def test_bad_timeout_is_refused(exchange: Exchange, body: dict[str, Any], code: str) -> None:
    """Whole seconds from 0 to a day, and nothing else in the body."""
    status, answer, _ = exchange.ask(exchange.spectator, "POST", "/orders/cancel-after", body)
    assert (status, answer["error"]["code"]) == (400, code)
