"""The OMS: place, read, list, amend and cancel orders.

An order is accepted when the log has acknowledged it; what becomes of it is decided by the engine, in the order of the
log, and read from the database. Cancelling and amending are requests in the same log, so they are answered with 202.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import msgspec
from aiohttp import web
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from forkast_streams.engine.commands import Amend, NewOrder
from forkast_streams.errors import ApiError, Unavailable
from forkast_streams.limits import WEB_STATEMENT_S_MAX
from forkast_streams.orders.pending import PENDING_S_MAX, PendingOrders
from forkast_streams.orders.requests import (
    AmendOrder,
    PlaceOrder,
    amendment,
    decode_body,
    new_order,
    parse_order_id,
    plain,
)
from forkast_streams.orders.symbols import Symbols
from forkast_streams.orders.views import order_view, pending_order, rows_of_pending
from forkast_streams.producer import EventProducer
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.postgres import Postgres
from forkast_streams.storage.redis import connect
from forkast_streams.topics import ORDERS_NEW, partition_for
from web.auth import user_of
from web.bodies import read_body
from web.errors import json_response
from web.parameters import integer_parameter

BODY_BYTES_MAX = 16 * 1024
PAGE_ORDERS_MAX = 100
PAGE_MAX = 1_000_000
_SEND_S_MAX = 8.0
# aiohttp's own pattern leaves braces out, and a malformed id would be an unknown route.
_ORDER_PATH = "/orders/{id:[^/]+}"
_CLOSED = frozenset({"FILLED", "CANCELLED", "REJECTED", "EXPIRED"})

_encode = msgspec.json.Encoder().encode


class CommandLog:
    """Puts commands into ``orders.new``."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self._partitions = 0

    async def append(self, symbol_id: int, command: dict[str, Any], order_id: str) -> RecordMetadata:
        """Return once the log has acknowledged the command.

        Raises:
            ApiError: 503, it has not, and whether it will is unknown.
        """
        try:
            async with asyncio.timeout(_SEND_S_MAX):
                if not self._partitions:
                    self._partitions = await self._producer.partition_count(ORDERS_NEW)
                return await self._producer.send(
                    ORDERS_NEW,
                    key=str(symbol_id).encode(),
                    value=_encode(command),
                    partition=partition_for(symbol_id, self._partitions),
                )
        except (KafkaError, TimeoutError, OSError, RuntimeError) as exc:
            message = (
                f"the log did not acknowledge in time; whether it has the request is unknown: "
                f"look at order {order_id} before sending it again"
            )
            raise ApiError(503, "LOG_UNAVAILABLE", message, headers={"Retry-After": "2"}) from exc


