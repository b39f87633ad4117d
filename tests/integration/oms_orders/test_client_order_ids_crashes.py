"""Client order ids with a second OMS, one that dies with requests in its hands, or servers that do not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.integration.boundary import hanging
from tests.integration.exchange import Worker, wait_until
from tests.integration.oms_orders.trading import Exchange, Market

BATCH_IDS = ("b-1", "b-2", "b-3")
_SABOTAGE = Path(__file__).parents[1] / "sabotage"


@pytest.fixture(scope="module")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says at which point the doomed OMS kills itself; while it is not there, it lives."""
    return tmp_path_factory.mktemp("doomed") / "sabotage"


@pytest.fixture(scope="module")
def doomed(exchange: Exchange, flag: Path) -> Iterator[Worker]:
    """A second OMS."""
    path = os.pathsep.join([str(_SABOTAGE), os.environ.get("PYTHONPATH", "")])
    env = {"SABOTAGE": str(flag), "SABOTAGE_KIND": "order entry", "PYTHONPATH": path}
    worker = Worker("oms", exchange.env | env, flag.parent / "oms", instance="doomed").start()
    yield worker.wait_ready()
    worker.end()


def place_one(market: Market, user: str, oms: Worker) -> list[dict[str, Any]]:
    """Place an order with an id; return the accepted orders."""
    status, answer, _ = market.exchange.ask(user, "POST", "/orders", market.body(clientOrderId="a-1"), oms=oms)
    assert status == 201, answer
    return [answer]


def place_batch(market: Market, user: str, oms: Worker) -> list[dict[str, Any]]:
    """Place orders with ids in one request; return the accepted orders."""
    bodies = [market.body(clientOrderId=name) for name in BATCH_IDS]
    status, answer, _ = market.exchange.ask(user, "POST", "/orders/batch", {"orders": bodies}, oms=oms)
    assert status == 200, answer
    return list(answer["results"])


def place_all_at_once(market: Market, user: str, oms: Worker, *, times: int = 1) -> list[dict[str, Any]]:
    """Send both requests so many times at the same moment; each answer must be the same."""
    requests = [place_one, place_batch] * times
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(lambda place: place(market, user, oms), requests))
    assert all(answers[at] == answers[at % 2] for at in range(len(answers)))
    return answers[0] + answers[1]


def assert_one_order_each(market: Market, user: str, answers: list[dict[str, Any]]) -> None:
    """What was answered is what the registry, the engine's events and the table have, once each."""
    market.settled()
    ids = {answer["clientOrderId"]: answer["orderId"] for answer in answers}
    events = market.exchange.events(market.symbol_id)
    taken = [event["data"] for event in events if event["type"] == "ORDER" and "clientOrderId" in event["data"]]
    placed = [(order["clientOrderId"], order["id"]) for order in taken]
    assert sorted(placed) == sorted(ids.items())
    statement = 'SELECT "clientOrderId", {} AS id FROM "{}" WHERE "symbolId" = %s AND "clientOrderId" IS NOT NULL'
    for column, table in (('"orderId"', "ClientOrderId"), ("id", "Order")):
        rows = market.exchange.rows(statement.format(column, table), market.symbol_id)
        assert sorted((row["clientOrderId"], row["id"]) for row in rows) == sorted(ids.items())
    for name, order_id in ids.items():
        order = market.exchange.order(user, f"client:{name}")
        assert (order["id"], order["status"]) == (order_id, "PENDING")


def test_two_processes_and_both_routes_make_one_order_of_an_id(exchange: Exchange, doomed: Worker) -> None:
    """Alone and in a batch, from two OMS that do not know of each other, at the same moment."""
    market, user = exchange.market(), exchange.user()
    body = market.body(clientOrderId="a-1")

    def send(at: int) -> str:
        oms = (exchange.oms, doomed)[at % 2]
        if at % 4 < 2:
            return str(exchange.ask(user, "POST", "/orders", body, oms=oms)[1]["orderId"])
        answer = exchange.ask(user, "POST", "/orders/batch", {"orders": [body]}, oms=oms)[1]
        return str(answer["results"][0]["orderId"])

    for oms in (exchange.oms, doomed):
        exchange.ask(user, "GET", "/symbols", oms=oms)
    with ThreadPoolExecutor(24) as pool:
        (order_id,) = set(pool.map(send, range(24)))
    assert_one_order_each(market, user, [{"clientOrderId": "a-1", "orderId": order_id}])


