"""The routes of the keeper."""

from __future__ import annotations

from forkast_streams.api_description.answers import Book, Tape
from forkast_streams.api_description.fields import ID, JsonSchema
from forkast_streams.api_description.process import DESCRIPTION_ROUTES, HEALTH_ROUTES
from forkast_streams.api_description.routes import PARAMETER_ERRORS, Answer, Codes, Parameter, Route, merged
from forkast_streams.limits import DEPTH_MAX, TAPE_TRADES

_TAG = "Market data"
_OF_A_SYMBOL: dict[int, Codes] = {400: ("INVALID_ID",), 404: ("UNKNOWN_SYMBOL",)}
_SYMBOL_ID = Parameter("symbolId", "path", ID, "The symbol's id.")


def _count(default: int, most: int) -> JsonSchema:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default}


ROUTES = (
    Route(
        "GET",
        "/order-book/{symbolId}",
        "getBook",
        "A symbol's book",
        _TAG,
        (Answer(200, "The book.", Book),),
        description="Prices, quantities and numbers of orders, best first; nobody's orders or user ids.",
        errors=merged(PARAMETER_ERRORS, _OF_A_SYMBOL),
        parameters=(_SYMBOL_ID, Parameter("depth", "query", _count(DEPTH_MAX, DEPTH_MAX), "Levels a side.")),
    ),
    Route(
        "GET",
        "/order-book/{symbolId}/stream",
        "streamBook",
        "A symbol's book and its changes, as server-sent events",
        _TAG,
        (Answer(200, "Events without end: a `snapshot`, then each `change`.", media="text/event-stream"),),
        description=(
            "The events' data is described as `BookSnapshot` and `BookChange` in `/asyncapi.json`. An event's id "
            "names its log and its sequence; with `Last-Event-ID` a client gets what it missed, or a new snapshot."
        ),
        errors=_OF_A_SYMBOL,
        parameters=(
            _SYMBOL_ID,
            Parameter("Last-Event-ID", "header", {"type": "string"}, "The id of the last event the client has."),
        ),
    ),
    Route(
        "GET",
        "/trades/{symbolId}",
        "getTrades",
        "A symbol's last trades",
        _TAG,
        (Answer(200, "The trades, newest first.", Tape),),
        errors=merged(PARAMETER_ERRORS, _OF_A_SYMBOL),
        parameters=(_SYMBOL_ID, Parameter("limit", "query", _count(100, TAPE_TRADES), "Number of trades.")),
    ),
    *HEALTH_ROUTES,
    *DESCRIPTION_ROUTES,
)
