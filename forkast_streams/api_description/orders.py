"""The routes of orders and symbols."""

from __future__ import annotations

from typing import Any

from forkast_streams.api_description.fields import ID, TOKEN_PATTERN, UUID, JsonSchema
from forkast_streams.api_description.order_answers import (
    CancelledBatch,
    OrdersPage,
    OrderWithFills,
    PlacedBatch,
    PlacedOrder,
    RequestedCancelAll,
    RequestedChange,
    ScheduledCancelAll,
    SymbolList,
)
from forkast_streams.api_description.routes import (
    BODY_ERRORS,
    IDEMPOTENT_REPLAY,
    LOG_ERRORS,
    PARAMETER_ERRORS,
    Answer,
    Codes,
    Method,
    Parameter,
    Route,
    merged,
)
from forkast_streams.engine.rejections import Rejection
from forkast_streams.limits import PAGED_ORDERS_MAX
from forkast_streams.orders.requests import AmendOrder, CancelAfterBody, CancelBatch, PlaceBatch, PlaceOrder

_ORDERS, _SYMBOLS = "Orders", "Symbols"

# What only the book knows is answered by the engine, in REJECT events.
_OF_THE_BOOK = {Rejection.DUPLICATE_ORDER, Rejection.UNKNOWN_ORDER, Rejection.SYMBOL_IN_USE}
_UNKNOWN_SYMBOL: dict[int, Codes] = {400: ("UNKNOWN_SYMBOL",)}
_RULES: dict[int, Codes] = {
    400: (
        "UNKNOWN_SYMBOL",
        "OUT_OF_RANGE",
        *(rejection.value for rejection in Rejection if rejection not in _OF_THE_BOOK),
    )
}
_NOT_FOUND: dict[int, Codes] = {404: ("NOT_FOUND",)}
_OF_AN_ORDER = merged({400: ("INVALID_ID",)}, _NOT_FOUND)
_CLOSED: dict[int, Codes] = {409: ("ALREADY_CLOSED",)}
_CLIENT_ID: dict[int, Codes] = {409: ("CLIENT_ORDER_ID_CONFLICT",)}
_BATCH: dict[int, Codes] = {400: ("BATCH_SIZE",)}
_ONE_SYMBOL = merged(
    {400: ("INVALID_TYPE", "OUT_OF_RANGE", "DUPLICATE_PARAM", "UNKNOWN_PARAM")}, _UNKNOWN_SYMBOL, LOG_ERRORS
)

_REPLAY = (IDEMPOTENT_REPLAY,)
_OF_ORDERS = ("getOrder", "amendOrder", "replaceOrder", "cancelOrder")
_ID: JsonSchema = {"oneOf": [UUID, {"type": "string", "pattern": TOKEN_PATTERN.replace("^", "^client:")}]}

_ORDER_ID = Parameter("id", "path", _ID, "The order's id, or `client:` and its client order id.")
_SYMBOL_ID = Parameter("symbolId", "query", ID, "Only this symbol; without it all of them.")
_PAGE = Parameter(
    "page",
    "query",
    {"type": "integer", "minimum": 1, "maximum": PAGED_ORDERS_MAX, "default": 1},
    f"Which page, from 1; with `limit` at most {PAGED_ORDERS_MAX:,} orders in, beyond which `before` goes on.",
)
_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}, "Orders a page.")

_BEFORE = Parameter(
    "before", "query", _ID, "Only those placed before this order, such as the last one of the page before."
)

