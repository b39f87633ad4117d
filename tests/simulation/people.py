"""Those who send commands: Kafka producers of all kinds, and clients of the OMS, which may die at any moment."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

from forkast_streams.engine.symbols import Symbol
from forkast_streams.orders.requests import PlaceOrder
from forkast_streams.topics import ORDERS_NEW
from tests.simulation.flow import Wish
from tests.simulation.log import Sent, SimLog
from tests.simulation.oms import Answer, Oms
from tests.simulation.world import Process, Violation, World

_ANSWER_S_MAX = 0.6
_TRIES_MAX = 12
# What a body may carry; the rest of a command is the OMS's.
_BODY = frozenset(PlaceOrder.__struct_encode_fields__)


class Journal:
    """What clients sent and were told, which no fault touches."""

    def __init__(self) -> None:
        self.acknowledged: list[tuple[int, str, str]] = []
        self.answers: list[int] = []


class People(Process):
    """All clients and producers. They never die; what serves them does.

    Attributes:
        services: the processes of the OMS that run now.
        is_done: whether everything was sent.
    """

    def __init__(self, world: World, log: SimLog, flow: list[Wish], symbols: dict[int, Symbol]) -> None:
        super().__init__(world, "clients", "clients")
        self._log = log
        self._flow: Iterator[tuple[int, Wish]] = iter(list(enumerate(flow)))
        self._symbols = symbols
        self.journal = Journal()
        self.services: list[Oms] = []
        self._loose = [self.channel() for _ in range(3)]
        ids = Counter(str(wish.command["id"]).lower() for wish in flow if wish.command and "id" in wish.command)
        # An id that comes again in the flow is a rogue producer's repeat; the OMS draws one that nobody else has.
        self._used_ids = {order_id for order_id, times in ids.items() if times > 1}
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
        sent = Sent(wish.key, wish.value, 0, wish.headers)
        copies = 2 if rng.random() < 0.04 else 1
        self.world.counts["record sent twice"] += copies - 1
        for _ in range(copies):
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
        for attempt in range(_TRIES_MAX):
            self.world.counts["request sent again"] += attempt > 0
            answer = await self._ask(command, body)
            self.journal.answers.append(answer.status)
            if answer.order_id is not None:
                self.journal.acknowledged.append((user_id, client_order_id, answer.order_id))
                if self.world.rng.random() < 0.03:
                    await self._reuse_id(command, body)
                # Now and then a client that has its answer sends the same once more.
                if self.world.rng.random() > 0.05:
                    return
            elif answer.status != 503:
                return
            await asyncio.sleep(self.world.rng.random() * 0.2)

    async def _reuse_id(self, command: dict[str, Any], body: bytes) -> None:
        """Ask for another order under a client order id that stands for one already (I-19)."""
        other = json.loads(body)
        other["side"] = "SELL" if other["side"] == "BUY" else "BUY"
        answer = await self._ask(command, json.dumps(other).encode())
        self.world.counts[f"client order id used again, answer {answer.status}"] += 1
        if answer.status not in (409, 503):
            raise Violation(f"I-19: another order under the id of {body!r} was answered {answer}")

    def _random_id(self, command: dict[str, Any]) -> str:
        """What the OMS draws: at first the id that later commands of the flow mean, after that any other."""
        order_id = str(command["id"]).lower()
        if order_id in self._used_ids:
            return str(UUID(int=self.world.rng.getrandbits(128)))
        self._used_ids.add(order_id)
        return order_id

    async def _ask(self, command: dict[str, Any], body: bytes) -> Answer:
        """Send a request to one of the services; no answer in time is as good as a 503."""
        world = self.world
        running = [oms for oms in self.services if oms.alive]
        if not running:
            return Answer(503, None)
        oms, in_batch = world.rng.choice(running), world.rng.random() < 0.2
        order_id, symbol = self._random_id(command), self._symbols[command["symbolId"]]
        answer: asyncio.Future[Answer] = self.loop.create_future()

        async def serve() -> None:
            result = await oms.place(command["userId"], body, symbol, order_id, in_batch=in_batch)
            world.point("oms: answer ready, not sent", oms)
            oms.channel().push(lambda: None if answer.done() else answer.set_result(result))

        oms.spawn(serve())
        try:
            async with asyncio.timeout(_ANSWER_S_MAX):
                return await answer
        except TimeoutError:
            return Answer(503, None)
