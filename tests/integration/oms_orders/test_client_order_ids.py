"""Client order ids: one order for each, however often and however many at once ask for it."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from forkast_streams.storage.postgres import Postgres
from tests.integration.exchange import wait_until
from tests.integration.oms_orders.trading import Exchange, Market

REPLAY = "Idempotent-Replay"
CONFLICT = (409, "CLIENT_ORDER_ID_CONFLICT", "clientOrderId")


def post(market: Market, user: str, **changes: Any) -> tuple[int, Any, dict[str, str]]:
    """Place an order with the client order id ``a-1``, or another one."""
    return market.exchange.ask(user, "POST", "/orders", market.body(**({"clientOrderId": "a-1"} | changes)))


def refusal(answer: tuple[int, Any, dict[str, str]]) -> tuple[int, str, str | None]:
    """Status, code and field of a refused request."""
    status, body, _ = answer
    return status, body["error"]["code"], body["error"].get("field")


def test_same_request_again_gets_the_same_answer_and_makes_nothing(exchange: Exchange) -> None:
    """However its numbers are written; a header tells the repeat, the log has one command."""
    market, user = exchange.market(), exchange.user()
    first = post(market, user)
    assert first[0] == 201
    assert first[1]["clientOrderId"] == "a-1"
    assert REPLAY not in first[2]
    for changes in ({}, {"quantity": "10.0", "price": "100.00"}, {"timeInForce": "GTC", "postOnly": False}):
        again = post(market, user, **changes)
        assert again[:2] == first[:2]
        assert again[2][REPLAY] == "true"
    assert [command["id"] for command in exchange.commands(market.symbol_id)] == [first[1]["orderId"]]
    assert exchange.order(user, first[1]["orderId"])["clientOrderId"] == "a-1"


OTHERS = [
    {"quantity": 11},
    {"price": 100.01},
    {"side": "SELL"},
    {"type": "MARKET"},
    {"timeInForce": "IOC"},
    {"postOnly": True},
    {"displayQuantity": 5},
    {"selfTradePrevention": "NONE"},
    {"type": "STOP_LIMIT", "stopPrice": 101},
    {"timeInForce": "GTD", "expiresAt": 4_000_000_000_000},
]


def test_another_request_with_a_used_id_is_refused(exchange: Exchange) -> None:
    """Whatever differs, the symbol too; the log has nothing of it."""
    market, elsewhere, user = exchange.market(), exchange.market(), exchange.user()
    first = post(market, user)
    for changes in OTHERS:
        assert refusal(post(market, user, **changes)) == CONFLICT, changes
    assert refusal(post(elsewhere, user)) == CONFLICT
    assert len(exchange.commands(market.symbol_id)) == 1
    assert not exchange.commands(elsewhere.symbol_id)
    assert post(market, user)[1] == first[1]


def test_refused_request_leaves_its_id_free(exchange: Exchange) -> None:
    """What breaks a rule of the symbol has no order, so its id stands for none."""
    market, user = exchange.market(), exchange.user()
    assert refusal(post(market, user, price=100.001)) == (400, "INVALID_TICK", "price")
    assert post(market, user)[0] == 201


def test_order_that_the_engine_rejects_keeps_its_id(exchange: Exchange) -> None:
    """The repeat tells of the rejected order instead of placing another."""
    market, user = exchange.market(), exchange.user()
    exchange.persisted(market.place(exchange.user(), side="SELL"))
    first = post(market, user, postOnly=True)
    assert exchange.ended(user, first[1]["orderId"])["status"] == "REJECTED"
    assert post(market, user, postOnly=True)[:2] == first[:2]


def test_fifty_equal_requests_at_once_make_one_order(exchange: Exchange) -> None:
    """All are answered with its id, one of them as the one that placed it."""
    market, user = exchange.market(), exchange.user()
    exchange.ask(user, "GET", "/symbols")
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(market, user), range(50)))
    assert {status for status, _, _ in answers} == {201}
    assert len({answer["orderId"] for _, answer, _ in answers}) == 1
    assert sum(REPLAY not in headers for _, _, headers in answers) == 1
    assert len(exchange.commands(market.symbol_id)) == 1


def test_users_have_their_own_ids(exchange: Exchange) -> None:
    """The same id is another order for another user, and nobody finds another's by it."""
    market, users = exchange.market(), [exchange.user(), exchange.user()]
    orders = [post(market, user)[1]["orderId"] for user in users]
    assert orders[0] != orders[1]
    assert [exchange.order(user, "client:a-1")["id"] for user in users] == orders
    assert exchange.ask(exchange.user(), "GET", "/orders/client:a-1")[0] == 404


