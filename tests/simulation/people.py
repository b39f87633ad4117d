"""Those who send commands: Kafka producers of all kinds, and clients of the OMS, which may die at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from forkast_streams.engine.symbols import Symbol
from forkast_streams.errors import ApiError
from forkast_streams.orders.client_ids import Claim
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.orders.desk import OrderDesk
from forkast_streams.orders.requests import PlaceOrder, decode_body, new_order, require_kept_rules
from forkast_streams.topics import ORDERS_NEW
from tests.simulation.flow import Wish
from tests.simulation.log import Sent, SimEventProducer, SimLog
from tests.simulation.world import Process, World

_ANSWER_S_MAX = 0.4
_TRIES_MAX = 12
# What a body may carry; the rest of a command is the OMS's.
_BODY = frozenset(PlaceOrder.__struct_encode_fields__)


class Registry:
    """What outlives the OMS: client order ids in a database, and pending orders in a cache that forgets.

    Attributes:
        claims: order id, symbol and digest of the first request, by user and client order id.
        pending: records of orders by their ids.
    """

    def __init__(self) -> None:
        self.claims: dict[tuple[int, str], Claim] = {}
        self.pending: dict[str, dict[str, Any]] = {}

    def claim(self, key: tuple[int, str], mine: Claim) -> Claim:
        """The claim under this client order id: the first one wins, whoever asks again."""
        there = self.claims.setdefault(key, mine)
        return replace(there, is_new=there is mine)


class _ClientIds:
    """As ``ClientOrderIds``, by way of the network."""

    def __init__(self, oms: Oms, registry: Registry) -> None:
        self._oms = oms
        self._registry = registry

    async def claim(self, user_id: int, client_order_id: str, order_id: str, symbol_id: int, digest: bytes) -> Claim:
        """Register ``order_id``, or return what was registered."""
        mine = Claim(order_id, symbol_id, digest, is_new=True)
        effect = partial(self._registry.claim, (user_id, client_order_id), mine)
        return await self._oms.world.request(self._oms, *self._oms.database, effect)


class _Pending:
    """As ``PendingOrders``, with a cache that now and then has lost what it was given."""

    def __init__(self, oms: Oms, registry: Registry) -> None:
        self._oms = oms
        self._registry = registry

    async def add(self, record: dict[str, Any]) -> None:
        """Remember, perhaps."""
        if self._oms.world.rng.random() < 0.8:
            self._registry.pending[record["id"]] = record

    async def get(self, order_id: str, user_id: int) -> dict[str, Any] | None:
        """The record if it is there and the user's."""
        record = self._registry.pending.get(order_id)
        return record if record is not None and record["userId"] == user_id else None


class _NoRows:
    """As ``Postgres``: the sink, which fills it, may be far behind."""

    async def query(self, _name: str, **_parameters: Any) -> list[dict[str, Any]]:
        """Nothing yet."""
        return []


class Answer(NamedTuple):
    """What a client was told."""

    status: int
    order_id: str | None


class Oms(Process):
    """The order-management service without sockets: body in, command acknowledged by the log, answer out.

    Attributes:
        database: the way there and back.
    """

    def __init__(self, world: World, log: SimLog, registry: Registry) -> None:
        super().__init__(world, "oms", "oms")
        self.database = self.channel(), self.channel()
        parts: list[Any] = [_NoRows(), None, _Pending(self, registry), _ClientIds(self, registry)]
        producer: Any = SimEventProducer(self, log)
        self._desk = OrderDesk(CommandLog(producer), *parts)

    async def place(self, user_id: int, body: bytes, symbol: Symbol, order_id: str) -> Answer:
        """Place an order; a repeated request under one client order id gives the order of the first.

        Args:
            user_id: whose order it is.
            body: of the request.
            symbol: that it names.
            order_id: the random id that the order gets when it is a new one.
        """
        try:
            order = new_order(decode_body(PlaceOrder, body), order_id, user_id, symbol)
            require_kept_rules(order, symbol)
            self.world.point("oms: before produce", self)
            async with asyncio.timeout(_ANSWER_S_MAX):
                placed = await self._desk.place(order)
        except ApiError as exc:
            return Answer(exc.status, None)
        except TimeoutError:
            return Answer(503, None)
        return Answer(201, placed.order.order_id)


