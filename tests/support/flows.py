"""Made-up commands for tests, and the records they come in."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks.mixed_flow import mixed_flow
from benchmarks.records import START_MS, Record
from forkast_streams.topics import partition_for

__all__ = ["PARTITIONS", "START_MS", "Record", "home_of", "mixed_flow", "order_command", "records_of", "symbol_command"]

PARTITIONS = 10


def symbol_command(symbol_id: int, **changes: Any) -> dict[str, Any]:
    """A SYMBOL command with tick size 0.01 and lot size 1."""
    rules = {"symbol": f"SYM{symbol_id}", "tickSize": "0.01", "lotSize": "1", "status": "TRADING"}
    return {"command": "SYMBOL", "symbolId": symbol_id} | rules | changes


def order_command(symbol_id: int = 1, **changes: Any) -> dict[str, Any]:
    """A limit order of user 1 to buy 10 at 100; an order to sell is user 2's, so that the two can trade."""
    order = {"id": str(uuid.UUID(int=1)), "userId": 1, "symbolId": symbol_id, "type": "LIMIT", "side": "BUY"}
    if changes.get("side") == "SELL":
        order["userId"] = 2
    return order | {"quantity": 10, "price": 100} | changes


def records_of(commands: Iterator[dict[str, Any]] | list[dict[str, Any]], *, first_offset: int = 0) -> list[Record]:
    """Records as a producer keyed by symbol would have written them."""
    return [
        Record(first_offset + at, START_MS + at, str(command["symbolId"]).encode(), json.dumps(command).encode())
        for at, command in enumerate(commands)
    ]


def home_of(symbol_id: int) -> int:
    """The partition of a symbol among ``PARTITIONS``."""
    return partition_for(symbol_id, PARTITIONS)
