"""Recorded order flow through the whole exchange: what comes out is what was recorded, and every view agrees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg2

from tests.acceptance.running import Exchange
from tests.integration.exchange import wait_until
from tests.support.recordings import HOUR, made_up_day

# XAUUSD: ticks of 0.01, lots of 1, and no other test trades it.
SYMBOL, SYMBOL_ID = "XAUUSD", 10
# Of the hour's 4,067 executions, those that a plain book gives the right maker.
HOUR_AT_HEAD_MIN = 4_043


@contextmanager
def database(exchange: Exchange) -> Iterator[Any]:
    """A cursor of the exchange's database."""
    connection = psycopg2.connect(exchange.env()["DATABASE_URL"])
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def rows(exchange: Exchange, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query about the symbol."""
    with database(exchange) as cursor:
        cursor.execute(query, (SYMBOL_ID,))
        return list(cursor.fetchall())


def test_recording_comes_out_right_in_every_view(exchange: Exchange, tmp_path: Path) -> None:
    """All executions at their price, never a crossed book; database, book and tape tell the same afterwards.

    The real hour is replayed where it lies beside the project, else a made-up recording of the same format.
    """
    recording = HOUR if HOUR.exists() else made_up_day(3_000).save(tmp_path)[0]
    print(f"replaying {recording.name}")  # noqa: T201 - says which of the two it is
    command = [
        sys.executable,
        "-m",
        "forkast_streams",
        "replay",
        "lobster",
        str(recording),
        "--symbol",
        SYMBOL,
        "--json",
    ]
    done = subprocess.run(
        command, env=os.environ | exchange.env(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["answered"] == found["commands"]
    assert found["at_file_price"] == found["executions"] > 100
    assert found["crossed"] == found["trades_elsewhere"] == 0
    assert found["final_levels_equal"] == found["final_levels"]
    if recording == HOUR:
        assert (found["executions"], found["at_head"] >= HOUR_AT_HEAD_MIN) == (4_067, True)
    wait_until(lambda: _persisted(exchange) == found["trades"], "the last trade in Postgres", within_s=120)
    wait_until(lambda: _open_levels(exchange) == _shown_levels(exchange), "database and book telling the same")
    _, tape = exchange.call("GET", f"{exchange.url('keeper')}/trades/{SYMBOL_ID}?limit=1000")
    shown = [(trade["tradeId"], Decimal(trade["price"]), Decimal(trade["quantity"])) for trade in tape["trades"]]
    stored = 'SELECT id::text, price, quantity FROM "Trade" WHERE "symbolId" = %s ORDER BY sequence DESC LIMIT 1000'
    assert shown == rows(exchange, stored)


def _persisted(exchange: Exchange) -> int:
    return int(rows(exchange, 'SELECT count(*) FROM "Trade" WHERE "symbolId" = %s')[0][0])


def _open_levels(exchange: Exchange) -> dict[tuple[str, Decimal], tuple[Decimal, int]]:
    query = """
        SELECT side::text, price, sum(quantity - "filledQuantity"), count(*) FROM "Order"
        WHERE "symbolId" = %s AND status IN ('PENDING', 'PARTIALLY_FILLED') GROUP BY 1, 2
    """
    return {(side, price): (quantity, count) for side, price, quantity, count in rows(exchange, query)}


def _shown_levels(exchange: Exchange) -> dict[tuple[str, Decimal], tuple[Decimal, int]]:
    book = exchange.book(SYMBOL_ID)
    return {
        (side.upper(), Decimal(level["price"])): (Decimal(level["quantity"]), level["orders"])
        for side in ("buy", "sell")
        for level in book[side]
    }
