"""Replacing an order: the old one goes and the new one comes, or neither."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.oms_orders.trading import Exchange, Market


def replace(market: Market, user: str, old: str, **changes: Any) -> str:
    """Have an order replaced; return the new one's id."""
    status, answer, _ = market.exchange.ask(user, "POST", f"/orders/{old}/replace", market.body(**changes))
    assert status == 202, answer
    return str(answer["orderId"])


def test_open_order_goes_and_the_new_one_comes(exchange: Exchange) -> None:
    """One command; the new order is a whole order of its own, whatever the old one had of fills."""
    market, user = exchange.market(), exchange.user()
    old = market.place(user)
    market.place(exchange.user(), side="SELL", quantity=4)
    market.settled()
    new = replace(market, user, old, price=101, quantity=20, side="SELL")
    exchange.persisted(new)
    gone = exchange.ended(user, old)
    assert (gone["status"], gone["reason"], gone["filledQuantity"]) == ("CANCELLED", "REPLACED", 4)
    come = exchange.order(user, new)
    assert (come["status"], come["replaces"], come["filledQuantity"]) == ("PENDING", old, 0)
    assert (come["price"], come["quantity"], come["side"]) == ("101", 20, "SELL")
    row = exchange.row(new)
    assert row is not None
    assert row["replaces"] == old
    commands = [command for command in exchange.commands(market.symbol_id) if command.get("command") == "REPLACE"]
    assert [(command["id"], command["orderId"]) for command in commands] == [(new, old)]


def test_order_that_was_filled_meanwhile_is_not_replaced(exchange: Exchange) -> None:
    """The OMS cannot know it, the engine does: the fill stays, and the new order is rejected."""
    market, user = exchange.market(), exchange.user()
    with exchange.tables_behind():
        old = market.place(user)
        market.place(exchange.user(), side="SELL")
        new = replace(market, user, old, price=101)
    rejected = exchange.ended(user, new)
    assert (rejected["status"], rejected["reason"], rejected["replaces"]) == ("REJECTED", "UNKNOWN_ORDER", old)
    filled = exchange.order(user, old)
    assert (filled["status"], filled["filledQuantity"]) == ("FILLED", 10)
    again = exchange.ask(user, "POST", f"/orders/{old}/replace", market.body())
    assert (again[0], again[1]["error"]["code"]) == (409, "ALREADY_CLOSED")


def test_refused_replacement_leaves_the_old_order_in_the_book(exchange: Exchange) -> None:
    """With its place: who came later does not trade before it."""
    market, user, later = exchange.market(), exchange.user(), exchange.user()
    old, behind = market.place(user), market.place(later)
    exchange.persisted(market.place(exchange.user(), side="SELL", price=102), old, behind)
    rejected = exchange.ended(user, replace(market, user, old, price=103, postOnly=True))
    assert (rejected["status"], rejected["reason"]) == ("REJECTED", "POST_ONLY_WOULD_TAKE")
    assert exchange.order(user, old)["status"] == "PENDING"
    market.place(exchange.user(), side="SELL", quantity=10)
    assert exchange.ended(user, old)["status"] == "FILLED"
    assert exchange.order(later, behind)["filledQuantity"] == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"price": 100.001}, (400, "INVALID_TICK", "price")),
        ({"symbolId": 1}, (400, "INVALID_VALUE", "symbolId")),
        ({"userId": 1}, (400, "UNKNOWN_FIELD", "userId")),
        ({"orderId": "x"}, (400, "UNKNOWN_FIELD", "orderId")),
    ],
)
def test_bad_replacement_is_refused(
    exchange: Exchange, changes: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    """As a bad order is; the old one stays."""
    market, user = exchange.market(), exchange.user()
    old = market.place(user)
    status, answer, _ = exchange.ask(user, "POST", f"/orders/{old}/replace", market.body(**changes))
    assert (status, answer["error"]["code"], answer["error"].get("field")) == expected
    market.settled()
    assert exchange.order(user, old)["status"] == "PENDING"


def test_only_the_owner_replaces(exchange: Exchange) -> None:
    """Another's order is as unknown as one that never was."""
    market, user, thief = exchange.market(), exchange.user(), exchange.user()
    old = market.place(user, clientOrderId="mine")
    for order_id in (old, "client:mine", "00000000-0000-4000-8000-000000000000"):
        status, answer, _ = exchange.ask(thief, "POST", f"/orders/{order_id}/replace", market.body())
        assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")
    assert "REPLACE" not in json.dumps(exchange.commands(market.symbol_id))
