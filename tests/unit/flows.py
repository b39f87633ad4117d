"""Made-up order flow for tests: seeded, so that a failure can be repeated."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from forkast_streams.engine_partition import Headers
from forkast_streams.topics import partition_for

PARTITIONS = 10
START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Record:
    """What the engine reads of a consumed record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


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


def mixed_flow(count: int, *, seed: int = 1, symbol_id: int = 1) -> Iterator[dict[str, Any]]:
    """A SYMBOL command, then limit and market orders, cancels, amends, repeats and off-tick prices."""
    chance = random.Random(seed)
    yield symbol_command(symbol_id)
    placed: list[dict[str, Any]] = []
    for _ in range(count - 1):
        kind = chance.random()
        if kind < 0.3 and placed:
            order = chance.choice(placed)
            yield {
                "command": "CANCEL",
                "symbolId": symbol_id,
                "orderId": order["id"],
                "userId": order["userId"],
            }
        elif kind < 0.4 and placed:
            order = chance.choice(placed)
            change = chance.choice([{"quantity": chance.randint(1, 30)}, {"price": f"{chance.randint(98, 102)}.50"}])
            yield {
                "command": "AMEND", "symbolId": symbol_id, "orderId": order["id"], "userId": order["userId"]
            } | change  # fmt: skip
        elif kind < 0.43 and placed:
            yield chance.choice(placed)
        else:
            order = order_command(
                symbol_id,
                id=str(uuid.UUID(int=chance.getrandbits(128))),
                userId=chance.randint(1, 5),
                side=chance.choice(["BUY", "SELL"]),
                quantity=chance.randint(1, 20),
                price=round(chance.gauss(100, 1), chance.choice([2, 2, 2, 3])),
            )
            if kind > 0.93:
                del order["price"]
                order["type"] = "MARKET"
            placed.append(order)
            yield order


def home_of(symbol_id: int) -> int:
    """The partition of a symbol among ``PARTITIONS``."""
    return partition_for(symbol_id, PARTITIONS)
