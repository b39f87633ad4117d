"""Every reason to refuse a command, one a row, in their order of precedence; both exchanges keep them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from forkast_streams.engine.rejections import Rejection
from tests.support.exchanges import Engine, Naive
from tests.support.flows import START_MS, order_command, symbol_command

OWN, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
# User 2 sells 5 at 101, which trades once with user 3: the last price is 101; user 1 has a bid of 10 at 100.
BOOK = [
    order_command(id=OTHER, side="SELL", quantity=5, price="101.00"),
    order_command(id=str(uuid.UUID(int=3)), userId=3, quantity=1, price="101.00"),
    order_command(id=OWN, quantity=10, price="100.00"),
]
NEW: dict[str, Any] = order_command(id=str(uuid.UUID(int=9)), quantity=2, price="99.00")
# What is wrong with it in a dozen ways, so that the first reason in the order of precedence is what comes back.
AWFUL = {"price": "0.001", "stopPrice": "0", "quantity": "-0.5", "quoteQuantity": 0, "expiresAt": 1, "postOnly": True}


class Refusal(NamedTuple):
    """``command`` is refused with ``code``, by a symbol with ``rules``; wherever it can, it breaks a later rule too."""

    code: Rejection
    command: dict[str, Any]
    rules: Mapping[str, Any] = MappingProxyType({})


def new(**changes: Any) -> dict[str, Any]:
    """The new order with changes; None takes a field away."""
    return {name: value for name, value in (NEW | changes).items() if value is not None}


ROWS = [
    Refusal(Rejection.DUPLICATE_ORDER, new(id=OWN, **AWFUL), {"status": "HALTED"}),
    Refusal(Rejection.UNKNOWN_ORDER, new(command="REPLACE", orderId=OTHER, **AWFUL), {"status": "HALTED"}),
    Refusal(Rejection.SYMBOL_HALTED, new(**AWFUL), {"status": "HALTED"}),
    Refusal(Rejection.CANCEL_ONLY, new(**AWFUL), {"status": "CANCEL_ONLY"}),
    Refusal(Rejection.PRICE_REQUIRED, new(**AWFUL | {"price": None})),
    Refusal(Rejection.PRICE_NOT_ALLOWED, new(type="MARKET", **AWFUL)),
    Refusal(Rejection.STOP_PRICE_REQUIRED, new(type="STOP_LIMIT", **AWFUL | {"stopPrice": None})),
    Refusal(Rejection.STOP_PRICE_NOT_ALLOWED, new(**AWFUL)),
    Refusal(Rejection.QUANTITY_REQUIRED, new(**AWFUL | {"stopPrice": None, "quantity": None, "quoteQuantity": None})),
    Refusal(Rejection.QUANTITY_NOT_ALLOWED, new(**AWFUL | {"stopPrice": None})),
    Refusal(Rejection.QUOTE_QUANTITY_NOT_ALLOWED, new(**AWFUL | {"stopPrice": None, "quantity": None})),
    Refusal(Rejection.EXPIRES_AT_REQUIRED, new(timeInForce="GTD", price="0.001", displayQuantity=0)),
    Refusal(Rejection.EXPIRES_AT_NOT_ALLOWED, new(timeInForce="IOC", expiresAt=1, price="0.001", postOnly=True)),
    Refusal(
        Rejection.TIME_IN_FORCE_NOT_ALLOWED,
        new(type="MARKET", price=None, timeInForce="GTD", expiresAt=1, quantity=0, postOnly=True),
    ),
    Refusal(Rejection.POST_ONLY_NOT_ALLOWED, new(timeInForce="IOC", postOnly=True, displayQuantity=0, price=0)),
    Refusal(Rejection.DISPLAY_QUANTITY_NOT_ALLOWED, new(timeInForce="FOK", displayQuantity=0, price=0)),
    Refusal(Rejection.INVALID_PRICE, new(price="1000000000.001", quantity=0)),
    Refusal(Rejection.INVALID_TICK, new(price="100.001", quantity=0)),
    Refusal(Rejection.INVALID_STOP_PRICE, new(type="STOP_LIMIT", stopPrice=-1, quantity=0)),
    Refusal(Rejection.INVALID_STOP_TICK, new(type="STOP", price=None, stopPrice="1.001", quantity=0)),
    Refusal(Rejection.INVALID_QUANTITY, new(quantity="1000000000.5", displayQuantity=0)),
    Refusal(Rejection.INVALID_LOT, new(quantity="0.5", displayQuantity=0), {"minQuantity": 1}),
    Refusal(
        Rejection.INVALID_QUOTE_QUANTITY,
        new(type="MARKET", price=None, quantity=None, quoteQuantity=0),
        {"minNotional": 1},
    ),
    Refusal(Rejection.INVALID_DISPLAY_QUANTITY, new(displayQuantity=3), {"minQuantity": 5}),
    Refusal(Rejection.QUANTITY_TOO_SMALL, new(price="0.01"), {"minQuantity": 3, "minNotional": 1}),
    Refusal(Rejection.QUANTITY_TOO_LARGE, new(price="0.01", quantity=6), {"maxQuantity": 5, "minNotional": 1}),
    Refusal(
        Rejection.MIN_NOTIONAL,
        new(price="0.01", timeInForce="GTD", expiresAt=START_MS),
        {"minNotional": "0.03", "priceCollar": "0.1"},
    ),
    Refusal(
        Rejection.ALREADY_EXPIRED, new(price="0.01", timeInForce="GTD", expiresAt=START_MS), {"priceCollar": "0.1"}
    ),
    Refusal(Rejection.PRICE_COLLAR, new(price="112.00", postOnly=True), {"priceCollar": "0.1", "maxOpenOrders": 1}),
    Refusal(Rejection.TOO_MANY_OPEN_ORDERS, new(price="101.00", postOnly=True), {"maxOpenOrders": 1}),
    Refusal(Rejection.POST_ONLY_WOULD_TAKE, new(price="101.00", postOnly=True)),
    Refusal(Rejection.SYMBOL_IN_USE, symbol_command(1, tickSize="0.5")),
]


@pytest.mark.parametrize("exchange", [Engine, Naive])
@pytest.mark.parametrize("row", ROWS, ids=[row.code.value for row in ROWS])
def test_command_is_refused_for_the_first_reason(row: Refusal, exchange: type[Engine | Naive]) -> None:
    """The code of the row, and the book is as it was."""
    venue = exchange()
    for command in [symbol_command(1), *BOOK, symbol_command(1, **row.rules)]:
        venue.process(command)
    before = venue.resting(1)
    events = venue.process(row.command)
    assert [(kind, data["code"]) for kind, data in events] == [("REJECT", row.code.value)]
    assert venue.resting(1) == before


def test_every_reason_has_its_row_in_the_order_of_precedence() -> None:
    """A new reason needs a row, at its place."""
    assert [row.code for row in ROWS] == list(Rejection)