_EXAMPLE = {"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 10, "price": "101.25"}


def _route(method: Method, path: str, name: str, summary: str, answer: Answer, **others: Any) -> Route:
    return Route(method, path, name, summary, _ORDERS, (answer,), **others)


_ONE_ORDER = (
    _route(
        "POST",
        "/orders",
        "placeOrder",
        "Place an order",
        Answer(201, "The log has the order; it can be read at once.", PlacedOrder, links=_OF_ORDERS, headers=_REPLAY),
        description="Whether it trades is decided in the order of the log; read the order or follow the events. With a "
        "`clientOrderId` it can be sent again without making a second order.",
        errors=merged(BODY_ERRORS, _RULES, _CLIENT_ID, LOG_ERRORS),
        body=PlaceOrder,
        example=_EXAMPLE,
    ),
    _route(
        "GET",
        "/orders/{id}",
        "getOrder",
        "One order with its fills",
        Answer(200, "The order.", OrderWithFills),
        description="The order of another user is answered as one that does not exist.",
        errors=_OF_AN_ORDER,
        parameters=(_ORDER_ID,),
    ),
    _route(
        "PATCH",
        "/orders/{id}",
        "amendOrder",
        "Change the price, the stop price or the total quantity of an order",
        Answer(202, "The log has the request.", RequestedChange),
        description="`quantity` is the new total, with what is filled.",
        errors=merged(BODY_ERRORS, _OF_AN_ORDER, _CLOSED, _RULES, LOG_ERRORS),
        parameters=(_ORDER_ID,),
        body=AmendOrder,
        example={"quantity": 5},
    ),
    _route(
        "DELETE",
        "/orders/{id}",
        "cancelOrder",
        "Cancel an order",
        Answer(202, "The log has the request.", RequestedChange),
        errors=merged(_OF_AN_ORDER, _CLOSED, LOG_ERRORS),
        parameters=(_ORDER_ID,),
    ),
    _route(
        "POST",
        "/orders/{id}/replace",
        "replaceOrder",
        "Cancel an order and place another one, or do neither",
        Answer(
            202, "The log has the request; the id is the new order's.", PlacedOrder, links=_OF_ORDERS, headers=_REPLAY
        ),
        description="One command of the log: the new order is placed if and only if the old one was still open.",
        errors=merged(BODY_ERRORS, _OF_AN_ORDER, _CLOSED, _RULES, _CLIENT_ID, LOG_ERRORS),
        parameters=(_ORDER_ID,),
        body=PlaceOrder,
        example=_EXAMPLE,
    ),
)
_MANY_ORDERS = (
    _route(
        "GET",
        "/orders",
        "listOrders",
        "The user's orders, newest first",
        Answer(200, "A page of orders.", OrdersPage),
        errors=merged(PARAMETER_ERRORS, _OF_AN_ORDER),
        parameters=(_PAGE, _LIMIT, _BEFORE),
    ),
    _route(
        "POST",
        "/orders/batch",
        "placeOrders",
        "Place up to 100 orders",
        Answer(200, "An answer for each of them.", PlacedBatch),
        description="Each order is judged by itself. A batch counts as many requests as it has orders.",
        errors=merged(BODY_ERRORS, _BATCH),
        body=PlaceBatch,
        example={"orders": [_EXAMPLE]},
    ),
    _route(
        "POST",
        "/orders/batch-cancel",
        "cancelOrders",
        "Cancel up to 100 orders",
        Answer(200, "An answer for each of them.", CancelledBatch),
        errors=merged(BODY_ERRORS, _BATCH),
        body=CancelBatch,
        example={"ids": ["client:my-order-1"]},
    ),
    _route(
        "DELETE",
        "/orders",
        "cancelAllOrders",
        "Cancel all orders of the user",
        Answer(202, "The log has the request.", RequestedCancelAll),
        description="Every order that the log took before the request.",
        errors=merged(_ONE_SYMBOL, {400: ("BODY_NOT_ALLOWED",), 408: ("BODY_TIMEOUT",)}),
        parameters=(_SYMBOL_ID,),
    ),
    _route(
        "POST",
        "/orders/cancel-after",
        "cancelAllAfter",
        "Cancel all orders of the user unless this is sent again in time",
        Answer(202, "The log has the time.", ScheduledCancelAll),
        description="A dead-man's switch: `timeout` is in seconds, at most a day; 0 clears it.",
        errors=merged(BODY_ERRORS, _ONE_SYMBOL),
        parameters=(_SYMBOL_ID,),
        body=CancelAfterBody,
        example={"timeout": 60},
    ),
)
_OF_SYMBOLS = (
    Route("GET", "/symbols", "listSymbols", "All symbols", _SYMBOLS, (Answer(200, "The symbols.", SymbolList),)),
)

ROUTES = (*_ONE_ORDER, *_MANY_ORDERS, *_OF_SYMBOLS)
