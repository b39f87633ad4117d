"""Finds a user's orders: one by its id, its fills, and all of them page by page.

An order is seen as soon as it was placed: in its row, or while it has none in the pending orders.
"""

from __future__ import annotations

import asyncio
import time
from itertools import accumulate
from typing import Any

import msgspec

from forkast_streams.codec import TOKEN
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import WEB_STATEMENT_S_MAX
from forkast_streams.orders.claims import Claims
from forkast_streams.orders.pending import LISTED_MAX, PENDING_S_MAX, PendingOrders
from forkast_streams.orders.requests import CLIENT_ID_PREFIX, parse_order_id
from forkast_streams.orders.views import order_view, place_of, rows_of_pending, trade_view
from forkast_streams.storage.postgres import PING_INTERVAL_S, Postgres

TRADES_SHOWN_MAX = 1_000
CLOSED = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})
# Half of the connections to Postgres: orders with a client order id wait for them, too, and no list is worth an order.
_LISTS_AT_ONCE_MAX = 2
# Other processes ask Postgres in other moments than this one, and the log has a clock of its own.
_ANSWERED_MARGIN_MS = int(2_000 * PING_INTERVAL_S)


class OrderFinder:
    """Finds orders; what cannot be found is refused with the error that the client is answered with."""

    def __init__(self, postgres: Postgres, pending: PendingOrders, claims: Claims) -> None:
        self._postgres = postgres
        self._pending = pending
        self._claims = claims
        self._lists = asyncio.Semaphore(_LISTS_AT_ONCE_MAX)

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
        if order["status"] in CLOSED:
            raise closed(order)
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
        place = None if last is None else place_of(last)
        pending = await self._pending.of_user(user_id, newer_than_ms=newer_than_ms, before=place, most=most)
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

    def _is_newer_than_rows(self, pending: dict[str, Any]) -> bool:
        """Whether nobody has had the chance to read a row of this order: Postgres was away when the log took it."""
        newer: bool = pending["createdAtMs"] > self._postgres.answered_ms + _ANSWERED_MARGIN_MS
        return newer

    async def _id_of_client(self, client_order_id: str, user_id: int) -> str:
        if not TOKEN.fullmatch(client_order_id):
            message = "after client: must come a client order id, 1 to 36 letters, digits, '-' or '_'"
            raise ApiError(400, "INVALID_ID", message, field="id")
        order_id = await self._claims.find(user_id, client_order_id)
        if order_id is None:
            raise _not_found()
        return order_id


def closed(order: dict[str, Any]) -> ApiError:
    """The refusal to change an order that has ended."""
    return ApiError(409, "ALREADY_CLOSED", f"the order is {order['status']}; it cannot be changed any more")


def _not_found() -> ApiError:
    return ApiError(404, "NOT_FOUND", "you have no order with this id")