def test_order_is_read_changed_replaced_and_cancelled_by_its_client_id(exchange: Exchange) -> None:
    """Everywhere where its own id is taken."""
    market, user = exchange.market(), exchange.user()
    order_id = post(market, user)[1]["orderId"]
    exchange.persisted(order_id)
    status, answer, _ = exchange.ask(user, "PATCH", "/orders/client:a-1", {"quantity": 7})
    assert (status, answer["orderId"]) == (202, order_id)
    wait_until(lambda: exchange.order(user, "client:a-1")["quantity"] == 7, "the new quantity")
    body = market.body(clientOrderId="a-2", price=99)
    status, answer, _ = exchange.ask(user, "POST", "/orders/client:a-1/replace", body)
    assert (status, answer["clientOrderId"]) == (202, "a-2")
    assert exchange.ended(user, "client:a-1")["reason"] == "REPLACED"
    exchange.persisted(answer["orderId"])
    assert exchange.order(user, "client:a-2")["replaces"] == order_id
    assert exchange.ask(user, "DELETE", "/orders/client:a-2")[1]["orderId"] == answer["orderId"]
    assert exchange.ended(user, "client:a-2")["reason"] == "USER"
    for path in ("client:", "client:a b", "client:" + "a" * 37, "Client:a-1"):
        assert exchange.ask(user, "GET", f"/orders/{path.replace(' ', '%20')}")[0] == 400
    assert exchange.ask(user, "GET", "/orders/client:a-3")[0] == 404


def test_replacement_that_is_sent_again_is_the_same_replacement(exchange: Exchange) -> None:
    """The first request has ended the old order, and the second one still gets the answer of the first."""
    market, user = exchange.market(), exchange.user()
    old = market.place(user)
    exchange.persisted(old)
    body = market.body(clientOrderId="a-1", price=99)
    first = exchange.ask(user, "POST", f"/orders/{old}/replace", body)
    assert exchange.ended(user, old)["reason"] == "REPLACED"
    again = exchange.ask(user, "POST", f"/orders/{old}/replace", body)
    assert (first[:2], again[2].get(REPLAY)) == (again[:2], "true")
    assert refusal(exchange.ask(user, "POST", f"/orders/{old}/replace", body | {"price": 98})) == CONFLICT
    unused = exchange.ask(user, "POST", f"/orders/{old}/replace", body | {"clientOrderId": "a-2"})
    assert refusal(unused) == (409, "ALREADY_CLOSED", None)
    assert refusal(post(market, user, price=99)) == CONFLICT
    assert len(exchange.commands(market.symbol_id)) == 2


def test_ids_in_a_batch(exchange: Exchange) -> None:
    """A batch sent again makes no order that has an id; one id twice in a batch is refused the second time."""
    market, user = exchange.market(), exchange.user()
    known = post(market, user)[1]
    batch = [market.body(clientOrderId=name) for name in ("a-1", "b-1", "b-2", "b-1")]
    batch += [market.body(clientOrderId="a-1", price=99)]
    results = exchange.ask(user, "POST", "/orders/batch", {"orders": batch})[1]["results"]
    assert results[0] == known
    assert [result.get("clientOrderId") for result in results[1:3]] == ["b-1", "b-2"]
    assert [result["error"]["code"] for result in results[3:]] == ["CLIENT_ORDER_ID_CONFLICT"] * 2
    again = exchange.ask(user, "POST", "/orders/batch", {"orders": batch[:3]})[1]["results"]
    assert again == results[:3]
    assert post(market, user, clientOrderId="b-2")[1] == results[2]
    assert len(exchange.commands(market.symbol_id)) == 3


