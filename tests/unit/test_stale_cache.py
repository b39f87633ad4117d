"""Old values while their source hangs: who waits for it, and who does not."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any, cast

import pytest

from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.orders.symbols import Symbols
from forkast_streams.stale_cache import StaleCache

_ROW = {
    "id": 1,
    "symbol": "A",
    "tickSize": Decimal("0.01"),
    "lotSize": Decimal(1),
    "status": "TRADING",
    "minQuantity": None,
    **dict.fromkeys(("maxQuantity", "minNotional", "priceCollar", "maxOpenOrders")),
}


class Source:
    """Answers at once, or, while it hangs, with an error after a second.

    Attributes:
        reads: how many began.
        rows: what it answers.
    """

    def __init__(self) -> None:
        self.hangs = False
        self.reads = 0
        self.rows = [_ROW]

    async def read(self, *_: object) -> Any:
        self.reads += 1
        if self.hangs:
            await asyncio.sleep(1.0)
            raise Unavailable("it hangs")
        await asyncio.sleep(0)
        return self.rows


@pytest.fixture
def source() -> Source:
    return Source()


async def seconds(one: Any) -> float:
    """How long it takes."""
    began = time.monotonic()
    await one
    return time.monotonic() - began


async def test_one_caller_finds_out_that_the_source_hangs(source: Source) -> None:
    """Who comes when it has given up gets the old value at once, while the read it began goes on."""
    cache: StaleCache[str, Any] = StaleCache(source.read, refresh_s=0.0, fresh_s=0.0, stale_s=60.0)
    assert await cache.get("a")
    source.hangs = True
    assert await seconds(cache.get("a")) > 0.2
    assert await seconds(cache.get("a")) < 0.1
    assert source.reads == 2
    await asyncio.sleep(1.0)
    assert await seconds(cache.get("a")) < 0.1
    cache.close()


async def test_symbol_that_is_not_known_keeps_no_order_in_another_waiting(source: Source) -> None:
    """Only who names it waits for a Postgres that hangs."""
    symbols = Symbols(cast("Any", _Postgres(source)))
    await symbols.get(1)
    source.hangs = True
    unknown = asyncio.create_task(symbols.get(2))
    await asyncio.sleep(0.01)
    assert symbols.known(1) is not None
    assert await seconds(symbols.get(1)) < 0.1
    with pytest.raises(ApiError):
        await unknown
    assert symbols.known(1) is not None


async def test_all_who_name_a_new_symbol_at_once_wait_for_the_one_read(source: Source) -> None:
    """A listing begins with many orders at the same moment."""
    symbols = Symbols(cast("Any", _Postgres(source)))
    await symbols.get(1)
    source.rows = [_ROW, _ROW | {"id": 2}]
    found = await asyncio.gather(*[symbols.get(2) for _ in range(5)])
    assert [symbol.id for symbol in found] == [2] * 5
    assert source.reads == 2


class _Postgres:
    def __init__(self, source: Source) -> None:
        self.query = source.read
