"""The JSON that clients of the book and its stream get."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from forkast_streams.market_data.state import BookChange, LevelView

_encode = msgspec.json.Encoder().encode


def change_message(change: BookChange) -> bytes:
    """A change for the stream; for a whole book only the notice that a client needs a new snapshot."""
    if change.whole:
        return _encode({"type": "reset", "orderBookSnapShotId": change.sequence})
    return _encode(
        {
            "type": "change",
            "orderBookSnapShotId": change.sequence,
            "previousSnapShotId": change.previous,
            "symbolId": change.symbol_id,
            "timestamp": change.timestamp,
            "buy": change.buy,
            "sell": change.sell,
        }
    )


def snapshot(
    symbol_id: int, sequence: int, timestamp: int, buy: list[LevelView], sell: list[LevelView], *, depth: int | None
) -> dict[str, Any]:
    """A book, best prices first, as ``GET /order-book/{symbolId}`` answers it."""
    return {
        "orderBookSnapShotId": sequence,
        "symbolId": symbol_id,
        "timestamp": timestamp,
        "buy": sorted(buy, key=_price, reverse=True)[:depth],
        "sell": sorted(sell, key=_price)[:depth],
    }


def _price(level: LevelView) -> Decimal:
    return Decimal(level.price)
