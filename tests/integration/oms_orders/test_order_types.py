"""Every type of order from its request to what the OMS and the table say became of it."""

from __future__ import annotations

import time
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.integration.exchange import wait_until
from tests.integration.oms_orders.trading import Exchange


def now_ms() -> int:
    return int(time.time() * 1000)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def assert_row_says_the_same(exchange: Exchange, order: dict[str, Any]) -> None:
    """What the OMS answers of an order is what its row holds."""
    row = exchange.row(order["id"])
    assert row is not None
    for name in ("status", "side", "type", "timeInForce", "reason", "clientOrderId", "postOnly", "selfTradePrevention"):
        assert order[name] == row[name], name
    for name in ("price", "quantity", "filledQuantity", "stopPrice", "quoteQuantity", "displayQuantity"):
        assert row[name] == (None if order[name] is None else Decimal(str(order[name]))), name
    for name in ("createdAt", "updatedAt", "executedAt", "triggeredAt"):
        assert row[name] == (None if order[name] is None else moment(order[name]).replace(tzinfo=None)), name


def test_stop_order_waits_until_a_trade_reaches_its_price(exchange: Exchange) -> None:
    """PENDING without triggeredAt; then a market order, with triggeredAt, the trade's price and the fill."""
    market, owner = exchange.market(), exchange.user()
    stop = market.place(owner, type="STOP", side="BUY", quantity=3, stopPrice=102)
    market.trade(101)
    market.settled()
    waiting = exchange.order(owner, stop)
    assert (waiting["status"], waiting["triggeredAt"], waiting["stopPrice"]) == ("PENDING", None, "102")
    assert_row_says_the_same(exchange, waiting)
    market.place(exchange.user(), side="SELL", price=103, quantity=3)
    market.trade(102)
    filled = exchange.ended(owner, stop)
    assert (filled["status"], filled["type"], filled["price"]) == ("FILLED", "STOP", None)
    assert (filled["filledQuantity"], filled["averagePrice"]) == (3, "103")
    assert moment(filled["createdAt"]) <= moment(filled["triggeredAt"]) == moment(filled["executedAt"])
    assert_row_says_the_same(exchange, filled)


def test_stop_limit_order_rests_once_it_is_triggered(exchange: Exchange) -> None:
    """It keeps its limit, can be amended as a limit order, and is filled as one."""
    market, owner = exchange.market(), exchange.user()
    stop = market.place(owner, type="STOP_LIMIT", side="SELL", quantity=5, price=98.5, stopPrice=99)
    market.trade(99)
    wait_until(lambda: exchange.order(owner, stop)["triggeredAt"] is not None, "the trigger")
    rests = exchange.order(owner, stop)
    assert (rests["status"], rests["filledQuantity"], rests["price"]) == ("PENDING", 0, "98.5")
    assert_row_says_the_same(exchange, rests)
    refused = exchange.ask(owner, "PATCH", f"/orders/{stop}", {"stopPrice": 97})
    assert (refused[0], refused[1]["error"]["code"]) == (400, "STOP_PRICE_NOT_ALLOWED")
    assert exchange.ask(owner, "PATCH", f"/orders/{stop}", {"price": 98.6})[0] == 202
    wait_until(lambda: exchange.order(owner, stop)["price"] == "98.6", "the new price")
    market.place(exchange.user(), side="BUY", price=98.6, quantity=5)
    filled = exchange.ended(owner, stop)
    assert (filled["status"], filled["averagePrice"]) == ("FILLED", "98.6")
    assert_row_says_the_same(exchange, filled)


def test_stop_price_of_a_waiting_order_can_be_amended(exchange: Exchange) -> None:
    """The new stop price is what triggers it."""
    market, owner = exchange.market(), exchange.user()
    stop = market.place(owner, type="STOP_LIMIT", side="BUY", quantity=1, price=110, stopPrice=105)
    exchange.persisted(stop)
    assert exchange.ask(owner, "PATCH", f"/orders/{stop}", {"stopPrice": "101"})[0] == 202
    wait_until(lambda: exchange.order(owner, stop)["stopPrice"] == "101", "the new stop price")
    market.trade(101)
    wait_until(lambda: exchange.order(owner, stop)["triggeredAt"] is not None, "the trigger")


