"""The symbols as the OMS knows them, read again beside the requests.

Rules that nobody has used for a while are read before they are used: while Postgres hangs, what comes in a quarter of a
second waits as long, and nothing for seconds after that. Who names a symbol that is not known waits, too, and nobody
else for them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.stale_cache import StaleCache
from forkast_streams.storage.postgres import Postgres

# The optional decimal rules of a symbol.
RULE_COLUMNS = ("minQuantity", "maxQuantity", "minNotional", "priceCollar")
# Seconds after which rules are read again beside the requests, and before the next request uses them.
_REFRESH_S = 5.0
_FRESH_S = 15.0
# Seconds between looks for a symbol that is not among the known ones.
_MISSED_AGAIN_S = 1.0
_MISSED_WAIT_S = 0.25

# The one key of the cache: all of them are read together.
_ALL = "symbols"

_Table = tuple[list[dict[str, Any]], dict[int, Symbol]]


class Symbols:
    """The symbols of the database; the last known ones serve while it is away, however long."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._cache: StaleCache[str, _Table] = StaleCache(
            self._read, refresh_s=_REFRESH_S, fresh_s=_FRESH_S, stale_s=float("inf")
        )
        self._look_again_at = 0.0

    async def get(self, symbol_id: int) -> Symbol:
        """A symbol's trading rules.

        Raises:
            ApiError: 400, there is no such symbol.
            Unavailable: the database is out of reach and no symbol was ever read.
        """
        symbol = (await self._table())[1].get(symbol_id)
        if symbol is None and (time.monotonic() >= self._look_again_at or self._cache.is_loading(_ALL)):
            # It may be newer than what is remembered. Whoever asks while that is looked up waits for the same read.
            self._look_again_at = time.monotonic() + _MISSED_AGAIN_S
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(_MISSED_WAIT_S):
                    await self._cache.reload(_ALL)
            symbol = (await self._table())[1].get(symbol_id)
        if symbol is None:
            raise ApiError(400, "UNKNOWN_SYMBOL", "there is no symbol with this symbolId", field="symbolId")
        return symbol

    def known(self, symbol_id: int) -> Symbol | None:
        """A symbol's trading rules if they were read lately; never waits."""
        table = self._cache.peek(_ALL)
        return None if table is None else table[1].get(symbol_id)

    async def rows(self) -> list[dict[str, Any]]:
        """All symbols as the database has them.

        Raises:
            Unavailable: the database is out of reach and no symbol was ever read.
        """
        return (await self._table())[0]

    async def ids(self, symbol_id: int | None) -> list[int]:
        """The one symbol that is named, or all of them when none is.

        Raises:
            ApiError: 400, there is no such symbol.
            Unavailable: the database is out of reach and no symbol was ever read.
        """
        return [row["id"] for row in await self.rows()] if symbol_id is None else [(await self.get(symbol_id)).id]

    async def _table(self) -> _Table:
        table = self._cache.peek(_ALL) or await self._cache.get(_ALL)
        assert table is not None
        return table

    async def _read(self, _: str) -> _Table:
        rows = await self._postgres.query("symbols")
        return rows, {row["id"]: _symbol_of(row) for row in rows}


def _symbol_of(row: dict[str, Any]) -> Symbol:
    """A row of ``"Symbol"`` as trading rules."""
    rules = {name: None if row[name] is None else row[name].normalize() for name in RULE_COLUMNS}
    return Symbol(
        DefineSymbol(
            row["id"],
            row["symbol"],
            row["tickSize"].normalize(),
            row["lotSize"].normalize(),
            row["status"],
            None,
            rules["minQuantity"],
            rules["maxQuantity"],
            rules["minNotional"],
            rules["priceCollar"],
            row["maxOpenOrders"],
        )
    )