class Journal:
    """What clients sent and were told, which no fault touches."""

    def __init__(self) -> None:
        self.acknowledged: list[tuple[int, str, str]] = []
        self.answers: list[int] = []


class People(Process):
    """All clients and producers. They never die; what serves them does.

    Attributes:
        oms: the service as it runs now; None while it is down.
        is_done: whether everything was sent.
    """

    def __init__(
        self, world: World, log: SimLog, flow: list[Wish], symbols: dict[int, Symbol], registry: Registry
    ) -> None:
        super().__init__(world, "clients", "clients")
        self._log = log
        self._flow: Iterator[tuple[int, Wish]] = iter(list(enumerate(flow)))
        self._symbols = symbols
        self.registry = registry
        self.journal = Journal()
        self.oms: Oms | None = None
        self._loose = [self.channel() for _ in range(3)]
        self._used_ids: set[str] = set()
        self._working = 0
        for _ in range(world.rng.randint(1, 4)):
            self._working += 1
            self.spawn(self._work())

    @property
    def is_done(self) -> bool:
        """Whether everything was sent and answered or given up."""
        return not self._working and not any(channel.queue for channel in self._loose)

    async def _work(self) -> None:
        rng = self.world.rng
        for number, wish in self._flow:
            await asyncio.sleep(rng.expovariate(200))
            body = self._body(number, wish)
            if body is not None and wish.command is not None and rng.random() < 0.6:
                await self._order(wish.command, body)
            else:
                self._produce(wish)
        self._working -= 1

    def _produce(self, wish: Wish) -> None:
        """As a producer without idempotence does: the record may come twice, or be overtaken, or come late."""
        rng = self.world.rng
        sent = Sent(wish.key, wish.value, 0, ())
        for _ in range(2 if rng.random() < 0.04 else 1):
            rng.choice(self._loose).push(partial(self._append, wish.partition, sent))

    def _append(self, partition: int, sent: Sent) -> None:
        self._log.append(ORDERS_NEW, partition, [sent])

    def _body(self, number: int, wish: Wish) -> bytes | None:
        """The request that has this command's effect; None when the OMS has none for it."""
        command = wish.command
        if command is None or "command" in command or command["symbolId"] not in self._symbols:
            return None
        body = {name: value for name, value in command.items() if name in _BODY}
        body["clientOrderId"] = f"c{number}"
        return json.dumps(body).encode()

    async def _order(self, command: dict[str, Any], body: bytes) -> None:
        """Place an order and try again, with the same request, until the outcome is known."""
        client_order_id, user_id = json.loads(body)["clientOrderId"], command["userId"]
        for _ in range(_TRIES_MAX):
            answer = await self._ask(user_id, body, self._symbols[command["symbolId"]], self._random_id(command))
            self.journal.answers.append(answer.status)
            if answer.order_id is not None:
                self.journal.acknowledged.append((user_id, client_order_id, answer.order_id))
                # Now and then a client that has its answer sends the same once more.
                if self.world.rng.random() > 0.05:
                    return
            elif answer.status != 503:
                return
            await asyncio.sleep(self.world.rng.random() * 0.2)

    def _random_id(self, command: dict[str, Any]) -> str:
        """What the OMS draws: at first the id that later commands of the flow mean, after that any other."""
        if command["id"] in self._used_ids:
            return str(UUID(int=self.world.rng.getrandbits(128)))
        self._used_ids.add(command["id"])
        return str(command["id"]).lower()

    async def _ask(self, user_id: int, body: bytes, symbol: Symbol, order_id: str) -> Answer:
        oms, world = self.oms, self.world
        answer: asyncio.Future[Answer] = self.loop.create_future()
        if oms is None or not oms.alive:
            return Answer(503, None)

        async def serve() -> None:
            result = await oms.place(user_id, body, symbol, order_id)
            world.point("oms: acknowledged, not answered", oms)
            oms.channel().push(lambda: None if answer.done() else answer.set_result(result))

        oms.spawn(serve())
        try:
            async with asyncio.timeout(_ANSWER_S_MAX * 1.5):
                return await answer
        except TimeoutError:
            return Answer(503, None)
