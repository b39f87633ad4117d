"""The order desk: places orders so that each request makes one order, and finds them again. No HTTP."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import msgspec

from forkast_streams.codec import TOKEN
from forkast_streams.engine.commands import NewOrder
from forkast_streams.errors import ApiError, ForkastError, Unavailable
from forkast_streams.limits import WEB_STATEMENT_S_MAX
from forkast_streams.orders.client_ids import ClientOrderIds
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.orders.commands import order_fields, place_command, request_digest
from forkast_streams.orders.ids import random_uuid
from forkast_streams.orders.pending import LISTED_MAX, PENDING_S_MAX, PendingOrders
from forkast_streams.orders.requests import (
    CLIENT_ID_PREFIX,
    PlaceOrder,
    may_have_kept_rules,
    new_order,
    parse_order_id,
    require_kept_rules,
)
from forkast_streams.orders.symbols import Symbols
from forkast_streams.orders.views import order_view, pending_order, rows_of_pending, trade_view
from forkast_streams.storage.postgres import PING_INTERVAL_S, Postgres

TRADES_SHOWN_MAX = 1_000
# Half of the connections to Postgres: orders with a client order id wait for them, too, and no list is worth an order.
_LISTS_AT_ONCE_MAX = 2
_PLACED_MAX = 50_000
_PLACED_S_MAX = 12 * 60 * 60
# Half of the time that an order without a row is known.
_CLAIM_SENT_AGAIN_S_MAX = PENDING_S_MAX / 2
# Other processes ask Postgres in other moments than this one, and the log has a clock of its own.
_ANSWERED_MARGIN_MS = int(2_000 * PING_INTERVAL_S)
_CLOSED = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})


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
    """Places and finds orders."""

    def __init__(
        self,
        log: CommandLog,
        postgres: Postgres,
        symbols: Symbols,
        pending: PendingOrders,
        client_ids: ClientOrderIds,
    ) -> None:
        self.log = log
        self.symbols = symbols
        self._postgres = postgres
        self._pending = pending
        self._client_ids = client_ids
        self._lists = asyncio.Semaphore(_LISTS_AT_ONCE_MAX)
        # Requests with a client order id on their way, and such orders that the log has acknowledged to this process.
        self._under_way: dict[tuple[int, str], _Turn] = {}
        # These by user and client order id: the order's id, and when it was placed.
        self._placed: OrderedDict[tuple[int, str], tuple[str, float]] = OrderedDict()

    async def prepare(self, request: PlaceOrder, user_id: int, *, replaces: str | None = None) -> NewOrder:
        """The command that a request asks for.

        Raises:
            ApiError: 400, it breaks a rule.
            Unavailable: it does, and whether it is a repeat cannot be seen.
        """
        symbol = self.symbols.known(request.symbol_id) or await self.symbols.get(request.symbol_id)
        order = new_order(request, random_uuid(), user_id, symbol, replaces=replaces)
        try:
            require_kept_rules(order, symbol)
        except ApiError:
            # A repeat of what was right when it came is answered as it was, whatever the symbol's rules are now.
            if not (may_have_kept_rules(order) and await self._has_claimed(order)):
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
                if await self._claim(order):
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
            Unavailable: as ``find`` and ``place``.
        """
        old = await self.find(old_id, user_id, for_change=True)
        if request.symbol_id != old["symbolId"]:
            message = "an order is replaced by one of the same symbol"
            raise ApiError(400, "INVALID_VALUE", message, field="symbolId")
        order = await self.prepare(request, user_id, replaces=old["id"])
        # The request that is repeated here may be what ended the old order: then its answer is that of the first.
        if old["status"] in _CLOSED and not await self._has_claimed(order):
            raise _closed(old)
        return await self.place(order)

    async def place_all(self, orders: Sequence[NewOrder | ForkastError]) -> list[Placed | ForkastError]:
        """Place the orders of a batch, each by itself; what is refused already stays refused."""
        claimed = await self._claim_all(_first_of_each_client_id(orders))
        fresh = [placed.order for placed in claimed if isinstance(placed, Placed) and not placed.repeated]
        fields = [order_fields(order) for order in fresh]
        commands = [(order.symbol_id, place_command(order, of)) for order, of in zip(fresh, fields, strict=True)]
        times = await self.log.append_all(commands)
        failed: dict[str, ApiError] = {}
        pending: list[dict[str, Any]] = []
        for order, of, taken in zip(fresh, fields, times, strict=True):
            if isinstance(taken, ApiError):
                failed[order.order_id] = taken
            else:
                self._remember(order)
                pending.append(pending_order(order, of, taken))
        if pending:
            await self._pending.add_all(pending)
        return [failed.get(one.order.order_id, one) if isinstance(one, Placed) else one for one in claimed]

    async def find(self, order_id: str, user_id: int, *, for_change: bool = False) -> dict[str, Any]:
        """A user's order as it is seen, by its id or ``client:`` and its client order id.

        Args:
            order_id: which order.
            user_id: whose it must be.
            for_change: it need not be as it is now: the engine will decide.

        Raises:
            ApiError: 400, no such id is possible; 404, the user has no such order.
            Unavailable: what is known of the order now cannot be read.
        """
        if order_id.startswith(CLIENT_ID_PREFIX):
            order_id = await self._id_of_client(order_id.removeprefix(CLIENT_ID_PREFIX), user_id)
        order_id = parse_order_id(order_id)
        pending, not_looked = await self._look_for_pending(order_id, user_id)
        try:
            rows = await self._postgres.query("orders_by_id", ids=[order_id], user_id=user_id)
        except Unavailable:
            # An older one may have been read from its row already, and must not be seen to go back to what it was.
            if pending is None or not (for_change or self._is_newer_than_rows(pending)):
                raise
            rows = []
        if rows:
            return order_view(rows[0])
        if pending is not None:
            return order_view(rows_of_pending([pending])[0])
        raise not_looked or _not_found()

    async def _look_for_pending(self, order_id: str, user_id: int) -> tuple[dict[str, Any] | None, Unavailable | None]:
        """The pending order; none, and why, when it could not be looked for."""
        try:
            return await self._pending.get(order_id, user_id), None
        except Unavailable as exc:
            return None, exc

    async def find_open(self, order_id: str, user_id: int) -> dict[str, Any]:
        """As ``find``, for a request to change the order.

        Raises:
            ApiError: 409, the order has ended.
        """
        order = await self.find(order_id, user_id, for_change=True)
        if order["status"] in _CLOSED:
            raise _closed(order)
        return order

    async def trades(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        """The fills of an order, first one first, at most 1,000."""
        if not order["filledQuantity"]:
            return []
        rows = await self._postgres.query(
            "trades_of_order",
            id=order["id"],
            symbol_id=order["symbolId"],
            created_at=order["createdAt"],
            limit=TRADES_SHOWN_MAX,
        )
        # The order may have traded on since it was read.
        filled = accumulate(row["quantity"] for row in rows)
        return [trade_view(row) for row, so_far in zip(rows, filled, strict=True) if so_far <= order["filledQuantity"]]

    async def page(self, user_id: int, page: int, limit: int, *, before: str | None = None) -> list[dict[str, Any]]:
        """A page of the user's orders, newest first, those without a row among them.

        Args:
            user_id: whose orders.
            page: which one, from 1.
            limit: orders a page.
            before: the id of an order, as ``find`` takes it: pages begin behind it. None: with the newest order.

        Raises:
            ApiError: 400 or 404, there is no such order.
            Unavailable: the database is out of reach.
        """
        last = None if before is None else await self.find(before, user_id)
        newer_than_ms = int((time.time() - PENDING_S_MAX) * 1000)
        most = page * limit if last is None else LISTED_MAX
        pending = await self._pending.of_user(user_id, newer_than_ms=newer_than_ms, most=most)
        await self._turn_to_list()
        try:
            rows = await self._postgres.query(
                "orders_of_user",
                user_id=user_id,
                pending=msgspec.json.encode(rows_of_pending(pending)).decode(),
                before_at=None if last is None else last["createdAt"],
                before_id=None if last is None else last["id"],
                limit=limit,
                offset=(page - 1) * limit,
            )
        finally:
            self._lists.release()
        return [order_view(row) for row in rows]

    async def _turn_to_list(self) -> None:
        try:
            async with asyncio.timeout(WEB_STATEMENT_S_MAX):
                await self._lists.acquire()
        except TimeoutError:
            raise Unavailable("too many lists of orders are being read; try again shortly") from None

    def _append(self, order: NewOrder) -> Awaitable[object]:
        """Done when the log has the order and it can be read."""
        fields = order_fields(order)

        def remember(created_ms: int, remembered: asyncio.Future[Any]) -> None:
            self._remember(order)
            self._pending.add_for(remembered, pending_order(order, fields, created_ms))

        return self.log.append(order.symbol_id, place_command(order, fields), remember)

    async def _has_claimed(self, order: NewOrder) -> bool:
        """Whether the client order id of ``order`` stands for an order that a repeat is answered with."""
        if order.client_order_id is None:
            return False
        return await self._client_ids.is_claimed(order.user_id, order.client_order_id)

    async def _claim(self, order: NewOrder) -> bool:
        """Give ``order`` the id that its client order id stands for; return whether the log has it already."""
        assert order.client_order_id is not None, "the caller has looked"
        digest = request_digest(order)
        claim = await self._client_ids.claim(
            order.user_id, order.client_order_id, order.order_id, order.symbol_id, digest
        )
        if claim.digest != digest:
            message = "this clientOrderId stands for another order of yours; a new order needs a new one"
            raise ApiError(409, "CLIENT_ORDER_ID_CONFLICT", message, field="clientOrderId")
        order.order_id = claim.order_id
        if claim.is_new:
            return False
        if self._placed_as(order.user_id, order.client_order_id) == order.order_id:
            return True
        if await self._is_known(order):
            return True
        # Whoever claimed it may have died before the log had the order. To send it again costs a repeat at most, for as
        # long as the engine surely remembers the id; later it must be sure that the log does not have it.
        if claim.age_s > _CLAIM_SENT_AGAIN_S_MAX:
            rows = await self._postgres.query("is_past_claim", symbol_id=order.symbol_id, age_s=claim.age_s)
            if not rows[0]["isPast"]:
                raise Unavailable(
                    "an earlier request with this clientOrderId has made no order that can be seen, but one may be on "
                    "its way: look again later, or use another clientOrderId for a new order"
                )
        return False

    async def _is_known(self, order: NewOrder) -> bool:
        pending, _ = await self._look_for_pending(order.order_id, order.user_id)
        if pending is not None:
            return True
        return bool(await self._postgres.query("orders_by_id", ids=[order.order_id], user_id=order.user_id))

    def _is_newer_than_rows(self, pending: dict[str, Any]) -> bool:
        """Whether nobody has had the chance to read a row of this order: Postgres was away when the log took it."""
        newer: bool = pending["createdAtMs"] > self._postgres.answered_ms + _ANSWERED_MARGIN_MS
        return newer

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
            return Placed(order, repeated=await self._claim(order))
        except (ApiError, Unavailable) as exc:
            return exc

    async def _id_of_client(self, client_order_id: str, user_id: int) -> str:
        if not TOKEN.fullmatch(client_order_id):
            message = "after client: must come a client order id, 1 to 36 letters, digits, '-' or '_'"
            raise ApiError(400, "INVALID_ID", message, field="id")
        try:
            order_id = await self._client_ids.find(user_id, client_order_id)
        except Unavailable:
            # For as long as the id cannot have become another order's, of another process.
            order_id = self._placed_as(user_id, client_order_id)
            if order_id is None:
                raise
        if order_id is None:
            raise _not_found()
        return order_id

    def _remember(self, order: NewOrder) -> None:
        if order.client_order_id is None:
            return
        key = order.user_id, order.client_order_id
        self._placed[key] = order.order_id, time.monotonic()
        self._placed.move_to_end(key)
        if len(self._placed) > _PLACED_MAX:
            self._placed.popitem(last=False)

    def _placed_as(self, user_id: int, client_order_id: str) -> str | None:
        """The id of an order that this process has placed, for half of the time that its client order id is its own."""
        order_id, placed_at = self._placed.get((user_id, client_order_id), (None, 0.0))
        return order_id if time.monotonic() - placed_at < _PLACED_S_MAX else None


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


def _closed(order: dict[str, Any]) -> ApiError:
    return ApiError(409, "ALREADY_CLOSED", f"the order is {order['status']}; it cannot be changed any more")


def _not_found() -> ApiError:
    return ApiError(404, "NOT_FOUND", "you have no order with this id")
