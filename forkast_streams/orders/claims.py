"""What the client order ids of orders stand for: which request was first, and whether the log has its order."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress

from forkast_streams.engine.commands import NewOrder
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import COMMAND_LATE_S_MAX, SEEN_WINDOW_MS, SENT_AGAIN_RECORDS_MAX
from forkast_streams.orders.client_ids import Claim, ClientOrderIds
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.orders.commands import request_digest
from forkast_streams.orders.pending import PendingOrders
from forkast_streams.storage.postgres import Postgres

_PLACED_MAX = 50_000
_PLACED_S_MAX = 12 * 60 * 60


class Claims:
    """The registry of client order ids, and those under which this process has placed orders."""

    def __init__(self, log: CommandLog, postgres: Postgres, pending: PendingOrders, client_ids: ClientOrderIds) -> None:
        self._log = log
        self._postgres = postgres
        self._pending = pending
        self._client_ids = client_ids
        # By user and client order id: the id of an order that the log has acknowledged here, and when it was placed.
        self._placed: OrderedDict[tuple[int, str], tuple[str, float]] = OrderedDict()

    async def claim(self, order: NewOrder) -> bool:
        """Give ``order`` the id that its client order id stands for; return whether the log has it already.

        Raises:
            ApiError: 409, its client order id stands for another request; 503, the log does not tell enough.
            Unavailable: what the id stands for, or whether the log has that order, cannot be seen now.
        """
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
        # Whoever claimed it may have died before the log had the order.
        if not await self._may_send_again(claim):
            raise Unavailable(
                "an earlier request with this clientOrderId has made no order that can be seen, but one may be on "
                "its way: look again later, or use another clientOrderId for a new order"
            )
        return False

    async def has_claimed(self, order: NewOrder) -> bool:
        """Whether the client order id of ``order`` stands for an order that a repeat is answered with.

        Raises:
            Unavailable: the database is out of reach.
        """
        if order.client_order_id is None:
            return False
        return await self._client_ids.is_claimed(order.user_id, order.client_order_id)

    async def find(self, user_id: int, client_order_id: str) -> str | None:
        """The id of the user's newest order with this client order id.

        Raises:
            Unavailable: the database is out of reach, and this process has not placed such an order lately.
        """
        try:
            return await self._client_ids.find(user_id, client_order_id)
        except Unavailable:
            # For as long as the id cannot have become another order's, of another process.
            order_id = self._placed_as(user_id, client_order_id)
            if order_id is None:
                raise
            return order_id

    def remember(self, order: NewOrder) -> None:
        """The log has ``order``: its client order id stands for it."""
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

    async def _may_send_again(self, claim: Claim) -> bool:
        """Whether the order of a claim makes one order at most, however late either of its commands is in the log.

        The engine surely remembers the id of the first one until then, or the tables would have it if the log had.
        """
        is_within_window = (claim.age_s + COMMAND_LATE_S_MAX) * 1000 <= SEEN_WINDOW_MS
        if is_within_window and await self._log.count_since(claim.symbol_id, claim.age_s) <= SENT_AGAIN_RECORDS_MAX:
            return True
        claimed = {"symbol_id": claim.symbol_id, "age_s": claim.age_s}
        rows = await self._postgres.query("is_past_claim", **claimed, late_s=COMMAND_LATE_S_MAX)
        return bool(rows[0]["isPast"])

    async def _is_known(self, order: NewOrder) -> bool:
        with suppress(Unavailable):
            if await self._pending.get(order.order_id, order.user_id) is not None:
                return True
        return bool(await self._postgres.query("orders_by_id", ids=[order.order_id], user_id=order.user_id))
