"""The tables of Postgres at one moment: sums of all rows, made by the server, and the rows of a symbol when asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ

from forkast_streams.audit.evidence import ORDERS_EXCHANGE, Row, TablesCut
from forkast_streams.audit.rows import (
    DEFAULTS,
    HASH_HEX_DIGITS,
    LATER_ORDER_COLUMNS,
    NULL,
    ORDER_COLUMNS,
    TRADE_COLUMNS,
    Sum,
)
from forkast_streams.errors import SetupError
from forkast_streams.storage.addresses import server_options

_CONNECT_TIMEOUT_S = 5
_FETCH_ROWS = 5_000


class TablesSnapshot:
    """A connection whose transaction sees the tables of one moment until it is closed.

    Raises:
        SetupError: the server is out of reach or ends a query, here and in all that reads, or has not the tables.
    """

    def __init__(self, database_url: str) -> None:
        with _reading():
            self._connection = psycopg2.connect(
                database_url,
                connect_timeout=_CONNECT_TIMEOUT_S,
                application_name="forkast-audit",
                options=server_options(database_url, {"jit": "off"}),
            )
            self._connection.set_session(isolation_level=ISOLATION_LEVEL_REPEATABLE_READ, readonly=True)
        columns = {name for (name,) in self._fetch(_COLUMNS, ("Order",))}
        if "id" not in columns:
            self.close()
            raise SetupError('the database has no table "Order"; run `forkast init`, or use --no-tables.')
        self.later_columns = [name for name in LATER_ORDER_COLUMNS if name in columns]

    def close(self) -> None:
        """End the transaction."""
        self._connection.close()

    def cut(self, committed: dict[int, int]) -> TablesCut:
        """How far the tables are, and the sums of their rows; ``committed`` is what the sink's group has committed."""
        return TablesCut(
            self.later_columns,
            self.progress(),
            committed,
            dict(self._fetch('SELECT "symbolId", sequence FROM "SymbolSequence"')),
            self._sums("Order"),
            self._sums("Trade"),
        )

    def progress(self) -> dict[int, int]:
        """The next offset of each partition."""
        statement = 'SELECT partition, "nextOffset" FROM "SinkProgress" WHERE topic = %s'
        return dict(self._fetch(statement, (ORDERS_EXCHANGE,)))

    def rows(self, table: str, symbol_id: int | None = None) -> Iterator[Row]:
        """The rows of a symbol, or all rows, each as the texts of its columns."""
        where = sql.SQL("") if symbol_id is None else sql.SQL('WHERE "symbolId" = {}').format(sql.Literal(symbol_id))
        texts = sql.SQL(", ").join(self._texts(table))
        statement = sql.SQL("SELECT {} FROM {} {}").format(texts, sql.Identifier(table), where)
        with _reading(), self._connection.cursor(name="forkast_audit") as cursor:
            cursor.itersize = _FETCH_ROWS
            cursor.execute(statement)
            for row in cursor:
                yield list(row)

    def _sums(self, table: str) -> dict[int, Sum]:
        statement = sql.SQL(
            "SELECT \"symbolId\", count(*), sum(('x' || left(md5(row), {digits}))::bit({bits})::bigint) "
            "FROM (SELECT \"symbolId\", concat_ws('|', {texts}) AS row FROM {table}) AS rows GROUP BY 1"
        ).format(
            digits=sql.Literal(HASH_HEX_DIGITS),
            bits=sql.Literal(HASH_HEX_DIGITS * 4),
            texts=sql.SQL(", ").join(self._texts(table)),
            table=sql.Identifier(table),
        )
        return {symbol_id: Sum(count, int(total)) for symbol_id, count, total in self._fetch(statement)}

    def _texts(self, table: str) -> list[sql.Composable]:
        """An expression for each column that gives the text of `rows`."""
        if table == "Trade":
            return [_text(name, kind) for name, kind in TRADE_COLUMNS.items()]
        texts = [_text(name, kind) for name, kind in ORDER_COLUMNS.items()]
        return texts + [_text(name, LATER_ORDER_COLUMNS[name]) for name in self.later_columns]

    def _fetch(self, statement: Any, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with _reading(), self._connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as exc:
        raise SetupError(
            f"Postgres cannot be read ({' '.join(str(exc).split())}); check DATABASE_URL, or leave the tables out with "
            "--no-tables."
        ) from exc


_COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %s
"""

_AS_TEXT = {
    "text": "{}::text",
    "flag": "{}::text",
    "decimal": "trim_scale({})::text",
    "time": "(extract(epoch FROM {}) * 1000)::bigint::text",
}


def _text(name: str, kind: str) -> sql.Composable:
    text: sql.Composable = sql.SQL(_AS_TEXT[kind]).format(sql.Identifier(name))
    if name in DEFAULTS:
        text = sql.SQL("nullif({}, {})").format(text, sql.Literal(DEFAULTS[name]))
    return sql.SQL("coalesce({}, {})").format(text, sql.Literal(NULL))
