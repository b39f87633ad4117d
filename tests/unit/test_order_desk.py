"""The order desk: requests that have a client order id in common, and orders that are looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, patch
from uuid import UUID

import pytest

from forkast_streams.engine.commands import BUY, GTC, LIMIT, NewOrder
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import COMMAND_LATE_S_MAX, PARTITION_ORDERS_S_MAX, SEEN_IDS_MAX, SENT_AGAIN_RECORDS_MAX
from forkast_streams.orders import claims as claims_module
from forkast_streams.orders import finding
from forkast_streams.orders.claims import Claims
from forkast_streams.orders.client_ids import Claim
from forkast_streams.orders.command_log import not_acknowledged
from forkast_streams.orders.commands import request_digest
from forkast_streams.orders.desk import OrderDesk
from forkast_streams.orders.finding import OrderFinder
from forkast_streams.storage.postgres import Postgres
from web.errors import error_view, to_api_error


class Servers:
    """The registry of client order ids, the log and the pending orders; each answer takes some turns of the loop.

    Attributes:
        may_answer: the log answers nothing before.
        inside: requests that the registry or the log is busy with.
        inside_most: the most there were at once.
        listed: which pending orders were asked for at last.
        taken: records that the log has taken since any claim.
    """

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.inside = self.inside_most = 0
        self._claim: Claim | None = None
        self.age_s = 0.0
        self.rows: list[Any] = []
        self.is_past = False
        self.away: Unavailable | None = None
        self.listed: dict[str, Any] = {}
        self.taken = 0
        self.is_log_away = False

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self.inside += 1
        self.inside_most = max(self.inside, self.inside_most)
        try:
            yield
        finally:
            self.inside -= 1

    async def claim(self, _user_id: int, _client_id: str, order_id: str, symbol_id: int, digest: bytes) -> Claim:
        with self._busy():
            await turns(5)
        claim = self._claim or Claim(order_id, symbol_id, digest, is_new=True, age_s=0.0)
        self._claim = replace(claim, is_new=False, age_s=self.age_s)
        return claim

    async def append(
        self, _symbol_id: int, _command: bytes, then: Callable[[int, Any], None], *, order_id: str
    ) -> None:
        if self.is_log_away:
            raise not_acknowledged(order_id)
        with self._busy():
            await self.may_answer.wait()
        then(0, None)

    async def append_all(self, commands: list[object]) -> list[ApiError]:
        assert self.is_log_away
        return [not_acknowledged()] * len(commands)

    async def count_since(self, _symbol_id: int, _age_s: float) -> int:
        return self.taken

    def add_for(self, _waiter: object, _order: object) -> None:
        """The order can be read."""

    async def get(self, *_: object) -> None:
        """No order can be read that was not placed here."""
        if self.away is not None:
            raise self.away

    async def find(self, *_: object) -> None:
        """No id is registered."""
        if self.away is not None:
            raise self.away

    async def of_user(self, _user_id: int, **which: object) -> list[Any]:
        """None is pending."""
        self.listed = which
        return []

    async def query(self, name: str, **_: object) -> list[Any]:
        if name == "orders_of_user":
            with self._busy():
                await self.may_answer.wait()
        return [{"isPast": self.is_past}] if name == "is_past_claim" else self.rows


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def claims(servers: Servers) -> Claims:
    every = cast("Any", servers)
    return Claims(every, every, every, every)


@pytest.fixture
def finder(servers: Servers, claims: Claims) -> OrderFinder:
    every = cast("Any", servers)
    return OrderFinder(every, every, claims)


@pytest.fixture
def desk(servers: Servers, claims: Claims, finder: OrderFinder) -> OrderDesk:
    every = cast("Any", servers)
    return OrderDesk(every, every, every, claims, finder)


def order(number: int) -> NewOrder:
    return NewOrder(1, str(UUID(int=number)), 7, LIMIT, BUY, 10, 100, GTC, "mine", None)


async def test_requests_with_one_client_order_id_are_placed_one_at_a_time(servers: Servers, desk: OrderDesk) -> None:
    """Those that come while others wait, too, in whichever turn of the loop after the first one has ended."""
    first = asyncio.create_task(desk.place(order(1)))
    waiting = [asyncio.create_task(desk.place(order(number))) for number in (2, 3, 4)]

    async def place_late(number: int) -> Any:
        await first
        await turns(number - 5)
        return await desk.place(order(number))

    late = [asyncio.create_task(place_late(number)) for number in range(5, 30)]
    await turns(20)
    assert (servers.inside, len(desk._under_way)) == (1, 1)
    servers.may_answer.set()
    placed = await asyncio.gather(first, *waiting, *late)
    assert servers.inside_most == 1
    assert [one.repeated for one in placed] == [False] + [True] * 28
    assert {one.order.order_id for one in placed} == {str(UUID(int=1))}
    assert not desk._under_way


async def test_nothing_stays_of_requests_that_are_cancelled(servers: Servers, desk: OrderDesk) -> None:
    """A client that goes leaves its place to the next one, whether it was its turn or not."""
    first, second, third = (asyncio.create_task(desk.place(order(number))) for number in (1, 2, 3))
    await turns(20)
    second.cancel()
    await turns(2)
    assert len(desk._under_way) == 1
    first.cancel()
    servers.may_answer.set()
    await asyncio.wait([first, second, third])
    assert first.cancelled()
    assert second.cancelled()
    # The id was claimed and the log does not have the order: it is sent again as the one that was claimed.
    assert (third.result().repeated, third.result().order.order_id) == (False, str(UUID(int=1)))
    assert servers.inside_most == 1
    assert not desk._under_way


@pytest.mark.parametrize(
    ("taken", "age_s", "is_past", "is_sent"),
    [
        (SENT_AGAIN_RECORDS_MAX, 10.0, False, True),
        (SENT_AGAIN_RECORDS_MAX + 1, 10.0, False, False),
        (SENT_AGAIN_RECORDS_MAX + 1, 10.0, True, True),
        (0, 86_400.0 - COMMAND_LATE_S_MAX, False, True),
        (0, 86_401.0 - COMMAND_LATE_S_MAX, False, False),
    ],
)
async def test_an_old_claim_is_sent_again_when_it_surely_made_no_order(
    servers: Servers, desk: OrderDesk, taken: int, age_s: float, is_past: bool, is_sent: bool
) -> None:
    """Its order may be filled by now and only not be seen yet, and the engine forgets ids after so many and a day."""
    servers.may_answer.set()
    servers.taken, servers.age_s, servers.is_past = taken, age_s, is_past
    await servers.claim(1, "mine", str(UUID(int=1)), 7, request_digest(order(1)))
    if is_sent:
        assert not (await desk.place(order(2))).repeated
    else:
        with pytest.raises(Unavailable, match="look again later"):
            await desk.place(order(2))


def test_what_is_sent_again_comes_before_its_id_is_forgotten() -> None:
    """At the fastest, and as late as it can: the engine knows an id for `SEEN_IDS_MAX` further ones."""
    assert 0 < SENT_AGAIN_RECORDS_MAX <= SEEN_IDS_MAX - COMMAND_LATE_S_MAX * PARTITION_ORDERS_S_MAX


async def test_a_young_claim_is_sent_again_though_redis_is_away(servers: Servers, desk: OrderDesk) -> None:
    """The engine takes it once."""
    servers.may_answer.set()
    servers.away = Unavailable("Redis is away")
    await servers.claim(1, "mine", str(UUID(int=1)), 7, request_digest(order(1)))
    assert not (await desk.place(order(2))).repeated


async def test_an_order_of_unknown_fate_is_named(servers: Servers, desk: OrderDesk) -> None:
    """Alone and each of a batch, by the id that it has if the log has it."""
    servers.is_log_away = True
    with pytest.raises(ApiError) as caught:
        await desk.place(order(1))
    assert error_view(caught.value)["orderId"] == str(UUID(int=1))
    orders = [order(2), order(3)]
    for one in orders:
        one.client_order_id = None
    failed = await desk.place_all(orders)
    assert [error_view(to_api_error(one))["orderId"] for one in cast("Any", failed)] == [
        str(UUID(int=2)),
        str(UUID(int=3)),
    ]


async def test_an_order_that_could_not_be_looked_for_is_not_unknown(servers: Servers, finder: OrderFinder) -> None:
    """Another process may have taken it, and Redis, which would say so, is away."""
    with pytest.raises(ApiError, match="no order with this id"):
        await finder.find(str(UUID(int=5)), 1)
    servers.away = Unavailable("Redis is away")
    with pytest.raises(Unavailable, match="Redis is away"):
        await finder.find(str(UUID(int=5)), 1)


async def test_page_behind_an_order_has_the_pending_orders_behind_it(servers: Servers, finder: OrderFinder) -> None:
    """However many are before it: the place is that of the order, to the millisecond."""
    servers.may_answer.set()
    last = {"id": str(UUID(int=5)), "createdAt": "2026-01-01T00:00:00.001Z"}
    with patch.object(OrderFinder, "find", AsyncMock(return_value=last)):
        assert await finder.page(1, 1, 10, before=last["id"]) == []
    assert servers.listed["before"] == (1_767_225_600_001, last["id"])
    assert await finder.page(1, 2, 10) == []
    assert (servers.listed["before"], servers.listed["most"]) == (None, 20)


async def test_trades_are_those_that_the_order_has(servers: Servers, finder: OrderFinder) -> None:
    """It may trade between the two looks at the tables; what is answered is of one moment."""
    order = {"id": "a", "symbolId": 7, "createdAt": "2026-01-01T00:00:00.000Z", "filledQuantity": Decimal("2.5")}
    moment = datetime(2026, 1, 1)  # noqa: DTZ001 - as the driver gives it
    row = {"tradeId": "t", "price": Decimal(1), "isTaker": False, "timestamp": moment}
    servers.rows = [row | {"quantity": Decimal(text)} for text in ("1", "1.5", "3")]
    assert [trade["quantity"] for trade in await finder.trades(order)] == [Decimal(1), Decimal("1.5")]


async def test_own_orders_have_their_client_order_ids_while_the_registry_is_away(
    servers: Servers, desk: OrderDesk, finder: OrderFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For half a day: after a whole one the id may be another order's, of another process."""
    servers.may_answer.set()
    clock = SimpleNamespace(now=1.0)
    monkeypatch.setattr(claims_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    await desk.place(order(1))
    servers.away = Unavailable("Postgres is away")
    clock.now += 12 * 60 * 60 - 1
    assert await finder._id_of_client("mine", 7) == str(UUID(int=1))
    for client_order_id, user_id in (("mine", 8), ("other", 7)):
        with pytest.raises(Unavailable):
            await finder._id_of_client(client_order_id, user_id)
    clock.now += 1
    with pytest.raises(Unavailable):
        await finder._id_of_client("mine", 7)
    servers.away = None
    with pytest.raises(ApiError, match="no order with this id"):
        await finder._id_of_client("mine", 7)


async def test_lists_leave_connections_to_orders(servers: Servers, finder: OrderFinder) -> None:
    """However many are asked for at once."""
    lists = [asyncio.create_task(finder.page(user_id, 1, 10)) for user_id in range(10)]
    await turns(20)
    assert servers.inside == Postgres("postgresql://")._connections // 2
    servers.may_answer.set()
    await asyncio.gather(*lists)
    assert servers.inside_most == 2


async def test_who_waits_too_long_for_a_list_is_told(
    servers: Servers, finder: OrderFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a database that hangs the line would grow without end."""
    monkeypatch.setattr(finding, "WEB_STATEMENT_S_MAX", 0.01)
    lists = [asyncio.create_task(finder.page(user_id, 1, 10)) for user_id in range(3)]
    with pytest.raises(Unavailable, match="too many lists"):
        await lists[2]
    servers.may_answer.set()
    await asyncio.gather(*lists[:2])
    await finder.page(1, 1, 10)