def test_market_order_for_an_amount_buys_what_it_affords(exchange: Exchange) -> None:
    """1,250 over two levels: 10 at 100 and 2 at 101 leave 48, less than a lot; trades and average are told."""
    market, owner, maker = exchange.market(), exchange.user(), exchange.user()
    exchange.persisted(*[market.place(maker, side="SELL", price=price, quantity=10) for price in (100, 101)])
    order_id = market.place(owner, type="MARKET", quantity=None, quoteQuantity="1250")
    order = exchange.ended(owner, order_id)
    assert (order["status"], order["quantity"], order["quoteQuantity"]) == ("FILLED", None, "1250")
    assert (order["filledQuantity"], order["averagePrice"]) == (12, "100.166666666667")
    assert_row_says_the_same(exchange, order)
    trades = [(trade["price"], trade["quantity"], trade["liquidity"]) for trade in order["trades"]]
    assert trades == [("100", 10, "TAKER"), ("101", 2, "TAKER")]


def test_amount_that_no_book_can_fill_is_cancelled(exchange: Exchange) -> None:
    """What is bought stays bought, and the reason says that the market had no more."""
    market, owner = exchange.market(), exchange.user()
    exchange.persisted(market.place(exchange.user(), side="SELL", price=100, quantity=1))
    order = exchange.ended(owner, market.place(owner, type="MARKET", quantity=None, quoteQuantity=1000))
    assert (order["status"], order["reason"], order["filledQuantity"]) == ("CANCELLED", "MARKET", 1)
    assert_row_says_the_same(exchange, order)


@pytest.mark.parametrize(
    ("time_in_force", "offered", "expected"),
    [
        ("IOC", 4, ("CANCELLED", "IOC", 4)),
        ("IOC", 10, ("FILLED", None, 10)),
        ("FOK", 4, ("CANCELLED", "FOK", 0)),
        ("FOK", 10, ("FILLED", None, 10)),
    ],
)
def test_order_that_may_not_rest(
    exchange: Exchange, time_in_force: str, offered: int, expected: tuple[str, str | None, int]
) -> None:
    """IOC takes what there is, FOK all or nothing; the reason is told."""
    market, owner = exchange.market(), exchange.user()
    exchange.persisted(market.place(exchange.user(), side="SELL", quantity=offered))
    order = exchange.ended(owner, market.place(owner, timeInForce=time_in_force))
    assert (order["status"], order["reason"], order["filledQuantity"]) == expected
    assert order["remainingQuantity"] == 0
    assert_row_says_the_same(exchange, order)


def test_order_expires_when_its_time_has_come_though_nobody_trades(exchange: Exchange) -> None:
    """The engine's heartbeat lets time pass in a market where nothing happens."""
    market, owner = exchange.market(), exchange.user()
    expires_at = now_ms() + 2_500
    order_id = market.place(owner, timeInForce="GTD", expiresAt=expires_at)
    exchange.persisted(order_id)
    waiting = exchange.order(owner, order_id)
    assert (waiting["status"], waiting["expiresAt"]) == ("PENDING", expires_at)
    order = exchange.ended(owner, order_id)
    assert (order["status"], order["reason"], order["filledQuantity"]) == ("EXPIRED", "EXPIRED", 0)
    assert moment(order["updatedAt"]).timestamp() * 1000 >= expires_at
    assert_row_says_the_same(exchange, order)
    assert {"command": "HEARTBEAT", "symbolId": market.symbol_id} in exchange.commands(market.symbol_id)
    status, answer, _ = exchange.ask(owner, "DELETE", f"/orders/{order_id}")
    assert (status, answer["error"]["code"]) == (409, "ALREADY_CLOSED")


def test_order_that_is_expired_already_is_rejected(exchange: Exchange) -> None:
    """Only the log's time can tell, so the OMS takes it and the engine rejects it."""
    market, owner = exchange.market(), exchange.user()
    order = exchange.ended(owner, market.place(owner, timeInForce="GTD", expiresAt=now_ms() - 60_000))
    assert (order["status"], order["reason"]) == ("REJECTED", "ALREADY_EXPIRED")
    assert_row_says_the_same(exchange, order)


def test_post_only_order_that_would_trade_is_rejected(exchange: Exchange) -> None:
    """One that would not, rests."""
    market, owner = exchange.market(), exchange.user()
    exchange.persisted(market.place(exchange.user(), side="SELL", price=101))
    rejected = exchange.ended(owner, market.place(owner, price=101, postOnly=True))
    assert (rejected["status"], rejected["reason"]) == ("REJECTED", "POST_ONLY_WOULD_TAKE")
    assert_row_says_the_same(exchange, rejected)
    order_id = market.place(owner, price=100.99, postOnly=True)
    exchange.persisted(order_id)
    rests = exchange.order(owner, order_id)
    assert (rests["status"], rests["postOnly"]) == ("PENDING", True)


