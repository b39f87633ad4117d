"""The order-management service without sockets: the product's desk, claims, pending orders and command log."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.json_bodies import decode_body
from forkast_streams.orders.claims import Claims
from forkast_streams.orders.client_ids import ClientOrderIds
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.orders.desk import OrderDesk, Placed
from forkast_streams.orders.finding import OrderFinder
from forkast_streams.orders.pending import PendingOrders
from forkast_streams.orders.requests import PlaceOrder, new_order, require_kept_rules
from tests.simulation.database import Row, Tables
from tests.simulation.log import SimEventProducer, SimLog
from tests.simulation.world import Process, World

_ORDER_COLUMNS = (
    *("id", "userId", "symbolId", "type", "side", "price", "quantity", "filledQuantity", "status", "timeInForce"),
    *("clientOrderId", "reason", "createdAt", "updatedAt", "executedAt", "stopPrice", "expiresAt", "postOnly"),
    *("displayQuantity", "selfTradePrevention", "quoteQuantity", "triggeredAt", "replaces", "averagePrice"),
)
_TIMES = dict.fromkeys(("createdAt", "updatedAt", "executedAt", "triggeredAt", "expiresAt"))


class Answer(NamedTuple):
    """What a client was told."""

    status: int
    order_id: str | None


class Backends:
    """What outlives the service: its tables, and what Redis holds.

    Attributes:
        claims: rows of "ClientOrderId" by user and client order id.
        values: keys of Redis.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.claims: dict[tuple[int, str], Row] = {}
        self.values: dict[str, bytes] = {}

    def claim(self, parameters: dict[str, Any]) -> list[Row]:
        """As ``claim_client_ids.sql``; nobody is away for 24 hours here."""
        answers = []
        for row in msgspec.json.decode(parameters["claims"]):
            key = row["userId"], row["clientOrderId"]
            is_new = key not in self.claims
            answers.append(self.claims.setdefault(key, row) | {"isNew": is_new, "ageS": 0.0})
        return answers

    def orders_by_id(self, parameters: dict[str, Any]) -> list[Row]:
        """As ``orders_by_id.sql``, without the times."""
        return [
            dict.fromkeys(_ORDER_COLUMNS) | order | _TIMES
            for (order_id, _), order in self.tables.orders.items()
            if order_id in parameters["ids"] and order["userId"] == parameters["user_id"]
        ]


class OmsPostgres:
    """The service's way to its tables; any statement may find the connection broken, before or after it.

    Attributes:
        answered_ms: as the product's; an outage here is a single statement's.
    """

    def __init__(self, process: Process, backends: Backends) -> None:
        self._process = process
        self.answered_ms = sys.maxsize
        self._statements: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
            "claim_client_ids": backends.claim,
            "orders_by_id": backends.orders_by_id,
        }

    async def query(self, name: str, **parameters: Any) -> list[Row]:
        """Run one statement.

        Raises:
            Unavailable: the connection broke; the statement may have run.
        """
        process, world = self._process, self._process.world
        claims = name == "claim_client_ids"
        if claims:
            world.point("oms: before the claim", process)

        def arrive() -> list[Row]:
            _break_at_times(world, 0.02, Unavailable("the database is away"))
            rows = self._statements[name](parameters)
            if claims and process.alive:
                world.point("oms: claimed, not answered", process)
            _break_at_times(world, 0.02, Unavailable("the database went away"))
            # A row that another transaction makes in the same moment is not seen.
            return rows if not claims or _is_lucky(world) else [row for row in rows if row["isNew"]]

        return await world.request(process, process.channel(), process.channel(), arrive)


class SimRedis:
    """A client of Redis, as far as pending orders need one."""

    def __init__(self, process: Process, backends: Backends) -> None:
        self._process = process
        self._values = backends.values

    async def get(self, key: str) -> bytes | None:
        """The value of ``key``."""
        value: bytes | None = await self._ask(lambda: self._values.get(key))
        self._process.world.counts["orders read from Redis"] += value is not None
        return value

    def register_script(self, text: str) -> Callable[..., Awaitable[None]]:
        """The script that remembers orders, which is the only one; lists of orders are not read here."""
        assert "pending-orders:" in text

        async def remember(*, args: list[Any]) -> None:
            flat = msgspec.msgpack.decode(args[2])
            written = {f"pending-order:{one}": text.encode() for one, text in zip(flat[::4], flat[3::4], strict=True)}
            await self._ask(lambda: self._remember(written))

        return remember

    def _remember(self, written: dict[str, bytes]) -> None:
        self._process.world.counts["orders remembered in Redis"] += len(written)
        self._values.update(written)

    async def _ask(self, effect: Callable[[], Any]) -> Any:
        process, world = self._process, self._process.world

        def arrive() -> Any:
            _break_at_times(world, 0.02, RedisConnectionError("Redis is away"))
            return effect()

        return await world.request(process, process.channel(), process.channel(), arrive)


class Oms(Process):
    """A process of the service: body in, command acknowledged by the log, answer out."""

    def __init__(self, world: World, name: str, log: SimLog, backends: Backends) -> None:
        super().__init__(world, "oms", name)
        postgres: Any = OmsPostgres(self, backends)
        client_ids = ClientOrderIds(postgres)
        client_ids.wait_for_stopped = lambda event: event.wait()
        symbols: Any = None
        pending = PendingOrders(SimRedis(self, backends))
        commands = CommandLog(SimEventProducer(self, log))
        claims = Claims(commands, postgres, pending, client_ids)
        finder = OrderFinder(postgres, pending, claims)
        self.desk = OrderDesk(commands, symbols, pending, claims, finder)
        self.spawn(ClientOrderIds._claim_all.fun(client_ids))

    async def place(self, user_id: int, body: bytes, symbol: Symbol, order_id: str, *, in_batch: bool) -> Answer:
        """Place an order; a repeated request under one client order id gives the order of the first.

        Args:
            user_id: whose order it is.
            body: of the request.
            symbol: that it names.
            order_id: the random id that the order gets when it is a new one.
            in_batch: it comes by the route for many orders.
        """
        try:
            order = new_order(decode_body(PlaceOrder, body), order_id, user_id, symbol)
            require_kept_rules(order, symbol)
            if in_batch:
                [placed] = await self.desk.place_all([order])
                if not isinstance(placed, Placed):
                    raise placed
            else:
                placed = await self.desk.place(order)
        except ApiError as exc:
            return Answer(exc.status, None)
        except Unavailable:
            return Answer(503, None)
        return Answer(201, placed.order.order_id)


def _is_lucky(world: World) -> bool:
    return world.is_calm or world.rng.random() > 0.1


def _break_at_times(world: World, probability: float, exc: Exception) -> None:
    if not world.is_calm and world.rng.random() < probability:
        world.counts[f"connections lost: {type(exc).__name__}"] += 1
        raise exc
