"""The exchange from outside: started as a newcomer starts it, used as the predecessor's clients use it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.acceptance.running import Exchange
from tests.integration.exchange import wait_until


def limit(side: str, quantity: int, price: float, symbol_id: int = 1) -> dict[str, Any]:
    """A limit order's fields as the predecessor's README has them."""
    return {"symbolId": symbol_id, "type": "LIMIT", "quantity": quantity, "side": side, "price": price}


def test_two_orders_make_a_trade_at_the_makers_price(exchange: Exchange) -> None:
    """Sell 10 at 101, buy 15 at 102: ten trade at 101, five rest at 102, and every view agrees."""
    sell = exchange.place("alice", **limit("SELL", 10, 101))
    buy = exchange.place("bob", **limit("BUY", 15, 102))
    assert exchange.wait_for_status("alice", sell, "FILLED")["filledQuantity"] == 10
    assert exchange.wait_for_status("bob", buy, "PARTIALLY_FILLED")["filledQuantity"] == 10
    wait_until(lambda: [level["quantity"] for level in exchange.book(1)["buy"]] == ["5"], "the rest in the book")
    assert exchange.book(1)["buy"][0]["price"] == "102.00"
    _, trades = exchange.call("GET", f"{exchange.url('keeper')}/trades/1")
    assert (trades["trades"][0]["price"], trades["trades"][0]["quantity"]) == ("101.00", "10")
    status, body = exchange.call("DELETE", f"{exchange.url('oms')}/orders/{buy}", user="bob@example.com")
    assert status == 202, body
    assert exchange.wait_for_status("bob", buy, "CANCELLED")["filledQuantity"] == 10
    wait_until(lambda: not exchange.book(1)["buy"], "the empty book")


def test_order_can_be_read_the_moment_its_post_has_answered(exchange: Exchange) -> None:
    """No poll, no 404 in between, and nobody else sees it."""
    for number in range(20):
        order_id = exchange.place("carol", **limit("BUY", 1, 10 + number, symbol_id=2))
        assert exchange.order("carol", order_id)["quantity"] == 1
        status, foreign = exchange.call("GET", f"{exchange.url('oms')}/orders/{order_id}", user="bob@example.com")
        _, unknown = exchange.call(
            "GET", f"{exchange.url('oms')}/orders/00000000-0000-4000-8000-000000000000", user="bob@example.com"
        )
        assert status == 404
        assert foreign == unknown


def test_another_users_order_stays_unknown_once_it_has_a_row(exchange: Exchange) -> None:
    """As while it was pending: every route answers as if there were no such order, and nothing happens to it."""
    body = limit("SELL", 5, 300, symbol_id=3)
    order_id = exchange.place("carol", clientOrderId="row-1", **body)
    with closing(psycopg2.connect(exchange.env()["DATABASE_URL"])) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def has_row() -> bool:
            cursor.execute('SELECT FROM "Order" WHERE id = %s', (order_id,))
            return bool(cursor.rowcount)

        wait_until(has_row, "the order's row")
    oms = exchange.url("oms")
    for path in (order_id, "client:row-1"):
        for method, end, sent in (
            *(("GET", "", None), ("PATCH", "", {"quantity": 1}), ("DELETE", "", None)),
            ("POST", "/replace", body),
        ):
            foreign = exchange.call(method, f"{oms}/orders/{path}{end}", sent, user="bob@example.com")
            assert foreign == (404, {"error": {"code": "NOT_FOUND", "message": "you have no order with this id"}})
    _, batch = exchange.call("POST", f"{oms}/orders/batch-cancel", {"ids": [order_id]}, user="bob@example.com")
    assert batch["results"][0]["error"]["code"] == "NOT_FOUND"
    _, listed = exchange.call("GET", f"{oms}/orders?limit=100", user="bob@example.com")
    assert order_id not in [order["id"] for order in listed["orders"]]
    # Whatever bob had asked for would have been decided by now: carol's own request comes behind it in the log.
    assert exchange.call("PATCH", f"{oms}/orders/{order_id}", {"quantity": 4}, user="carol@example.com")[0] == 202
    wait_until(lambda: exchange.order("carol", order_id)["quantity"] == 4, "the smaller quantity")
    assert exchange.order("carol", order_id)["status"] == "PENDING"
    assert exchange.call("DELETE", f"{oms}/orders/{order_id}", user="carol@example.com")[0] == 202
    exchange.wait_for_status("carol", order_id, "CANCELLED")


def test_amend_to_less_keeps_the_place_and_to_more_loses_it(exchange: Exchange) -> None:
    """The first of two equal offers stays first when made smaller, and comes second when made larger."""
    first = exchange.place("david", **limit("SELL", 5, 200, symbol_id=3))
    second = exchange.place("eve", **limit("SELL", 5, 200, symbol_id=3))
    oms = exchange.url("oms")
    assert exchange.call("PATCH", f"{oms}/orders/{first}", {"quantity": 3}, user="david@example.com")[0] == 202
    wait_until(lambda: exchange.order("david", first)["quantity"] == 3, "the smaller quantity")
    exchange.place("frank", **limit("BUY", 1, 200, symbol_id=3))
    wait_until(lambda: exchange.order("david", first)["filledQuantity"] == 1, "the first order's fill")
    assert exchange.call("PATCH", f"{oms}/orders/{first}", {"quantity": 9}, user="david@example.com")[0] == 202
    wait_until(lambda: exchange.order("david", first)["quantity"] == 9, "the larger quantity")
    exchange.place("frank", **limit("BUY", 1, 200, symbol_id=3))
    wait_until(lambda: exchange.order("eve", second)["filledQuantity"] == 1, "the second order's fill")
    assert exchange.order("david", first)["filledQuantity"] == 1


def test_market_order_never_rests(exchange: Exchange) -> None:
    """Against an empty book it is cancelled at once."""
    market = {"symbolId": 4, "type": "MARKET", "quantity": 5, "side": "BUY"}
    order_id = exchange.place("grace", **market)
    assert exchange.wait_for_status("grace", order_id, "CANCELLED")["reason"] == "MARKET"


def test_wrong_password_is_refused_everywhere(exchange: Exchange) -> None:
    """No route of the OMS or the keeper answers without a right password."""
    for url in (f"{exchange.url('oms')}/orders", f"{exchange.url('keeper')}/order-book/1"):
        assert exchange.call("GET", url, user=None)[0] == 401
        assert exchange.call("GET", url, user="nobody@example.com")[0] == 401


@pytest.mark.parametrize("role", ["engine", "sink", "keeper", "oms"])
def test_killed_worker_comes_back_by_itself(exchange: Exchange, role: str) -> None:
    """Kill -9 of a role: the supervisor starts it again, and orders placed after that go through."""
    victim = exchange.worker(role)
    victim.kill()
    wait_until(lambda: not victim.is_running(), f"the end of the {role}")
    wait_until(lambda: _is_ready(exchange, role), f"the {role} being back")
    sell = exchange.place("hank", **limit("SELL", 1, 50, symbol_id=5))
    exchange.place("irene", **limit("BUY", 1, 50, symbol_id=5))
    exchange.wait_for_status("hank", sell, "FILLED")


def _is_ready(exchange: Exchange, role: str) -> bool:
    try:
        return exchange.call("GET", f"{exchange.url(role)}/ready", user=None)[0] == 200
    except OSError:
        return False


def test_stop_leaves_no_process_and_the_next_start_has_the_same_data(exchange: Exchange) -> None:
    """SIGTERM stops everything; afterwards the book is as it was."""
    order_id = exchange.place("jack", **limit("BUY", 7, 33.5, symbol_id=6))
    wait_until(lambda: [level["quantity"] for level in exchange.book(6)["buy"]] == ["7.00000"], "the order in the book")
    before = exchange.book(6)
    assert exchange.stop(signal.SIGTERM) == 0
    assert exchange.processes() == []
    exchange.start()
    assert exchange.order("jack", order_id)["status"] == "PENDING"
    assert exchange.book(6)["buy"] == before["buy"]
    exchange.place("alice", **limit("SELL", 7, 33.5, symbol_id=6))
    exchange.wait_for_status("jack", order_id, "FILLED")


def test_taken_port_is_one_sentence(exchange: Exchange) -> None:
    """A second exchange on the same ports says which port is taken and what to do."""
    roles = json.loads((exchange.folder / "data" / "roles.json").read_text())
    with tempfile.TemporaryDirectory() as other:
        (Path(other) / "roles.json").write_text(json.dumps(roles))
        result = subprocess.run(
            [sys.executable, "-m", "forkast_streams", "up", "--data-dir", other],
            capture_output=True, text=True, timeout=60, check=False, env=os.environ | {"COLUMNS": "400"},
        )  # fmt: skip
    assert result.returncode == 1
    assert f"port {roles['engine']} for engine is taken" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_second_start_in_a_folder_changes_nothing(exchange: Exchange) -> None:
    """It is refused, and the next start has the ports that are known."""
    roles = exchange.folder / "data" / "roles.json"
    before = roles.read_text()
    command = [sys.executable, "-m", "forkast_streams", "up", "--data-dir", str(roles.parent), "--ports", "auto"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "managed by process" in result.stderr
    assert roles.read_text() == before


def _in_a_terminal() -> None:
    """Make the standard input the terminal of this new session; whoever runs the tests may have used nohup."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_terminal_that_closes_leaves_no_process() -> None:
    """As a lost connection to the machine does it: there is nobody left to press Ctrl-C, and nowhere to say it."""
    with tempfile.TemporaryDirectory(prefix="forkast-up-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        exchange = Exchange(Path(name))
        screen, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "forkast_streams", "up", "--data-dir", f"{name}/data", "--ports", "auto"],
            stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | {"COLUMNS": "200"},
            start_new_session=True, preexec_fn=_in_a_terminal,
        )  # fmt: skip
        os.close(terminal)
        try:
            said = b""
            while b"Ctrl-C stops everything" not in said:
                said += os.read(screen, 4_096)
            assert exchange.processes() != []
            os.close(screen)
            assert process.wait(timeout=60) == 0
            assert exchange.processes() == []
        finally:
            for left in exchange.processes():
                left.kill()
            process.wait()