class OrderViews:
    """The routes under ``/orders``, and ``/symbols``."""

    def __init__(self, log: CommandLog, postgres: Postgres, symbols: Symbols, pending: PendingOrders) -> None:
        self._log = log
        self._postgres = postgres
        self._symbols = symbols
        self._pending = pending

    async def place(self, request: web.Request) -> web.Response:
        """Place an order; it can be read as soon as this has answered."""
        body = decode_body(PlaceOrder, await _json_body(request))
        symbol = await self._symbols.get(body.symbol_id)
        order = new_order(body, str(uuid.uuid4()), user_of(request).id, symbol)
        metadata = await self._log.append(symbol.id, _new_order_command(order), order.order_id)
        await self._pending.add(pending_order(order, metadata.timestamp))
        return json_response({"orderId": order.order_id}, status=201)

    async def get(self, request: web.Request) -> web.Response:
        """One of the user's orders; another's is answered as an unknown one."""
        return json_response(await self._find(request), headers=None)

    async def list(self, request: web.Request) -> web.Response:
        """The user's orders, newest first."""
        page = integer_parameter(request, "page", default=1, most=PAGE_MAX)
        limit = integer_parameter(request, "limit", default=10, most=PAGE_ORDERS_MAX)
        user_id = user_of(request).id
        newer_than_ms = int((time.time() - PENDING_S_MAX) * 1000)
        pending = await self._pending.of_user(user_id, newer_than_ms=newer_than_ms, most=page * limit)
        rows = await self._postgres.query(
            "orders_of_user",
            user_id=user_id,
            pending=_encode(rows_of_pending(pending)).decode(),
            limit=limit,
            offset=(page - 1) * limit,
        )
        return json_response({"page": page, "limit": limit, "orders": [order_view(row) for row in rows]})

    async def cancel(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel an order."""
        order = await self._find_open(request)
        command_id = uuid.uuid4().hex
        command = {
            "command": "CANCEL",
            "symbolId": order["symbolId"],
            "orderId": order["id"],
            "userId": order["userId"],
            "commandId": command_id,
        }
        await self._log.append(order["symbolId"], command, order["id"])
        return _requested(order["id"], command_id, "CANCEL_REQUESTED")

    async def amend(self, request: web.Request) -> web.Response:
        """Ask the engine to give an order another price or total quantity."""
        body = decode_body(AmendOrder, await _json_body(request))
        order = await self._find_open(request)
        symbol = await self._symbols.get(order["symbolId"])
        amend = amendment(body, order["id"], order["userId"], symbol, uuid.uuid4().hex)
        await self._log.append(symbol.id, _amend_command(amend), order["id"])
        return _requested(order["id"], amend.command_id or "", "AMEND_REQUESTED")

    async def symbols(self, _request: web.Request) -> web.Response:
        """All symbols with their trading rules."""
        rows = await self._symbols.rows()
        decimals = ("tickSize", "lotSize")
        return json_response({"symbols": [row | {name: plain(row[name]) for name in decimals} for row in rows]})

    async def _find_open(self, request: web.Request) -> dict[str, Any]:
        order = await self._find(request)
        if order["status"] in _CLOSED:
            raise ApiError(409, "ALREADY_CLOSED", f"the order is {order['status']}; it can not be changed any more")
        return order

    async def _find(self, request: web.Request) -> dict[str, Any]:
        order_id, user_id = parse_order_id(request.match_info["id"]), user_of(request).id
        pending = await self._pending.get(order_id, user_id)
        try:
            rows = await self._postgres.query("order_by_id", id=order_id, user_id=user_id)
        except Unavailable:
            if pending is None:
                raise
            rows = []
        if rows:
            return order_view(rows[0])
        if pending is None:
            raise ApiError(404, "NOT_FOUND", "you have no order with this id")
        return order_view(rows_of_pending([pending])[0])


async def _json_body(request: web.Request) -> bytes:
    if request.content_type != "application/json":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must be sent as Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "the body must not be compressed")
    return await read_body(request, BODY_BYTES_MAX)


def _new_order_command(order: NewOrder) -> dict[str, Any]:
    command: dict[str, Any] = {
        "id": order.order_id,
        "userId": order.user_id,
        "symbolId": order.symbol_id,
        "type": order.type,
        "side": order.side,
        "quantity": plain(order.quantity),
        "timeInForce": order.time_in_force,
    }
    if order.price is not None:
        command["price"] = plain(order.price)
    if order.client_order_id is not None:
        command["clientOrderId"] = order.client_order_id
    return command


def _amend_command(amend: Amend) -> dict[str, Any]:
    command: dict[str, Any] = {
        "command": "AMEND",
        "symbolId": amend.symbol_id,
        "orderId": amend.order_id,
        "userId": amend.user_id,
        "commandId": amend.command_id,
    }
    if amend.price is not None:
        command["price"] = plain(amend.price)
    if amend.quantity is not None:
        command["quantity"] = plain(amend.quantity)
    return command


def _requested(order_id: str, command_id: str, status: str) -> web.Response:
    return json_response({"orderId": order_id, "commandId": command_id, "status": status}, status=202)


def register(app: ExchangeApp) -> None:
    """Add the routes and what they need."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-oms")
    postgres = Postgres(app.settings.database_url, timeout_s=WEB_STATEMENT_S_MAX)
    redis = connect(app.settings.redis_url)
    pending = PendingOrders(redis)
    views = OrderViews(CommandLog(producer), postgres, Symbols(postgres), pending)
    app.run_service(producer)
    app.run_service(postgres)
    router = app.web.web_app.router
    router.add_post("/orders", views.place)
    router.add_get("/orders", views.list)
    router.add_get(_ORDER_PATH, views.get)
    router.add_delete(_ORDER_PATH, views.cancel)
    router.add_patch(_ORDER_PATH, views.amend)
    router.add_get("/symbols", views.symbols)

    async def close(_: web.Application) -> None:
        await pending.close()
        await redis.aclose()

    app.web.web_app.on_cleanup.append(close)
