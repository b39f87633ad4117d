"""Symbols: their rules as the OMS and the engine keep them, and halting and resuming from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forkast_streams.errors import SetupError
from tests.integration.exchange import wait_until
from tests.integration.oms_orders.trading import Exchange, Market
from tests.integration.test_oms import call


def outcome(market: Market, user: str, **changes: Any) -> tuple[str, str | None]:
    """Status and reason of an order that ends at once."""
    order = market.exchange.ended(user, market.place(user, **changes))
    return order["status"], order["reason"]


def rejection_of(market: Market, command_id: str) -> str:
    """The code with which the engine refused a command."""
    market.settled()
    (event,) = [one for one in market.exchange.events(market.symbol_id) if one["data"].get("commandId") == command_id]
    assert event["type"] == "REJECT"
    return str(event["data"]["code"])


def test_halted_symbol_takes_nothing_until_it_is_resumed(exchange: Exchange) -> None:
    """Orders, cancels, amends and cancel-all are rejected by the engine, expiry goes on; ``sync`` resumes nothing."""
    market, user = exchange.market(), exchange.user()
    stays = market.place(user)
    exchange.persisted(stays)
    assert f"{market.name} is HALTED" in exchange.forkast("symbols", "halt", market.name)
    exchange.forkast("symbols", "sync")
    assert outcome(market, user) == ("REJECTED", "SYMBOL_HALTED")
    cancelled = exchange.ask(user, "DELETE", f"/orders/{stays}")[1]["commandId"]
    amended = exchange.ask(user, "PATCH", f"/orders/{stays}", {"quantity": 5})[1]["commandId"]
    everything = exchange.ask(user, "DELETE", f"/orders?symbolId={market.symbol_id}")[1]["commandId"]
    for command_id in (cancelled, amended, everything):
        assert rejection_of(market, command_id) == "SYMBOL_HALTED"
    assert outcome(market, user, clientOrderId="while-halted") == ("REJECTED", "SYMBOL_HALTED")
    assert (exchange.order(user, stays)["status"], exchange.order(user, stays)["quantity"]) == ("PENDING", 10)
    assert status_of(exchange, market) == "HALTED"
    exchange.forkast("symbols", "resume", str(market.symbol_id))
    market.place(exchange.user(), side="SELL")
    assert exchange.ended(user, stays)["status"] == "FILLED"
    assert status_of(exchange, market) == "TRADING"


def test_symbol_that_is_only_being_cancelled(exchange: Exchange) -> None:
    """Nothing is placed, changed or replaced; what is there can be cancelled."""
    market, user = exchange.market(), exchange.user()
    first, second = market.place(user), market.place(user, type="STOP", stopPrice=200)
    exchange.persisted(first, second)
    exchange.forkast("symbols", "cancel-only", market.name)
    assert outcome(market, user) == ("REJECTED", "CANCEL_ONLY")
    amended = exchange.ask(user, "PATCH", f"/orders/{first}", {"quantity": 5})[1]["commandId"]
    assert rejection_of(market, amended) == "CANCEL_ONLY"
    status, answer, _ = exchange.ask(user, "POST", f"/orders/{first}/replace", market.body(price=99))
    assert status == 202
    assert exchange.ended(user, answer["orderId"])["reason"] == "CANCEL_ONLY"
    assert exchange.order(user, first)["quantity"] == 10
    exchange.ask(user, "DELETE", f"/orders/{first}")
    assert exchange.ended(user, first)["reason"] == "USER"
    exchange.ask(user, "DELETE", f"/orders?symbolId={market.symbol_id}")
    assert exchange.ended(user, second)["reason"] == "CANCEL_ALL"
    exchange.forkast("symbols", "resume", market.name)
    assert exchange.order(user, resumed := market.place(user))["id"] == resumed
    market.settled()
    assert exchange.order(user, resumed)["status"] == "PENDING"


def status_of(exchange: Exchange, market: Market) -> str:
    """The status in the table."""
    (row,) = exchange.rows('SELECT status FROM "Symbol" WHERE id = %s', market.symbol_id)
    return str(row["status"])


def test_command_line_knows_the_symbols(exchange: Exchange) -> None:
    """It lists them with their rules, and an unknown one is an error that says what to do."""
    listed = exchange.forkast("symbols", "list")
    (line,) = [line for line in listed.splitlines() if exchange.market("bounded").name in line]
    cells = [cell.strip() for cell in line.strip("│┃").split("│")]
    assert cells[2:] == ["TRADING", "0.01", "1", "5", "100", "1000", "", ""]
    with pytest.raises(SetupError, match="no symbol 'NONE'; `forkast symbols list` shows"):
        exchange.forkast("symbols", "halt", "NONE")


def test_symbol_is_not_guessed(exchange: Exchange) -> None:
    """A name that is another one's id, as numbers are names at some exchanges, halts neither of them."""
    market, named_so = exchange.market(), exchange.market()
    rename = 'UPDATE "Symbol" SET symbol = %s WHERE id = %s'
    exchange.rows(rename, str(market.symbol_id), named_so.symbol_id)
    try:
        with pytest.raises(SetupError, match=rf"can be {market.name} .* and {market.symbol_id} .*by its id"):
            exchange.forkast("symbols", "halt", str(market.symbol_id))
        assert {status_of(exchange, market), status_of(exchange, named_so)} == {"TRADING"}
        assert f"{market.symbol_id} is HALTED" in exchange.forkast("symbols", "halt", str(named_so.symbol_id))
        user = exchange.user()
        assert outcome(named_so, user) == ("REJECTED", "SYMBOL_HALTED")
        exchange.persisted(order_id := market.place(user))
        assert exchange.order(user, order_id)["status"] == "PENDING"
    finally:
        exchange.rows(rename, named_so.name, named_so.symbol_id)


