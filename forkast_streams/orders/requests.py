"""Requests of traders, from their JSON bodies to commands for the log. No I/O."""

from __future__ import annotations

import re
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from forkast_streams.codec import TOKEN, number_of
from forkast_streams.engine.commands import EXPIRE_TAKER, GTC, Amend, NewOrder, Number
from forkast_streams.engine.order_checks import broken_amend_rule, broken_rule
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.symbols import Symbol, decimal_of
from forkast_streams.errors import ApiError, InvalidRecord
from forkast_streams.json_bodies import decode_body, decode_shape, refuse_repeated_fields
from forkast_streams.limits import BATCH_ORDERS_MAX, CANCEL_AFTER_MS_MAX, EXPIRES_AT_MS_MAX

CANCEL_AFTER_S_MAX = CANCEL_AFTER_MS_MAX // 1000
CLIENT_ID_PREFIX = "client:"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_ORDERS = b'"orders"'
# Before and behind the point; no tick, lot or limit comes near it.
_DIGITS_MAX = 40
_REJECTED_FIELDS = {
    Rejection.PRICE_REQUIRED: "price",
    Rejection.PRICE_NOT_ALLOWED: "price",
    Rejection.STOP_PRICE_REQUIRED: "stopPrice",
    Rejection.STOP_PRICE_NOT_ALLOWED: "stopPrice",
    Rejection.QUANTITY_REQUIRED: "quantity",
    Rejection.QUANTITY_NOT_ALLOWED: "quantity",
    Rejection.QUOTE_QUANTITY_NOT_ALLOWED: "quoteQuantity",
    Rejection.EXPIRES_AT_REQUIRED: "expiresAt",
    Rejection.EXPIRES_AT_NOT_ALLOWED: "expiresAt",
    Rejection.TIME_IN_FORCE_NOT_ALLOWED: "timeInForce",
    Rejection.POST_ONLY_NOT_ALLOWED: "postOnly",
    Rejection.DISPLAY_QUANTITY_NOT_ALLOWED: "displayQuantity",
    Rejection.INVALID_PRICE: "price",
    Rejection.INVALID_TICK: "price",
    Rejection.INVALID_STOP_PRICE: "stopPrice",
    Rejection.INVALID_STOP_TICK: "stopPrice",
    Rejection.INVALID_QUANTITY: "quantity",
    Rejection.INVALID_LOT: "quantity",
    Rejection.INVALID_QUOTE_QUANTITY: "quoteQuantity",
    Rejection.INVALID_DISPLAY_QUANTITY: "displayQuantity",
    Rejection.QUANTITY_TOO_SMALL: "quantity",
    Rejection.QUANTITY_TOO_LARGE: "quantity",
    Rejection.MIN_NOTIONAL: "quantity",
}


class PlaceOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``POST /orders``. Prices and quantities are JSON numbers or decimal strings."""

    symbol_id: int
    type: Literal["LIMIT", "MARKET", "STOP", "STOP_LIMIT"]
    side: Literal["BUY", "SELL"]
    quantity: Any = UNSET
    price: Any = UNSET
    time_in_force: Literal["GTC", "IOC", "FOK", "GTD"] = GTC
    client_order_id: str | None = None
    quote_quantity: Any = UNSET
    stop_price: Any = UNSET
    expires_at: int | UnsetType = UNSET
    post_only: bool = False
    display_quantity: Any = UNSET
    self_trade_prevention: Literal["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"] = EXPIRE_TAKER


class PlaceBatch(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``POST /orders/batch``: 1 to 100 orders, each as the body of ``POST /orders``."""

    orders: list[msgspec.Raw]


