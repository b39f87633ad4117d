"""The OMS: place, read, list, amend, replace and cancel orders.

An order is accepted when the log has acknowledged it; what becomes of it is decided by the engine, in the order of the
log, and read from the database. Cancelling and amending are requests in the same log, so they are answered with 202.
"""

from __future__ import annotations

from aiohttp import web

from forkast_streams.api_description.routes import IDEMPOTENT_REPLAY
from forkast_streams.errors import ApiError
from forkast_streams.json_bodies import decode_body
from forkast_streams.limits import PAGED_ORDERS_MAX, WEB_STATEMENT_S_MAX
from forkast_streams.orders.changing import OrderChanger
from forkast_streams.orders.claims import Claims
from forkast_streams.orders.client_ids import ClientOrderIds
from forkast_streams.orders.command_log import CommandLog
from forkast_streams.orders.desk import OrderDesk, Placed
from forkast_streams.orders.finding import OrderFinder
from forkast_streams.orders.log_watch import LogWatch
from forkast_streams.orders.pending import PendingOrders
from forkast_streams.orders.requests import AmendOrder, PlaceOrder
from forkast_streams.orders.symbols import Symbols
from forkast_streams.orders.views import symbol_view
from forkast_streams.producer import EventProducer
from forkast_streams.roles import ExchangeApp
from forkast_streams.storage.postgres import Postgres
from forkast_streams.storage.redis import connect
from web import order_batches
from web.auth import user_of
from web.bodies import read_json_body
from web.errors import json_response
from web.parameters import integer_parameter, text_parameter

BODY_BYTES_MAX = 16 * 1024
PAGE_ORDERS_MAX = 100
# aiohttp's own pattern leaves braces out, and a malformed id would be an unknown route. The names of other routes are
# no ids: PATCH /orders/batch is a method that the route does not have, not an order that does not exist.
ORDER_PATH = f"/orders/{{id:(?!(?:{'|'.join(order_batches.NAMES)})$)[^/]+}}"


class OrderViews:
    """The routes of single orders, and ``GET /symbols``."""

    def __init__(self, desk: OrderDesk, finder: OrderFinder, changer: OrderChanger, symbols: Symbols) -> None:
        self._desk = desk
        self._finder = finder
        self._changer = changer
        self._symbols = symbols

    async def place(self, request: web.Request) -> web.Response:
        """Place an order; it can be read as soon as this has answered."""
        body = decode_body(PlaceOrder, await read_json_body(request, BODY_BYTES_MAX))
        order = await self._desk.prepare(body, user_of(request).id)
        return _placed(await self._desk.place(order), status=201)

    async def get(self, request: web.Request) -> web.Response:
        """One of the user's orders with its trades; another's is answered as an unknown one."""
        order = await self._finder.find(request.match_info["id"], user_of(request).id)
        return json_response(order | {"trades": await self._finder.trades(order)})

    async def list(self, request: web.Request) -> web.Response:
        """The user's orders, newest first; all of them, or those placed before one of them."""
        page = integer_parameter(request, "page", default=1, most=PAGED_ORDERS_MAX)
        limit = integer_parameter(request, "limit", default=10, most=PAGE_ORDERS_MAX)
        if page * limit > PAGED_ORDERS_MAX:
            message = f"page times limit must be at most {PAGED_ORDERS_MAX}; go on with before=<id of the last order>"
            raise ApiError(400, "OUT_OF_RANGE", message, field="page")
        before = text_parameter(request, "before")
        orders = await self._finder.page(user_of(request).id, page, limit, before=before)
        return json_response({"page": page, "limit": limit, "orders": orders})

    async def cancel(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel an order."""
        requested = await self._changer.cancel(request.match_info["id"], user_of(request).id)
        return json_response(order_batches.requested_view(requested, "CANCEL_REQUESTED"), status=202)

    async def amend(self, request: web.Request) -> web.Response:
        """Ask the engine to give an order another price, stop price or total quantity."""
        body = decode_body(AmendOrder, await read_json_body(request, BODY_BYTES_MAX))
        requested = await self._changer.amend(body, request.match_info["id"], user_of(request).id)
        return json_response(order_batches.requested_view(requested, "AMEND_REQUESTED"), status=202)

    async def replace(self, request: web.Request) -> web.Response:
        """Ask the engine to cancel an order and place another one, or to do neither."""
        body = decode_body(PlaceOrder, await read_json_body(request, BODY_BYTES_MAX))
        placed = await self._desk.replace(body, request.match_info["id"], user_of(request).id)
        return _placed(placed, status=202)

    async def symbols(self, _request: web.Request) -> web.Response:
        """All symbols with their trading rules."""
        return json_response({"symbols": [symbol_view(row) for row in await self._symbols.rows()]})


def _placed(placed: Placed, *, status: int) -> web.Response:
    body = order_batches.placed_view(placed)
    headers = {IDEMPOTENT_REPLAY: "true"} if placed.repeated else None
    return json_response(body, status=status, headers=headers)


def register(app: ExchangeApp) -> None:
    """Add the routes and what they need."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-oms", gather_turns=1)
    postgres = Postgres(app.settings.database_url, timeout_s=WEB_STATEMENT_S_MAX)
    client_ids = ClientOrderIds(postgres)
    redis = connect(app.settings.redis_url)
    pending = PendingOrders(redis)
    log, symbols = CommandLog(producer), Symbols(postgres)
    claims = Claims(log, postgres, pending, client_ids)
    finder = OrderFinder(postgres, pending, claims)
    desk = OrderDesk(log, symbols, pending, claims, finder)
    changer = OrderChanger(log, symbols, finder)
    views = OrderViews(desk, finder, changer, symbols)
    watch = LogWatch(producer)
    app.ready_checks.append(watch.why_not_ready)
    app.run_service(producer)
    app.run_service(watch)
    app.run_service(postgres)
    app.run_service(client_ids)
    router = app.web.web_app.router
    order_batches.add_routes(router, order_batches.BatchViews(desk, changer, symbols))
    router.add_post("/orders", views.place)
    router.add_get("/orders", views.list)
    router.add_get(ORDER_PATH, views.get)
    router.add_delete(ORDER_PATH, views.cancel)
    router.add_patch(ORDER_PATH, views.amend)
    router.add_post(f"{ORDER_PATH}/replace", views.replace)
    router.add_get("/symbols", views.symbols)

    async def close(_: web.Application) -> None:
        await pending.close()
        await redis.aclose()

    app.web.web_app.on_cleanup.append(close)
