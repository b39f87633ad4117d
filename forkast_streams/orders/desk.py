"""The order desk: places orders so that each request makes one order.

What it refuses, it refuses with the error that the client is answered with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from forkast_streams.engine.commands import NewOrder
from forkast_streams.errors import ApiError, ForkastError, Unavailable
from forkast_streams.orders.claims import Claims
from forkast_streams.orders.command_log import CommandLog, not_acknowledged
from forkast_streams.orders.commands import order_fields, place_command
from forkast_streams.orders.finding import CLOSED, OrderFinder, closed
from forkast_streams.orders.ids import random_uuid
from forkast_streams.orders.pending import PendingOrders
from forkast_streams.orders.requests import PlaceOrder, may_have_kept_rules, new_order, require_kept_rules
from forkast_streams.orders.symbols import Symbols
from forkast_streams.orders.views import pending_order


@dataclass(slots=True)
class Placed:
    """An order the log has; ``repeated`` if an earlier request with the same client order id had placed it."""

    order: NewOrder
    repeated: bool = False


@dataclass(slots=True)
class _Turn:
    """One at a time of the requests that have a client order id in common.

    They are counted, because a lock that is released is free until the next one in the queue has woken up.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    requests: int = 0


class OrderDesk:
    """Places orders."""

    def __init__(
        self, log: CommandLog, symbols: Symbols, pending: PendingOrders, claims: Claims, finder: OrderFinder
    ) -> None:
        self._log = log
        self._symbols = symbols
        self._pending = pending
        self._claims = claims
        self._finder = finder
        # Requests with a client order id on their way, by user and that id.
        self._under_way: dict[tuple[int, str], _Turn] = {}

    async def prepare(self, request: PlaceOrder, user_id: int, *, replaces: str | None = None) -> NewOrder:
        """The command that a request asks for.

        Raises:
            ApiError: 400, it breaks a rule.
            Unavailable: it does, and whether it is a repeat cannot be seen.
        """
        symbol = self._symbols.known(request.symbol_id) or await self._symbols.get(request.symbol_id)
        order = new_order(request, random_uuid(), user_id, symbol, replaces=replaces)
        try:
            require_kept_rules(order, symbol)
        except ApiError:
            # A repeat of what was right when it came is answered as it was, whatever the symbol's rules are now.
            if not (may_have_kept_rules(order) and await self._claims.has_claimed(order)):
                raise
        return order

    async def place(self, order: NewOrder) -> Placed:
        """Have the log take an order; it can be read as soon as this has answered.

        Raises:
            ApiError: 409, its client order id stands for another request; 503, the log did not acknowledge.
            Unavailable: its client order id cannot be checked.
        """
        if order.client_order_id is None:
            await self._append(order)
            return Placed(order)
        key = order.user_id, order.client_order_id
        turn = self._under_way.setdefault(key, _Turn())
        turn.requests += 1
        try:
            # Of requests that come at once the first one places the order, the others find it placed.
            async with turn.lock:
                if await self._claims.claim(order):
                    return Placed(order, repeated=True)
                await self._append(order)
                return Placed(order)
        finally:
            turn.requests -= 1
            if not turn.requests:
                del self._under_way[key]

    async def replace(self, request: PlaceOrder, old_id: str, user_id: int) -> Placed:
        """Have the log take an order in place of another one of the same symbol; the engine does both or neither.

        Raises:
            ApiError: 400, a rule is broken; 404, there is no such order; 409, it has ended; else as ``place``.
            Unavailable: as `OrderFinder.find` and ``place``.
        """
        old = await self._finder.find(old_id, user_id, for_change=True)
        if request.symbol_id != old["symbolId"]:
            message = "an order is replaced by one of the same symbol"
            raise ApiError(400, "INVALID_VALUE", message, field="symbolId")
        order = await self.prepare(request, user_id, replaces=old["id"])
        # The request that is repeated here may be what ended the old order: then its answer is that of the first.
        if old["status"] in CLOSED and not await self._claims.has_claimed(order):
            raise closed(old)
        return await self.place(order)

    async def place_all(self, orders: Sequence[NewOrder | ForkastError]) -> list[Placed | ForkastError]:
        """Place the orders of a batch, each by itself; what is refused already stays refused."""
        claimed = await self._claim_all(_first_of_each_client_id(orders))
        fresh = [placed.order for placed in claimed if isinstance(placed, Placed) and not placed.repeated]
        fields = [order_fields(order) for order in fresh]
        commands = [(order.symbol_id, place_command(order, of)) for order, of in zip(fresh, fields, strict=True)]
        times = await self._log.append_all(commands)
        failed: dict[str, ApiError] = {}
        pending: list[dict[str, Any]] = []
        for order, of, taken in zip(fresh, fields, times, strict=True):
            if isinstance(taken, ApiError):
                failed[order.order_id] = not_acknowledged(order.order_id)
            else:
                self._claims.remember(order)
                pending.append(pending_order(order, of, taken))
        if pending:
            await self._pending.add_all(pending)
        return [failed.get(one.order.order_id, one) if isinstance(one, Placed) else one for one in claimed]

    def _append(self, order: NewOrder) -> Awaitable[object]:
        """Done when the log has the order and it can be read."""
        fields = order_fields(order)

        def remember(created_ms: int, remembered: asyncio.Future[Any]) -> None:
            self._claims.remember(order)
            self._pending.add_for(remembered, pending_order(order, fields, created_ms))

        return self._log.append(order.symbol_id, place_command(order, fields), remember, order_id=order.order_id)

    async def _claim_all(self, orders: Sequence[NewOrder | ForkastError]) -> list[Placed | ForkastError]:
        """Claim the client order ids of a batch; what has none needs no claim, and no task of its own."""
        claimed = [one if isinstance(one, ForkastError) else Placed(one) for one in orders]
        named = [place for place, one in enumerate(orders) if isinstance(one, NewOrder) and one.client_order_id]
        claims = await asyncio.gather(*[self._claim_of_batch(claimed[place]) for place in named])
        for place, claim in zip(named, claims, strict=True):
            claimed[place] = claim
        return claimed

    async def _claim_of_batch(self, placed: Placed | ForkastError) -> Placed | ForkastError:
        assert isinstance(placed, Placed), "what is refused is not claimed"
        order = placed.order
        try:
            return Placed(order, repeated=await self._claims.claim(order))
        except (ApiError, Unavailable) as exc:
            return exc


def _first_of_each_client_id(orders: Sequence[NewOrder | ForkastError]) -> list[NewOrder | ForkastError]:
    """Refuse all but the first order with a client order id: which of them would be the repeat?"""
    seen: set[str] = set()
    checked: list[NewOrder | ForkastError] = []
    for order in orders:
        client_order_id = order.client_order_id if isinstance(order, NewOrder) else None
        if client_order_id is None:
            checked.append(order)
        elif client_order_id in seen:
            message = "this clientOrderId stands in the batch more than once"
            checked.append(ApiError(409, "CLIENT_ORDER_ID_CONFLICT", message, field="clientOrderId"))
        else:
            seen.add(client_order_id)
            checked.append(order)
    return checked