def test_grid_under_open_orders_stays_until_they_are_gone(exchange: Exchange) -> None:
    """The engine refuses the new tick size, and who published it hears so; ``sync`` again sets it in an empty book."""
    market, user = exchange.market(), exchange.user()
    resting = market.place(user)
    exchange.persisted(resting)
    exchange.rows('UPDATE "Symbol" SET "tickSize" = 0.001 WHERE id = %s', market.symbol_id)
    with pytest.raises(SetupError, match=f"for {market.name}: .*book is empty.*sync again"):
        exchange.forkast("symbols", "sync")

    def tick() -> str:
        symbols = exchange.ask(user, "GET", "/symbols")[1]["symbols"]
        return next(str(symbol["tickSize"]) for symbol in symbols if symbol["id"] == market.symbol_id)

    wait_until(lambda: tick() == "0.001", "the OMS knowing the new tick size")
    assert outcome(market, user, price=100.001) == ("REJECTED", "INVALID_TICK")
    rejected = [event["data"] for event in exchange.events(market.symbol_id) if event["type"] == "REJECT"]
    assert [(data["command"], data["code"]) for data in rejected] == [
        ("SYMBOL", "SYMBOL_IN_USE"), ("NEW", "INVALID_TICK")]  # fmt: skip
    assert exchange.order(user, resting)["status"] == "PENDING"
    exchange.ask(user, "DELETE", f"/orders/{resting}")
    exchange.ended(user, resting)
    exchange.forkast("symbols", "sync")
    exchange.persisted(market.place(exchange.user(), side="SELL", price=100.001))
    filled = exchange.ended(user, market.place(user, price=100.001))
    assert (filled["status"], filled["averagePrice"]) == ("FILLED", "100.001")


