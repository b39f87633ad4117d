"""Commands of every kind on one symbol, seeded: the compiled modules are trained with them, and tests run on them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any

from benchmarks.records import START_MS


def mixed_flow(count: int, *, seed: int = 1, symbol_id: int = 1) -> Iterator[dict[str, Any]]:
    """A SYMBOL command, then orders of every type, cancels, amends, replacements, repeats and off-tick prices."""
    chance = random.Random(seed)
    yield {
        "command": "SYMBOL",
        "symbolId": symbol_id,
        "symbol": f"SYM{symbol_id}",
        "tickSize": "0.01",
        "lotSize": "1",
        "status": "TRADING",
    }
    placed: list[dict[str, Any]] = []
    for at in range(1, count):
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
            changes: list[dict[str, Any]] = [
                {"quantity": chance.randint(1, 30)},
                {"price": f"{chance.randint(98, 102)}.50"},
            ]
            yield {
                "command": "AMEND", "symbolId": symbol_id, "orderId": order["id"], "userId": order["userId"]
            } | chance.choice(changes)  # fmt: skip
        elif kind < 0.43 and placed:
            yield chance.choice(placed)
        elif kind < 0.433:
            yield _for_a_user(chance) | {"symbolId": symbol_id}
        else:
            order = _mixed_order(chance, symbol_id, at)
            if kind > 0.98 and placed:
                replaced = placed.pop()
                order |= {"command": "REPLACE", "orderId": replaced["id"], "userId": replaced["userId"]}
            else:
                placed.append(order)
            yield order


def _mixed_order(chance: random.Random, symbol_id: int, at: int) -> dict[str, Any]:
    order: dict[str, Any] = {
        "id": str(uuid.UUID(int=chance.getrandbits(128))),
        "userId": chance.randint(1, 5),
        "symbolId": symbol_id,
        "type": "LIMIT",
        "side": chance.choice(["BUY", "SELL"]),
        "quantity": chance.randint(1, 20),
        "price": round(chance.gauss(100, 1), chance.choice([2, 2, 2, 3])),
    }
    match chance.randint(1, 40):
        case 1 | 2 | 3 | 4 | 5:
            del order["price"]
            order["type"] = "MARKET"
        case 6:
            order |= {"type": "STOP_LIMIT", "stopPrice": f"{chance.randint(98, 102)}.00"}
        case 7:
            del order["price"]
            order |= {"type": "STOP", "stopPrice": f"{chance.randint(97, 103)}.00"}
        case 8 | 9:
            order["displayQuantity"] = chance.randint(1, 5)
        case 10:
            order |= {"timeInForce": "GTD", "expiresAt": START_MS + at + chance.randint(1, 100)}
        case 11 | 12:
            order["timeInForce"] = chance.choice(["IOC", "FOK"])
        case 13:
            order["postOnly"] = True
        case 14 | 15:
            order["selfTradePrevention"] = chance.choice(["EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"])
        case 16:
            del order["price"], order["quantity"]
            order |= {"type": "MARKET", "quoteQuantity": chance.randint(50, 2000)}
    return order


def _for_a_user(chance: random.Random) -> dict[str, Any]:
    commands: list[dict[str, Any]] = [
        {"command": "CANCEL_ALL"},
        {"command": "CANCEL_AFTER", "timeout": 20},
        {"command": "HEARTBEAT"},
    ]
    return chance.choice(commands) | {"userId": chance.randint(1, 5)}
