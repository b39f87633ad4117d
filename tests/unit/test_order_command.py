"""``forkast order``: what it lists can be read, and what it cannot do both of it refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from forkast_streams.cli import app

ORDERS: list[dict[str, Any]] = [
    {"id": "d6b541e0-618e-4a9f-b1db-7ca5d4e2a8e5", "symbolId": 1, "side": "SELL", "price": "101.25", "type": "LIMIT",
     "filledQuantity": "10", "quantity": "15", "quoteQuantity": None, "status": "PARTIALLY_FILLED"},
    {"id": "9a8441e0-618e-4a9f-b1db-7ca5d4e2a8e5", "symbolId": 12, "side": "BUY", "price": None, "type": "MARKET",
     "filledQuantity": "1000000000.00000001", "quantity": None, "quoteQuantity": "1000000000000000.5",
     "status": "FILLED"},
]  # fmt: skip


@contextmanager
def oms(orders_there: list[dict[str, Any]]) -> Iterator[str]:
    """The address of an OMS that has orders, in a thread, because the command has an event loop of its own."""

    async def orders(_: web.Request) -> web.Response:
        return web.json_response({"orders": orders_there})

    application = web.Application()
    application.add_routes([web.get("/orders", orders)])
    loop = asyncio.new_event_loop()
    server = TestServer(application)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start_server(), loop).result()
        yield str(server.make_url(""))
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_in_a_pipe_every_order_is_a_whole_line() -> None:
    """Each cell in full, whatever the width of the terminal is."""
    with oms(ORDERS) as url:
        lines = CliRunner().invoke(app, ["order", "list", "--url", url.rstrip("/")]).stdout.splitlines()
    assert len(lines) == 2 + len(ORDERS)
    assert lines[2].split() == [ORDERS[0]["id"], "1", "SELL", "101.25", "10/15", "PARTIALLY_FILLED"]
    assert lines[3].split()[4:] == ["1000000000.00000001/1000000000000000.5", "FILLED"]


def test_on_a_terminal_of_80_columns_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usual order is one line there, too."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    with oms(ORDERS[:1]) as url:
        shown = CliRunner().invoke(app, ["order", "list", "--url", url.rstrip("/")]).stdout
    assert shown.splitlines()[-1].split() == [ORDERS[0]["id"], "1", "SELL", "101.25", "10/15", "PARTIALLY_FILLED"]
    assert max(map(len, shown.splitlines())) <= 80


def test_two_times_in_force_are_one_too_many() -> None:
    """An order is not sent with the one that was not meant."""
    result = CliRunner().invoke(app, ["order", "place", "1", "buy", "1", "--ioc", "--tif", "FOK"])
    assert result.exit_code == 2
    assert "--tif IOC" in result.output