def test_new_rules_reach_the_oms_and_the_engine(exchange: Exchange) -> None:
    """After ``sync``: the symbol is listed with them, and orders are held to them."""
    market, user, early = exchange.market(), exchange.user(), exchange.user()
    order_id = market.place(early, quantity=4, clientOrderId="early")
    exchange.rows('UPDATE "Symbol" SET "minQuantity" = 5, "maxOpenOrders" = 1 WHERE id = %s', market.symbol_id)
    exchange.forkast("symbols", "sync")

    def rules() -> dict[str, Any]:
        symbols = exchange.ask(user, "GET", "/symbols")[1]["symbols"]
        return next(symbol for symbol in symbols if symbol["id"] == market.symbol_id)

    wait_until(lambda: rules()["minQuantity"] == "5", "the new rule")
    assert (rules()["maxOpenOrders"], rules()["maxQuantity"]) == (1, None)
    too_small = ("QUANTITY_TOO_SMALL", "quantity")
    assert market.refused(user, quantity=4) == market.refused(user, quantity=4, clientOrderId="late") == too_small
    # What was taken before is taken, and whoever asks again must not believe that it was not.
    assert market.place(early, quantity=4, clientOrderId="early") == order_id
    batch = {"orders": [market.body(quantity=4, clientOrderId="early"), market.body(quantity=4)]}
    results = exchange.ask(early, "POST", "/orders/batch", batch)[1]["results"]
    assert (results[0]["orderId"], results[1]["error"]["code"]) == (order_id, "QUANTITY_TOO_SMALL")
    status, answer, _ = exchange.ask(early, "POST", "/orders", market.body(quantity=3, clientOrderId="early"))
    assert (status, answer["error"]["code"]) == (409, "CLIENT_ORDER_ID_CONFLICT")
    # A number that no symbol ever allowed is not even written out to be compared.
    tiny = json.dumps(market.body(price="@", clientOrderId="early")).replace('"@"', "1e-99999").encode()
    assert call(exchange.oms, "POST", "/orders", tiny, user=early)[1]["error"]["code"] == "INVALID_TICK"
    market.place(user)
    assert outcome(market, user) == ("REJECTED", "TOO_MANY_OPEN_ORDERS")


def test_fractions_of_a_lot_trade_exactly(exchange: Exchange) -> None:
    """With lots of 0.001: what is filled and what is left are exact numbers, and an amount buys thousandths."""
    market, user, maker = exchange.market("fractional"), exchange.user(), exchange.user()
    assert market.refused(user, quantity="0.0015") == ("INVALID_LOT", "quantity")
    assert market.refused(user, quantity=0.1, displayQuantity=0.0001)[0] == "INVALID_DISPLAY_QUANTITY"
    sold = market.place(maker, side="SELL", quantity=1.234)
    bought = exchange.ended(user, market.place(user, quantity="0.001"))
    assert (bought["status"], bought["filledQuantity"], bought["trades"][0]["quantity"]) == ("FILLED", 0.001, 0.001)
    exchange.ended(user, market.place(user, quantity="0.232"))
    left = exchange.order(maker, sold)
    assert (left["filledQuantity"], left["remainingQuantity"]) == (0.233, 1.001)
    amount = exchange.ended(user, market.place(user, type="MARKET", quantity=None, quoteQuantity="50.06"))
    assert (amount["status"], amount["filledQuantity"]) == ("FILLED", 0.5)
    (row,) = exchange.rows('SELECT quantity - "filledQuantity" AS left FROM "Order" WHERE id = %s', sold)
    assert str(row["left"].normalize()) == "0.501"


def test_sizes_out_of_bounds_are_refused_by_the_oms(exchange: Exchange) -> None:
    """400 with code and field; sizes at the bounds are taken."""
    market, user = exchange.market("bounded"), exchange.user()
    assert market.refused(user, quantity=4, price=500) == ("QUANTITY_TOO_SMALL", "quantity")
    assert market.refused(user, quantity=101) == ("QUANTITY_TOO_LARGE", "quantity")
    assert market.refused(user, quantity=10, price=99.99) == ("MIN_NOTIONAL", "quantity")
    assert market.refused(user, type="MARKET", quantity=None, quoteQuantity=999)[0] == "MIN_NOTIONAL"
    for changes in ({"quantity": 5, "price": 200}, {"quantity": 100, "price": 10}, {"quantity": 10, "price": 100}):
        market.place(user, **changes)
    assert exchange.commands(market.symbol_id)[-1]["quantity"] == "10"


def test_amendment_out_of_bounds_is_refused_by_the_engine(exchange: Exchange) -> None:
    """Which knows the price that the order has; the order stays as it is."""
    market, user = exchange.market("bounded"), exchange.user()
    order_id = market.place(user, price=90, quantity=20)
    exchange.persisted(order_id)
    for changes, code in (({"quantity": 4}, "QUANTITY_TOO_SMALL"), ({"quantity": 101}, "QUANTITY_TOO_LARGE"),
                          ({"quantity": 11}, "MIN_NOTIONAL"), ({"price": 10}, "MIN_NOTIONAL")):  # fmt: skip
        status, answer, _ = exchange.ask(user, "PATCH", f"/orders/{order_id}", changes)
        assert status == 202
        assert rejection_of(market, answer["commandId"]) == code
    order = exchange.order(user, order_id)
    assert (order["price"], order["quantity"], order["status"]) == ("90", 20, "PENDING")