class CancelBatch(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``POST /orders/batch-cancel``: 1 to 100 order ids, or ``client:`` and a client order id."""

    ids: list[str]


class CancelAfterBody(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``POST /orders/cancel-after``: seconds from now, 0 for never."""

    timeout: int


class AmendOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``PATCH /orders/{id}``; ``quantity`` is the new total with what is filled."""

    price: Any | UnsetType = UNSET
    quantity: Any | UnsetType = UNSET
    stop_price: Any | UnsetType = UNSET


def decode_batch(body: bytes) -> list[PlaceOrder | ApiError]:
    """Decode the orders of a batch, each by itself: what is wrong with one says nothing of the others.

    Raises:
        ApiError: 400, the body is no batch of 1 to 100 orders.
    """
    raws = decode_shape(PlaceBatch, body).orders
    # Names repeat in every batch. To look for those that must not is as dear as to decode it, and each order is looked
    # at by itself below: the whole batch only if there is more than one list, or anything is wrong.
    is_looked_at = body.count(_ORDERS) > 1 or b"\\" in body or not 0 < len(raws) <= BATCH_ORDERS_MAX
    if is_looked_at:
        refuse_repeated_fields(body)
    _require_batch_size(raws, "orders")
    orders: list[PlaceOrder | ApiError] = []
    for raw in raws:
        try:
            orders.append(decode_body(PlaceOrder, bytes(raw)))
        except ApiError as exc:
            if not is_looked_at:
                refuse_repeated_fields(body)
                is_looked_at = True
            orders.append(exc)
    return orders


def decode_ids(body: bytes) -> list[str]:
    """Decode the ids of a batch of cancels.

    Raises:
        ApiError: 400, the body is no list of 1 to 100 texts.
    """
    ids = decode_body(CancelBatch, body).ids
    _require_batch_size(ids, "ids")
    return ids


def decode_timeout(body: bytes) -> int:
    """Decode the seconds of a dead-man's switch.

    Raises:
        ApiError: 400, they are none from 0 to a day.
    """
    timeout = decode_body(CancelAfterBody, body).timeout
    if not 0 <= timeout <= CANCEL_AFTER_S_MAX:
        message = f"timeout must be 0 to {CANCEL_AFTER_S_MAX} seconds"
        raise ApiError(400, "OUT_OF_RANGE", message, field="timeout")
    return timeout


def _require_batch_size(items: list[Any], field: str) -> None:
    if not 0 < len(items) <= BATCH_ORDERS_MAX:
        message = f"{field} must have 1 to {BATCH_ORDERS_MAX} elements"
        raise ApiError(400, "BATCH_SIZE", message, field=field)


def new_order(
    request: PlaceOrder, order_id: str, user_id: int, symbol: Symbol, *, replaces: str | None = None
) -> NewOrder:
    """The command that places an order; ``require_kept_rules`` tells whether it may be sent.

    Raises:
        ApiError: 400, a field has a value that it cannot have.
    """
    if request.client_order_id is not None and not TOKEN.fullmatch(request.client_order_id):
        message = "clientOrderId must be 1 to 36 letters, digits, '-' or '_'"
        raise ApiError(400, "INVALID_VALUE", message, field="clientOrderId")
    expires_at = None if request.expires_at is UNSET else request.expires_at
    if expires_at is not None and not 0 < expires_at <= EXPIRES_AT_MS_MAX:
        message = "expiresAt must be a time in milliseconds, at the latest in the year 9999"
        raise ApiError(400, "OUT_OF_RANGE", message, field="expiresAt")
    # Of an order that takes any price programs send null; of one that needs a price that is none, which is refused.
    price = None if request.price is None else _optional_number("price", request.price)
    return NewOrder(
        symbol.id,
        order_id,
        user_id,
        request.type,
        request.side,
        _optional_number("quantity", request.quantity),
        price,
        request.time_in_force,
        request.client_order_id,
        None,
        _optional_number("quoteQuantity", request.quote_quantity),
        _optional_number("stopPrice", request.stop_price),
        expires_at,
        request.post_only,
        _optional_number("displayQuantity", request.display_quantity),
        request.self_trade_prevention,
        replaces,
    )


def require_kept_rules(order: NewOrder, symbol: Symbol) -> None:
    """Refuse an order that breaks a rule.

    Raises:
        ApiError: 400, with the first rule that needs no book to be seen broken.
    """
    broken = broken_rule(order, symbol)
    if broken is not None:
        _refuse(broken, order, symbol)


def may_have_kept_rules(order: NewOrder) -> bool:
    """Whether the numbers have so few digits that the symbol, with other rules than today's, may have allowed them."""
    numbers = order.quantity, order.price, order.quote_quantity, order.stop_price, order.display_quantity
    exponents = [decimal_of(number).as_tuple().exponent for number in numbers if number is not None]
    return all(isinstance(exponent, int) and abs(exponent) <= _DIGITS_MAX for exponent in exponents)


def amendment(
    request: AmendOrder, order_id: str, user_id: int, order_type: str, symbol: Symbol, command_id: str
) -> Amend:
    """The command that changes an order.

    Raises:
        ApiError: 400, nothing is to be changed or a value breaks a rule of the symbol.
    """
    command = Amend(
        symbol.id,
        order_id,
        user_id,
        _optional_number("price", request.price),
        _optional_number("quantity", request.quantity),
        command_id,
        _optional_number("stopPrice", request.stop_price),
    )
    if command.price is None and command.quantity is None and command.stop_price is None:
        raise ApiError(400, "MISSING_FIELD", "price, quantity or stopPrice must be given")
    broken = broken_amend_rule(command, order_type, symbol)
    if broken is not None:
        _refuse(broken, command, symbol)
    return command


def _refuse(broken: Rejection, command: NewOrder | Amend, symbol: Symbol) -> NoReturn:
    raise ApiError(400, broken.value, broken.message(command, symbol), field=_REJECTED_FIELDS.get(broken))


def _optional_number(field: str, value: object) -> Number | None:
    if value is UNSET:
        return None
    try:
        return number_of(field, value)
    except InvalidRecord as exc:
        raise ApiError(400, exc.code, str(exc), field=field) from None


def parse_order_id(text: str) -> str:
    """An order id of a path.

    Raises:
        ApiError: 400, it is no dashed UUID.
    """
    if not _UUID.fullmatch(text.lower()):
        raise ApiError(400, "INVALID_ID", "an order id is a UUID with dashes", field="id")
    return text.lower()
