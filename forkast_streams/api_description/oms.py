"""The routes of the OMS."""

from __future__ import annotations

from forkast_streams.api_description.answers import (
    ApiKeyList,
    ApiKeyMade,
    ApiKeyRevoked,
    OrdersPage,
    OrderView,
    PlacedOrder,
    RequestedChange,
    SymbolList,
)
from forkast_streams.api_description.fields import UUID
from forkast_streams.api_description.process import DESCRIPTION_ROUTES, HEALTH_ROUTES
from forkast_streams.api_description.routes import (
    BODY_ERRORS,
    LOG_ERRORS,
    PARAMETER_ERRORS,
    Answer,
    Codes,
    Parameter,
    Route,
    merged,
)
from forkast_streams.api_keys import MakeKey
from forkast_streams.engine.rejections import Rejection
from forkast_streams.orders.requests import AmendOrder, PlaceOrder

_ORDERS, _KEYS, _SYMBOLS = "Orders", "API keys", "Symbols"

# What only the book knows is answered by the engine, in REJECT events.
_OF_THE_BOOK = {Rejection.DUPLICATE_ORDER, Rejection.UNKNOWN_ORDER, Rejection.SYMBOL_IN_USE}
_RULES: dict[int, Codes] = {
    400: ("UNKNOWN_SYMBOL", *(rejection.value for rejection in Rejection if rejection not in _OF_THE_BOOK))
}
_NOT_FOUND: dict[int, Codes] = {404: ("NOT_FOUND",)}
_OF_AN_ORDER = merged({400: ("INVALID_ID",)}, _NOT_FOUND)
_CLOSED: dict[int, Codes] = {409: ("ALREADY_CLOSED",)}

_OF_ORDERS = ("getOrder", "amendOrder", "cancelOrder")

_ORDER_ID = Parameter("id", "path", UUID, "The order's id.")
_PAGE = Parameter(
    "page", "query", {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1}, "Which page, from 1."
)
_LIMIT = Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 10}, "Orders a page.")

_ORDER_ROUTES = (
    Route(
        "POST",
        "/orders",
        "placeOrder",
        "Place an order",
        _ORDERS,
        (Answer(201, "The log has the order; it can be read at once.", PlacedOrder, links=_OF_ORDERS),),
        description="Whether it trades is decided in the order of the log; read the order or follow the events.",
        errors=merged(BODY_ERRORS, _RULES, LOG_ERRORS),
        body=PlaceOrder,
        example={"symbolId": 1, "type": "LIMIT", "side": "BUY", "quantity": 10, "price": "101.25"},
    ),
    Route(
        "GET",
        "/orders",
        "listOrders",
        "The user's orders, newest first",
        _ORDERS,
        (Answer(200, "A page of orders.", OrdersPage),),
        errors=PARAMETER_ERRORS,
        parameters=(_PAGE, _LIMIT),
    ),
    Route(
        "GET",
        "/orders/{id}",
        "getOrder",
        "One order",
        _ORDERS,
        (Answer(200, "The order.", OrderView),),
        description="The order of another user is answered as one that does not exist.",
        errors=_OF_AN_ORDER,
        parameters=(_ORDER_ID,),
    ),
    Route(
        "PATCH",
        "/orders/{id}",
        "amendOrder",
        "Change the price or the total quantity of an order",
        _ORDERS,
        (Answer(202, "The log has the request.", RequestedChange),),
        description="`quantity` is the new total, with what is filled.",
        errors=merged(BODY_ERRORS, _OF_AN_ORDER, _CLOSED, _RULES, LOG_ERRORS),
        parameters=(_ORDER_ID,),
        body=AmendOrder,
        example={"quantity": 5},
    ),
    Route(
        "DELETE",
        "/orders/{id}",
        "cancelOrder",
        "Cancel an order",
        _ORDERS,
        (Answer(202, "The log has the request.", RequestedChange),),
        errors=merged(_OF_AN_ORDER, _CLOSED, LOG_ERRORS),
        parameters=(_ORDER_ID,),
    ),
)
_SYMBOL_ROUTES = (
    Route("GET", "/symbols", "listSymbols", "All symbols", _SYMBOLS, (Answer(200, "The symbols.", SymbolList),)),
)
_KEY_ROUTES = (
    Route(
        "POST",
        "/api-keys",
        "makeApiKey",
        "Make an API key",
        _KEYS,
        (Answer(201, "The key; its secret is told only here.", ApiKeyMade),),
        errors=merged(BODY_ERRORS, {409: ("TOO_MANY_API_KEYS",)}),
        body=MakeKey,
        example={"name": "market maker", "scopes": ["read", "trade"]},
        credentials="password",
    ),
    Route(
        "GET",
        "/api-keys",
        "listApiKeys",
        "The user's API keys",
        _KEYS,
        (Answer(200, "The keys, without secrets.", ApiKeyList),),
        credentials="password",
    ),
    Route(
        "DELETE",
        "/api-keys/{id}",
        "revokeApiKey",
        "Revoke an API key",
        _KEYS,
        (Answer(200, "The key is refused from now on.", ApiKeyRevoked),),
        errors=_NOT_FOUND,
        parameters=(Parameter("id", "path", {"type": "string", "pattern": "^[0-9a-f]{24}$"}, "The key's id."),),
        credentials="password",
    ),
)

ROUTES = (*_ORDER_ROUTES, *_SYMBOL_ROUTES, *_KEY_ROUTES, *HEALTH_ROUTES, *DESCRIPTION_ROUTES)