def test_iceberg_order_shows_a_slice_and_trades_whole(exchange: Exchange) -> None:
    """Another order at its price goes before the slices that were not shown."""
    market, owner, other = exchange.market(), exchange.user(), exchange.user()
    iceberg = market.place(owner, side="SELL", quantity=30, displayQuantity=10)
    behind = market.place(other, side="SELL", quantity=5)
    exchange.persisted(iceberg, behind)
    market.place(exchange.user(), side="BUY", quantity=17)
    assert exchange.ended(other, behind)["status"] == "FILLED"
    partial = exchange.order(owner, iceberg)
    assert (partial["status"], partial["filledQuantity"], partial["remainingQuantity"]) == ("PARTIALLY_FILLED", 12, 18)
    assert partial["displayQuantity"] == 10
    assert_row_says_the_same(exchange, partial)
    market.place(exchange.user(), side="BUY", quantity=18)
    filled = exchange.ended(owner, iceberg)
    assert (filled["status"], sum(trade["quantity"] for trade in filled["trades"])) == ("FILLED", 30)


@pytest.mark.parametrize(
    ("mode", "taker", "maker"),
    [
        (None, ("EXPIRED", "SELF_TRADE"), ("PENDING", None)),
        ("EXPIRE_MAKER", ("PENDING", None), ("EXPIRED", "SELF_TRADE")),
        ("EXPIRE_BOTH", ("EXPIRED", "SELF_TRADE"), ("EXPIRED", "SELF_TRADE")),
        ("NONE", ("FILLED", None), ("FILLED", None)),
    ],
)
def test_orders_of_one_user_meet(
    exchange: Exchange, mode: str | None, taker: tuple[str, str | None], maker: tuple[str, str | None]
) -> None:
    """The taker's mode decides which of them expires; without one it is the taker."""
    market, owner = exchange.market(), exchange.user()
    resting, coming = market.place(owner, side="SELL"), market.place(owner, side="BUY", selfTradePrevention=mode)
    market.settled()
    orders = [exchange.order(owner, order_id) for order_id in (coming, resting)]
    assert [(order["status"], order["reason"]) for order in orders] == [taker, maker]
    assert orders[0]["selfTradePrevention"] == (mode or "EXPIRE_TAKER")
    for order in orders:
        assert_row_says_the_same(exchange, order)


def test_both_sides_see_their_trades_and_nobody_elses(exchange: Exchange) -> None:
    """Same trade ids on both sides, liquidity told apart, no other user named, fees of nothing."""
    market, maker, taker = exchange.market(), exchange.user(), exchange.user()
    sells = [market.place(maker, side="SELL", price=price, quantity=4) for price in (100, 100.5)]
    exchange.persisted(*sells)
    bought = exchange.ended(taker, market.place(taker, price=101, quantity=8))
    assert bought["averagePrice"] == "100.25"
    sold = [exchange.ended(maker, order_id) for order_id in sells]
    assert [trade["tradeId"] for trade in bought["trades"]] == [order["trades"][0]["tradeId"] for order in sold]
    assert {trade["liquidity"] for trade in bought["trades"]} == {"TAKER"}
    assert [trade["liquidity"] for order in sold for trade in order["trades"]] == ["MAKER", "MAKER"]
    fields = {"tradeId", "price", "quantity", "liquidity", "timestamp", "fee", "feeCurrency"}
    for order in (bought, *sold):
        assert (order["fee"], order["feeCurrency"]) == ("0", None)
        for trade in order["trades"]:
            assert set(trade) == fields
            assert (trade["fee"], trade["feeCurrency"]) == ("0", None)
    rows = exchange.rows('SELECT * FROM "Trade" WHERE "symbolId" = %s ORDER BY sequence', market.symbol_id)
    assert [row["id"] for row in rows] == [trade["tradeId"] for trade in bought["trades"]]
    assert [row["sellOrderId"] for row in rows] == sells
    listed = {order["id"]: order for order in exchange.ask(maker, "GET", "/orders")[1]["orders"]}
    assert [listed[order["id"]]["averagePrice"] for order in sold] == ["100", "100.5"]
