"""Requests of traders, from their JSON bodies to commands for the log. No I/O."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from forkast_streams.codec import number_of
from forkast_streams.engine.commands import LIMIT, Amend, DefineSymbol, NewOrder, Number
from forkast_streams.engine.rejections import Rejection
from forkast_streams.engine.rules import broken_amend_rule, broken_rule
from forkast_streams.engine.symbols import Symbol, decimal_of
from forkast_streams.errors import ApiError, InvalidRecord

CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_FIELD_NAME = re.compile(r"[A-Za-z0-9_]{1,40}", re.ASCII)
_REJECTED_FIELDS = {
    Rejection.PRICE_REQUIRED: "price",
    Rejection.PRICE_NOT_ALLOWED: "price",
    Rejection.INVALID_PRICE: "price",
    Rejection.INVALID_TICK: "price",
    Rejection.INVALID_QUANTITY: "quantity",
    Rejection.INVALID_LOT: "quantity",
}


class PlaceOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``POST /orders``. Numbers are JSON numbers or decimal strings."""

    symbol_id: int
    type: Literal["LIMIT", "MARKET"]
    side: Literal["BUY", "SELL"]
    quantity: Any
    price: Any = None
    time_in_force: Literal["GTC", "IOC"] = "GTC"
    client_order_id: str | None = None


class AmendOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """Body of ``PATCH /orders/{id}``; ``quantity`` is the new total with what is filled."""

    price: Any | UnsetType = UNSET
    quantity: Any | UnsetType = UNSET


BodyT = TypeVar("BodyT", PlaceOrder, AmendOrder)

_decoders: dict[type, Any] = {body: msgspec.json.Decoder(body, float_hook=Decimal) for body in (PlaceOrder, AmendOrder)}


def decode_body(kind: type[BodyT], body: bytes) -> BodyT:
    """Decode a request body strictly.

    Raises:
        ApiError: 400, with a code and the field at fault.
    """
    try:
        decoded = _decoders[kind].decode(body)
        _refuse_repeated_fields(body)
    except msgspec.ValidationError as exc:
        raise _shape_error(str(exc)) from None
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError):
        raise ApiError(400, "INVALID_JSON", "the body must be one JSON object in UTF-8") from None
    return decoded  # type: ignore[no-any-return]


def _refuse_repeated_fields(body: bytes) -> None:
    pairs = json.loads(body, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ApiError(400, "DUPLICATE_FIELD", "a field must be given once")


def _shape_error(message: str) -> ApiError:
    """The decoder's complaint in our words and codes, without a value of the request in it."""
    quoted = re.findall(r"`([^`]*)`", message)
    path = quoted[-1].removeprefix("$.") if quoted and quoted[-1].startswith("$.") else None
    if "unknown field" in message:
        name = quoted[0] if quoted and _FIELD_NAME.fullmatch(quoted[0]) else None
        return ApiError(400, "UNKNOWN_FIELD", "the body has a field that this request does not know", field=name)
    if "missing required field" in message:
        return ApiError(400, "MISSING_FIELD", f"{quoted[0]} is missing", field=quoted[0])
    if message.startswith("Invalid enum value"):
        return ApiError(400, "INVALID_ENUM", f"{path} has none of its possible values", field=path)
    if path is None:
        return ApiError(400, "BODY_NOT_OBJECT", "the body must be a JSON object")
    return ApiError(400, "INVALID_TYPE", f"{path} has the wrong type", field=path)


def new_order(request: PlaceOrder, order_id: str, user_id: int, symbol: Symbol) -> NewOrder:
    """The command that places an order.

    Raises:
        ApiError: 400, the order breaks a rule of its symbol.
    """
    if request.client_order_id is not None and not CLIENT_ORDER_ID.fullmatch(request.client_order_id):
        message = "clientOrderId must be 1 to 36 letters, digits, '-' or '_'"
        raise ApiError(400, "INVALID_VALUE", message, field="clientOrderId")
    order = NewOrder(
        symbol.id,
        order_id,
        user_id,
        request.type,
        request.side,
        _number("quantity", request.quantity),
        None if request.price is None else _number("price", request.price),
        request.time_in_force,
        request.client_order_id,
        None,
    )
    _raise_if_broken(broken_rule(order, symbol), order, symbol)
    return order


def amendment(request: AmendOrder, order_id: str, user_id: int, symbol: Symbol, command_id: str) -> Amend:
    """The command that changes an order.

    Raises:
        ApiError: 400, nothing is to be changed or a value breaks a rule of the symbol.
    """
    price = None if request.price is UNSET else _number("price", request.price)
    quantity = None if request.quantity is UNSET else _number("quantity", request.quantity)
    if price is None and quantity is None:
        raise ApiError(400, "MISSING_FIELD", "price or quantity must be given")
    command = Amend(symbol.id, order_id, user_id, price, quantity, command_id)
    _raise_if_broken(broken_amend_rule(command, LIMIT, symbol), command, symbol)
    return command


def _raise_if_broken(broken: Rejection | None, command: NewOrder | Amend, symbol: Symbol) -> None:
    if broken is not None:
        message = broken.message(command, symbol)
        raise ApiError(400, broken.value, message, field=_REJECTED_FIELDS.get(broken))


def _number(field: str, value: object) -> Number:
    try:
        return number_of(field, value)
    except InvalidRecord as exc:
        raise ApiError(400, exc.code, str(exc), field=field) from None


def symbol_of(row: dict[str, Any]) -> Symbol:
    """A row of ``"Symbol"`` as trading rules."""
    tick_size, lot_size = row["tickSize"].normalize(), row["lotSize"].normalize()
    return Symbol(DefineSymbol(row["id"], row["symbol"], tick_size, lot_size, row["status"], None))


def parse_order_id(text: str) -> str:
    """An order id of a path.

    Raises:
        ApiError: 400, it is no dashed UUID.
    """
    if not _UUID.fullmatch(text.lower()):
        raise ApiError(400, "INVALID_ID", "an order id is a UUID with dashes", field="id")
    return text.lower()


def plain(number: Number | None) -> str:
    """A number as plain decimal text without superfluous zeros."""
    assert number is not None, "only a market order can do without, and it is checked before"
    return f"{decimal_of(number).normalize():f}"