def test_prices_far_from_the_last_trade_are_rejected(exchange: Exchange) -> None:
    """Limits beyond the collar, once there was a trade; a market order stops at the collar."""
    market, user, maker = exchange.market("collared"), exchange.user(), exchange.user()
    early = market.place(maker, side="SELL", price=150)
    market.trade(100)
    assert outcome(market, user, side="SELL", price=110.01) == ("REJECTED", "PRICE_COLLAR")
    assert outcome(market, user, price=89.99) == ("REJECTED", "PRICE_COLLAR")
    exchange.persisted(early, market.place(maker, side="SELL", price=110, quantity=3))
    stopped = exchange.ended(user, market.place(user, type="MARKET"))
    assert (stopped["status"], stopped["reason"], stopped["filledQuantity"]) == ("CANCELLED", "COLLAR", 3)


def test_user_has_only_so_many_open_orders(exchange: Exchange) -> None:
    """The one too many is rejected; when another has ended there is room again, and other users have their own."""
    market, user, other = exchange.market("crowded"), exchange.user(), exchange.user()
    first, _ = market.place(user), market.place(user, type="STOP", stopPrice=200)
    assert outcome(market, user) == ("REJECTED", "TOO_MANY_OPEN_ORDERS")
    others = market.place(other)
    exchange.ask(user, "DELETE", f"/orders/{first}")
    exchange.ended(user, first)
    room = market.place(user)
    market.settled()
    assert exchange.order(other, others)["status"] == exchange.order(user, room)["status"] == "PENDING"
    row = exchange.rows('SELECT reason FROM "Order" WHERE "userId" = %s AND status = %s', int(user[7:]), "REJECTED")
    assert [one["reason"] for one in row] == ["TOO_MANY_OPEN_ORDERS"]


def test_orders_of_the_command_line(exchange: Exchange) -> None:
    """``forkast order`` places, lists, amends, replaces and cancels, with the fields of every type."""
    market, user = exchange.market(), exchange.user()
    who = ("--user", f"{user}@example.com")

    def order(*arguments: str) -> str:
        return exchange.forkast("order", *arguments, *who).strip()

    stop = order("place", market.name, "sell", "30", "--price", "98", "--stop", "99", "--tif", "GTD", "--expires-at",
                 "4000000000000", "--post-only", "--display", "10", "--stp", "NONE", "--client-id", "c-1")  # fmt: skip
    made = exchange.order(user, "client:c-1")
    assert (made["id"], made["type"], made["side"], made["price"], made["stopPrice"]) == (
        stop, "STOP_LIMIT", "SELL", "98", "99")  # fmt: skip
    assert (made["timeInForce"], made["expiresAt"], made["postOnly"]) == ("GTD", 4_000_000_000_000, True)
    assert (made["quantity"], made["displayQuantity"], made["selfTradePrevention"]) == (30, 10, "NONE")
    amount = order("place", market.name, "buy", "--amount", "500.50")
    assert exchange.ended(user, amount)["quoteQuantity"] == "500.5"
    assert order("amend", "client:c-1", "--quantity", "20") == "AMEND_REQUESTED"
    limit = order("place", market.name, "sell", "10", "--price", "97", "--replaces", stop)
    assert exchange.ended(user, stop)["reason"] == "REPLACED"
    assert order("cancel", limit) == "CANCEL_REQUESTED"
    assert exchange.ended(user, limit)["reason"] == "USER"
    last = order("place", market.name, "buy", "10", "--price", "97")
    assert order("cancel-all", market.name) == "CANCEL_REQUESTED"
    assert exchange.ended(user, last)["reason"] == "CANCEL_ALL"
    listed = order("list")
    assert all(order_id in listed for order_id in (stop, amount, limit, last))
    assert "0/500.5" in listed
