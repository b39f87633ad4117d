"""Many orders with one request: batches, cancel-all and the dead-man's switch."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from forkast_streams.engine.commands import NewOrder
from forkast_streams.errors import ApiError, ForkastError
from forkast_streams.limits import LARGEST_BODY_BYTES_MAX
from forkast_streams.orders.commands import cancel_after_command, cancel_all_command, cancel_command
from forkast_streams.orders.desk import OrderDesk, Placed
from forkast_streams.orders.ids import random_hex
from forkast_streams.orders.requests import decode_batch, decode_ids, decode_timeout
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

    def __init__(self, desk: OrderDesk) -> None:
        self._desk = desk

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
        user_id = user_of(request).id
        results: list[dict[str, Any]] = []
        commands, places = [], []
        for order_id in ids:
            command_id = random_hex()
            try:
                order = await self._desk.find_open(order_id, user_id)
            except ForkastError as exc:
                results.append(_result(exc))
                continue
            places.append(len(results))
            commands.append((order["symbolId"], cancel_command(order["symbolId"], order["id"], user_id, command_id)))
            results.append({"orderId": order["id"], "commandId": command_id, "status": "CANCEL_REQUESTED"})
        for place, taken in zip(places, await self._desk.log.append_all(commands), strict=True):
            if isinstance(taken, ApiError):
                results[place] = _result(taken)
        return json_response({"results": results})

    async def cancel_all(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel all orders of the user, in one symbol or in all of them."""
        # A symbol that is named there would be overlooked, and the orders of all symbols be gone.
        await require_no_body(request)
        symbol_ids, command_id = await self._symbol_ids(request), random_hex()
        user_id = user_of(request).id
        charge(request, len(symbol_ids))
        await self._append_all([(one, cancel_all_command(one, user_id, command_id)) for one in symbol_ids])
        return json_response(
            {"commandId": command_id, "status": "CANCEL_REQUESTED", "symbolIds": symbol_ids}, status=202
        )

    async def cancel_after(self, request: web.Request) -> web.Response:
        """Set, or with 0 clear, the time after which all orders of the user are cancelled unless it is set again."""
        timeout_s = decode_timeout(await read_json_body(request, BODY_BYTES_MAX))
        symbol_ids, command_id = await self._symbol_ids(request), random_hex()
        user_id = user_of(request).id
        charge(request, len(symbol_ids))
        commands = [(one, cancel_after_command(one, user_id, timeout_s * 1000, command_id)) for one in symbol_ids]
        await self._append_all(commands)
        return json_response({"commandId": command_id, "timeout": timeout_s, "symbolIds": symbol_ids}, status=202)

    async def _symbol_ids(self, request: web.Request) -> list[int]:
        """The symbol that the request names, or all of them."""
        symbol_id = optional_symbol_id(request)
        if symbol_id is None:
            return [row["id"] for row in await self._desk.symbols.rows()]
        return [(await self._desk.symbols.get(symbol_id)).id]

    async def _append_all(self, commands: list[tuple[int, bytes]]) -> None:
        for taken in await self._desk.log.append_all(commands):
            if isinstance(taken, ApiError):
                # To send all of them again does no harm: who has no orders any more has none to cancel.
                raise taken


def placed_view(placed: Placed) -> dict[str, Any]:
    """What tells a client of its order."""
    order = placed.order
    body = {"orderId": order.order_id}
    if order.client_order_id is not None:
        body["clientOrderId"] = order.client_order_id
    return body


def _result(placed: Placed | ForkastError | Exception) -> dict[str, Any]:
    if isinstance(placed, Placed):
        return placed_view(placed)
    return {"error": error_view(to_api_error(placed))}


def add_routes(router: web.UrlDispatcher, desk: OrderDesk) -> None:
    """Add the routes."""
    views = BatchViews(desk)
    router.add_post(f"/orders/{BATCH}", views.place)
    router.add_post(f"/orders/{BATCH_CANCEL}", views.cancel)
    router.add_post(f"/orders/{CANCEL_AFTER}", views.cancel_after)
    router.add_delete("/orders", views.cancel_all)
