"""A whole exchange for the tests of the order routes: its markets and traders, and what is asked of it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import bcrypt
import psycopg2
from aiokafka import AIOKafkaConsumer, TopicPartition
from psycopg2.extras import RealDictCursor, execute_values
from typer.testing import CliRunner

from forkast_streams.cli import app as command_line
from forkast_streams.devstack import Stack
from forkast_streams.topics import ORDERS_EXCHANGE, ORDERS_NEW, partition_for
from tests.integration.exchange import PARTITIONS, Worker, wait_until
from tests.integration.test_oms import call

# Markets and traders that no other test uses; a test takes as many as it needs.
_FIRST_SYMBOL, _SYMBOLS = 15_000, 90
_FIRST_USER, _USERS = 15_000, 200
_PROBE, _SELLER, _BUYER = (f"trader-{_FIRST_USER + number}" for number in range(3))
CLOSED = ("FILLED", "CANCELLED", "REJECTED", "EXPIRED")

# Symbols with rules beyond tick and lot size, in the columns' order of "Symbol".
_RULES = ("tickSize", "lotSize", "minQuantity", "maxQuantity", "minNotional", "priceCollar", "maxOpenOrders")
_PLAIN = ("0.01", "1", None, None, None, None, None)
RULED = {
    "fractional": ("0.01", "0.001", None, None, None, None, None),
    "bounded": ("0.01", "1", "5", "100", "1000", None, None),
    "collared": ("0.01", "1", None, None, None, "0.1", None),
    "crowded": ("0.01", "1", None, None, None, None, 2),
}


# Of the process: an exchange that is started again has its log, with what rests there, from the one before.
_unused_symbols = iter(range(_FIRST_SYMBOL + len(RULED), _FIRST_SYMBOL + len(RULED) + _SYMBOLS))
_unused_users = iter(range(_FIRST_USER + 3, _FIRST_USER + _USERS))


@dataclass
class Exchange:
    """The running workers."""

    env: dict[str, str]
    stack: Stack
    oms: Worker
    sink: Worker
    ends_before: dict[str, dict[int, int]]

    def market(self, rules: str | None = None) -> Market:
        """A symbol that no other test uses, with plain rules, or the one with the named rules."""
        symbol_id = next(_unused_symbols) if rules is None else _FIRST_SYMBOL + list(RULED).index(rules)
        return Market(self, symbol_id)

    def user(self) -> str:
        """The name of a trader that no other test uses."""
        return f"trader-{next(_unused_users)}"

    @property
    def spectator(self) -> str:
        """A trader for requests that are refused."""
        return _PROBE

    def ask(
        self, user: str, method: str, path: str, body: Any = None, *, oms: Worker | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Send a request with a JSON body; return status, decoded answer and headers."""
        return call(oms or self.oms, method, path, None if body is None else json.dumps(body).encode(), user=user)

    def order(self, user: str, order_id: str, *, oms: Worker | None = None) -> dict[str, Any]:
        """``GET /orders/{id}``."""
        status, order, _ = self.ask(user, "GET", f"/orders/{order_id}", oms=oms)
        assert status == 200, order
        return dict(order)

    def ended(self, user: str, order_id: str) -> dict[str, Any]:
        """The order once nothing can happen to it any more."""
        wait_until(lambda: self.order(user, order_id)["status"] in CLOSED, f"the end of order {order_id}")
        return self.order(user, order_id)

    def rows(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """What Postgres answers."""
        with (
            closing(psycopg2.connect(self.env["DATABASE_URL"])) as connection,
            connection,
            connection.cursor(cursor_factory=RealDictCursor) as cursor,
        ):
            cursor.execute(statement, parameters)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def tables_behind(self) -> Iterator[None]:
        """Have nothing come into the tables meanwhile: the OMS sees orders as they were, the engine goes on."""
        self.sink.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.sink.signal(signal.SIGCONT)

    def row(self, order_id: str) -> dict[str, Any] | None:
        """The order's row."""
        rows = self.rows('SELECT * FROM "Order" WHERE id = %s', order_id)
        assert len(rows) < 2
        return rows[0] if rows else None

    def persisted(self, *order_ids: str) -> None:
        """Wait until the orders have rows."""
        wait_until(lambda: all(self.row(order_id) is not None for order_id in order_ids), f"rows of {order_ids}")

    def forkast(self, *arguments: str) -> str:
        """Run a command of the command line on these servers; return what it prints."""
        env = self.env | {"FORKAST_URL": f"http://127.0.0.1:{self.oms.port}", "COLUMNS": "200"}
        result = CliRunner().invoke(command_line, list(arguments), env=env, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    def commands(self, symbol_id: int) -> list[Any]:
        """What the log has of a symbol's commands since the exchange was started, but for definitions of the symbol."""
        commands = asyncio.run(self._read(ORDERS_NEW, symbol_id))
        # Every `symbols sync` defines all of them again, so their number tells which tests came before.
        return [command for command in commands if command.get("command") != "SYMBOL"]

    def events(self, symbol_id: int) -> list[Any]:
        """What the log has of a symbol's events since the exchange was started."""
        return asyncio.run(self._read(ORDERS_EXCHANGE, symbol_id))

    async def _read(self, topic: str, symbol_id: int) -> list[Any]:
        tp = TopicPartition(topic, partition_for(symbol_id, PARTITIONS))
        first = self.ends_before[topic][tp.partition]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.env["KAFKA_BROKERS"])
        await consumer.start()
        values: list[Any] = []
        try:
            end = (await consumer.end_offsets([tp]))[tp]
            consumer.assign([tp])
            consumer.seek(tp, first)
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    values += [json.loads(record.value) for record in records]
        finally:
            await consumer.stop()
        return [value for value in values if value["symbolId"] == symbol_id]


@dataclass(frozen=True)
class Market:
    """One symbol of the exchange, and the orders in it."""

    exchange: Exchange
    symbol_id: int

    @property
    def name(self) -> str:
        """The symbol's name."""
        return f"M{self.symbol_id}"

    def body(self, **changes: Any) -> dict[str, Any]:
        """A limit order to buy 10 at 100, changed in some fields; None takes a field out."""
        order = {"symbolId": self.symbol_id, "type": "LIMIT", "side": "BUY", "quantity": 10, "price": 100} | changes
        if order["type"] in ("MARKET", "STOP"):
            del order["price"]
        return {name: value for name, value in order.items() if value is not None}

    def place(self, user: str, **changes: Any) -> str:
        """Place an order; return its id."""
        status, answer, _ = self.exchange.ask(user, "POST", "/orders", self.body(**changes))
        assert status == 201, answer
        return str(answer["orderId"])

    def refused(self, user: str, **changes: Any) -> tuple[str, str | None]:
        """Place an order that the OMS refuses with 400; return code and field."""
        status, answer, _ = self.exchange.ask(user, "POST", "/orders", self.body(**changes))
        assert status == 400, answer
        return answer["error"]["code"], answer["error"].get("field")

    def settled(self) -> None:
        """Return when everything sent to this market before is carried out and in the tables."""
        self.exchange.persisted(self.place(_PROBE, side="SELL", price=999_999, quantity=50, timeInForce="IOC"))

    def trade(self, price: float, quantity: float = 10) -> None:
        """Have two strangers trade, which makes ``price`` the last one."""
        self.place(_SELLER, side="SELL", price=price, quantity=quantity)
        taker = self.place(_BUYER, side="BUY", price=price, quantity=quantity)
        assert self.exchange.ended(_BUYER, taker)["status"] == "FILLED"


def make_markets_and_traders(database_url: str) -> None:
    """Write the symbols and users into a prepared database."""
    markets = [*RULED.values(), *[_PLAIN] * _SYMBOLS]
    symbols = [(n, f"M{n}", f"Market {n}", "TEST", *rules) for n, rules in enumerate(markets, _FIRST_SYMBOL)]
    with ThreadPoolExecutor(2) as pool:
        users = list(pool.map(_user, range(_FIRST_USER, _FIRST_USER + _USERS)))
    columns = ", ".join(f'"{name}"' for name in _RULES)
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        execute_values(cursor, f'INSERT INTO "Symbol" (id, symbol, name, market, {columns}) VALUES %s', symbols)
        execute_values(cursor, 'INSERT INTO "User" (id, email, name, password) VALUES %s', users)


def _user(number: int) -> tuple[int, str, str, str]:
    email = f"trader-{number}@example.com"
    return number, email, "Trader", bcrypt.hashpw(email.encode(), bcrypt.gensalt(4)).decode()
