"""Many orders with one request: batches, cancel-all and the dead-man's switch."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from forkast_streams.engine.commands import NewOrder
from forkast_streams.errors import ApiError, ForkastError
from forkast_streams.limits import LARGEST_BODY_BYTES_MAX
from forkast_streams.orders.changing import OrderChanger, Requested
from forkast_streams.orders.desk import OrderDesk, Placed
from forkast_streams.orders.requests import decode_batch, decode_ids, decode_timeout
from forkast_streams.orders.symbols import Symbols
from web.auth import user_of
from web.bodies import read_json_body, require_no_body
from web.errors import error_view, json_response, to_api_error
from web.parameters import optional_symbol_id
from web.rate_limits import charge

BODY_BYTES_MAX = 16 * 1024
# What stands in a path where an order's id could.
BATCH, BATCH_CANCEL, CANCEL_AFTER = NAMES = ("batch", "batch-cancel", "cancel-after")


class BatchViews:
    """The routes."""

    def __init__(self, desk: OrderDesk, changer: OrderChanger, symbols: Symbols) -> None:
        self._desk = desk
        self._changer = changer
        self._symbols = symbols

    async def place(self, request: web.Request) -> web.Response:
        """Place up to 100 orders; each has its own answer, in the order in which they were sent."""
        bodies = decode_batch(await read_json_body(request, LARGEST_BODY_BYTES_MAX))
        charge(request, len(bodies))
        user_id = user_of(request).id
        orders: list[NewOrder | ForkastError] = []
        for body in bodies:
            try:
                orders.append(body if isinstance(body, ApiError) else await self._desk.prepare(body, user_id))
            except ForkastError as exc:
                orders.append(exc)
        placed = await self._desk.place_all(orders)
        return json_response({"results": [_result(one) for one in placed]})

    async def cancel(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel up to 100 orders; each has its own answer."""
        ids = decode_ids(await read_json_body(request, BODY_BYTES_MAX))
        charge(request, len(ids))
        requested = await self._changer.cancel_many(ids, user_of(request).id)
        return json_response({"results": [_result(one) for one in requested]})

    async def cancel_all(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel all orders of the user, in one symbol or in all of them."""
        # A symbol that is named there would be overlooked, and the orders of all symbols be gone.
        await require_no_body(request)
        symbol_ids = await self._symbols.ids(optional_symbol_id(request))
        charge(request, len(symbol_ids))
        command_id = await self._changer.cancel_all(symbol_ids, user_of(request).id)
        return json_response(
            {"commandId": command_id, "status": "CANCEL_REQUESTED", "symbolIds": symbol_ids}, status=202
        )

    async def cancel_after(self, request: web.Request) -> web.Response:
        """Set, or with 0 clear, the time after which all orders of the user are cancelled unless it is set again."""
        timeout_s = decode_timeout(await read_json_body(request, BODY_BYTES_MAX))
        symbol_ids = await self._symbols.ids(optional_symbol_id(request))
        charge(request, len(symbol_ids))
        command_id = await self._changer.cancel_after(symbol_ids, user_of(request).id, timeout_s)
        return json_response({"commandId": command_id, "timeout": timeout_s, "symbolIds": symbol_ids}, status=202)


def placed_view(placed: Placed) -> dict[str, Any]:
    """What tells a client of its order."""
    order = placed.order
    body = {"orderId": order.order_id}
    if order.client_order_id is not None:
        body["clientOrderId"] = order.client_order_id
    return body


def requested_view(requested: Requested, status: str) -> dict[str, Any]:
    """What tells a client of a change that it asked for."""
    return {"orderId": requested.order_id, "commandId": requested.command_id, "status": status}


def _result(result: Placed | Requested | ForkastError) -> dict[str, Any]:
    if isinstance(result, Placed):
        return placed_view(result)
    if isinstance(result, Requested):
        return requested_view(result, "CANCEL_REQUESTED")
    return {"error": error_view(to_api_error(result))}


def add_routes(router: web.UrlDispatcher, views: BatchViews) -> None:
    """Add the routes."""
    router.add_post(f"/orders/{BATCH}", views.place)
    router.add_post(f"/orders/{BATCH_CANCEL}", views.cancel)
    router.add_post(f"/orders/{CANCEL_AFTER}", views.cancel_after)
    router.add_delete("/orders", views.cancel_all)