@pytest.mark.parametrize("point", ["claimed", "appended", "claim sent"])
def test_requests_are_sent_again_after_their_oms_was_killed(
    exchange: Exchange, doomed: Worker, flag: Path, point: str
) -> None:
    """An order and a batch whose ids are registered and not in the log; which are in the log; while Postgres hangs.

    One order for each id in any case: from the same OMS after its start, with nothing remembered, and from another
    that is asked many times at once.
    """
    market, user = exchange.market(), exchange.user()
    exchange.ask(user, "GET", "/symbols", oms=doomed)
    flag.write_text(point)
    with (
        hanging(exchange.stack, "postgres") if point == "claim sent" else nullcontext(),
        ThreadPoolExecutor(2) as pool,
    ):
        cut_off = [pool.submit(place, market, user, doomed) for place in (place_one, place_batch)]
        assert all(isinstance(one.exception(), OSError) for one in cut_off)
    assert doomed._process is not None
    assert doomed._process.wait(timeout=10) == -9
    flag.unlink()
    in_log = [command["clientOrderId"] for command in exchange.commands(market.symbol_id)]
    assert sorted(in_log) == (["a-1", *BATCH_IDS] if point == "appended" else [])
    if point != "claim sent":
        doomed.start().wait_ready()
    if point == "claimed":
        answers = place_all_at_once(market, user, doomed)
    else:
        answers = place_all_at_once(market, user, exchange.oms, times=5)
    survivor = exchange.oms if point == "claim sent" else doomed
    assert place_one(market, user, survivor) + place_batch(market, user, survivor) == answers
    assert_one_order_each(market, user, answers)


def test_database_that_hangs_refuses_ids_and_forgets_none(exchange: Exchange) -> None:
    """503 without a word in the log; afterwards the same request makes one order, whatever became of its claim."""
    market, user = exchange.market(), exchange.user()
    exchange.ask(user, "GET", "/symbols")
    body = market.body(clientOrderId="a-1")
    with hanging(exchange.stack, "postgres"):
        status, answer, headers = exchange.ask(user, "POST", "/orders", body)
        assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
        assert int(headers["Retry-After"]) > 0
        # Orders without an id need no database.
        assert exchange.ask(user, "POST", "/orders", market.body(price=1))[0] == 201
        assert len(exchange.commands(market.symbol_id)) == 1
    wait_until(lambda: exchange.ask(user, "POST", "/orders", body)[0] == 201, "the database being back")
    assert_one_order_each(market, user, place_one(market, user, exchange.oms))


def test_log_that_hangs_gets_one_order_of_an_id(exchange: Exchange) -> None:
    """503, as nobody knows whether the log has it; the request is sent again as the answer says, and is one order."""
    market, user = exchange.market(), exchange.user()
    exchange.ask(user, "GET", "/symbols")
    with hanging(exchange.stack, "kafka"), ThreadPoolExecutor(2) as pool:
        alone = pool.submit(exchange.ask, user, "POST", "/orders", market.body(clientOrderId="a-1"))
        batch = {"orders": [market.body(clientOrderId=name) for name in BATCH_IDS]}
        together = pool.submit(exchange.ask, user, "POST", "/orders/batch", batch)
        assert (alone.result()[0], alone.result()[1]["error"]["code"]) == (503, "LOG_UNAVAILABLE")
        results = together.result()[1]["results"]
        assert [result["error"]["code"] for result in results] == ["LOG_UNAVAILABLE"] * 3
        told = {result["error"]["orderId"] for result in results} | {alone.result()[1]["error"]["orderId"]}
    body = market.body(clientOrderId="a-1")
    wait_until(lambda: exchange.ask(user, "POST", "/orders", body)[0] == 201, "the log being back")

    def batch_is_taken() -> bool:
        results = exchange.ask(user, "POST", "/orders/batch", batch)[1]["results"]
        return all("orderId" in result for result in results)

    wait_until(batch_is_taken, "the log taking the batch")
    answers = place_all_at_once(market, user, exchange.oms)
    assert told == {answer["orderId"] for answer in answers}
    assert_one_order_each(market, user, answers)