def grow_old(exchange: Exchange, order_id: str, age: str) -> None:
    """Have the order's client id been claimed so much earlier."""
    statement = 'UPDATE "ClientOrderId" SET "createdAt" = "createdAt" - %s::interval WHERE "orderId" = %s'
    exchange.rows(statement, age, order_id)


@pytest.mark.parametrize(("age", "is_known"), [("23 hours 59 minutes", True), ("24 hours 1 minute", False)])
def test_ids_stand_for_their_orders_for_a_day(exchange: Exchange, age: str, *, is_known: bool) -> None:
    """After 24 hours an id makes a new order, and is free for another request; not a minute earlier."""
    market, user = exchange.market(), exchange.user()
    first = post(market, user)[1]["orderId"]
    exchange.persisted(first)
    grow_old(exchange, first, age)
    asyncio.run(_forget(exchange.env["DATABASE_URL"]))
    status, answer, headers = post(market, user)
    assert (status, answer["orderId"] == first, REPLAY in headers) == (201, is_known, is_known)
    assert exchange.order(user, "client:a-1")["id"] == answer["orderId"]


@pytest.mark.parametrize("age", ["24 hours 1 minute", "26 hours"])
def test_day_old_id_excuses_no_request(exchange: Exchange, age: str) -> None:
    """What would be a new order keeps the symbol's rules, and replaces nothing that has ended; the id still finds."""
    market, user = exchange.market(), exchange.user()
    old = post(market, user)[1]["orderId"]
    exchange.persisted(old)
    exchange.ask(user, "DELETE", f"/orders/{old}")
    exchange.ended(user, old)
    grow_old(exchange, old, age)
    asyncio.run(_forget(exchange.env["DATABASE_URL"]))
    assert refusal(post(market, user, price=100.001)) == (400, "INVALID_TICK", "price")
    body = market.body(clientOrderId="a-1", price=99)
    assert refusal(exchange.ask(user, "POST", f"/orders/{old}/replace", body)) == (409, "ALREADY_CLOSED", None)
    assert exchange.order(user, "client:a-1")["id"] == old
    assert len(exchange.commands(market.symbol_id)) == 2


def test_id_that_is_renewed_elsewhere_in_this_moment_is_the_renewed_one(exchange: Exchange) -> None:
    """Two processes meet a day-old id at once: the second one's repeat is that of the new order, not of the old."""
    market, user = exchange.market(), exchange.user()
    old, elsewhere = post(market, user)[1]["orderId"], str(uuid.uuid4())
    grow_old(exchange, old, "24 hours 1 minute")
    renew = 'UPDATE "ClientOrderId" SET "orderId" = %s, "createdAt" = now() AT TIME ZONE %s WHERE "orderId" = %s'
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with closing(psycopg2.connect(exchange.env["DATABASE_URL"])) as other, ThreadPoolExecutor(1) as pool:
        with other, other.cursor() as cursor:
            cursor.execute(renew, (elsewhere, "UTC", old))
            answer = pool.submit(post, market, user)
            wait_until(lambda: bool(exchange.rows(waits)), "the claim waiting for the other one")
        status, told, _ = answer.result()
    assert (status, told["orderId"]) == (201, elsewhere)


def test_old_ids_are_cleared_away_and_others_are_not(exchange: Exchange) -> None:
    """The registry holds what can still be asked for, and a little more."""
    market, user = exchange.market(), exchange.user()
    for name, age in (("old", "25 hours 1 minute"), ("new", "24 hours 59 minutes")):
        grow_old(exchange, post(market, user, clientOrderId=name)[1]["orderId"], age)
    asyncio.run(_forget(exchange.env["DATABASE_URL"]))
    kept = exchange.rows('SELECT "clientOrderId" FROM "ClientOrderId" WHERE "symbolId" = %s', market.symbol_id)
    assert [row["clientOrderId"] for row in kept] == ["new"]


async def _forget(database_url: str) -> None:
    async with Postgres(database_url) as postgres:
        await postgres.query("forget_client_ids")
