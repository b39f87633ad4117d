"""The values of ``orders.new`` as commands, see docs/wire.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec
from mypy_extensions import i64

from forkast_streams.codec.numbers import number_of
from forkast_streams.codec.wire_command import WireCommand, decode
from forkast_streams.engine.commands import (
    BUY,
    SELF_TRADE_PREVENTIONS,
    SELL,
    TIMES_IN_FORCE,
    TYPES,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Command,
    Heartbeat,
    NewOrder,
)
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.symbols import STATUSES, decimal_of
from forkast_streams.errors import InvalidRecord
from forkast_streams.limits import CANCEL_AFTER_MS_MAX, COMMAND_BYTES_MAX, QUOTE_QUANTITY_MAX, STEP_MIN

# What client order ids and ids of commands are.
TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_INT32_MAX: Final = 2**31 - 1
_UUID_CHARS: Final = 36
_DASH: Final = 0x2D
_DIGIT_0: Final = 0x30
_DIGIT_9: Final = 0x39
_LETTER_A: Final = 0x61
_LETTER_F: Final = 0x66
# The bit that makes a letter a lower-case one.
_LOWER: Final = 0x20
_TIME_MAX: Final = 2**53


def decode_command(value: bytes | None) -> Command:
    """Decode the value of an ``orders.new`` record.

    Raises:
        InvalidRecord: it is no command; ``code`` says why.
    """
    if value is None:
        raise InvalidRecord("NULL_VALUE", "a command must have a value, a tombstone has none")
    if len(value) > COMMAND_BYTES_MAX:
        raise InvalidRecord("TOO_LARGE", f"a command must have at most {COMMAND_BYTES_MAX} bytes")
    try:
        wire = decode(value)
    except msgspec.ValidationError as exc:
        raise InvalidRecord("INVALID_SHAPE", str(exc)) from None
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError) as exc:
        raise InvalidRecord("INVALID_JSON", f"the value is not JSON: {exc}") from None
    if not 0 < wire.symbol_id <= _INT32_MAX:
        raise InvalidRecord("UNKNOWN_SYMBOL", f"symbolId must be a positive integer, was {wire.symbol_id}")
    if wire.command_id is not None:
        _check_token("commandId", wire.command_id)
    if wire.command is None:
        return _new_order(wire, None)
    command_of = _DECODERS.get(wire.command)
    if command_of is None:
        raise InvalidRecord("UNKNOWN_COMMAND", f"command must be one of {', '.join(_DECODERS)}")
    return command_of(wire)


def _new_order(wire: WireCommand, replaces: str | None) -> NewOrder:
    if wire.type not in TYPES:
        raise InvalidRecord("INVALID_ENUM", f"type must be one of {', '.join(TYPES)}")
    # The constant and not the decoder's copy of it, which an order would keep for as long as it rests.
    if wire.side == BUY:
        side = BUY
    elif wire.side == SELL:
        side = SELL
    else:
        raise InvalidRecord("INVALID_ENUM", "side must be BUY or SELL")
    if wire.time_in_force not in TIMES_IN_FORCE:
        raise InvalidRecord("INVALID_ENUM", f"timeInForce must be one of {', '.join(TIMES_IN_FORCE)}")
    if wire.self_trade_prevention not in SELF_TRADE_PREVENTIONS:
        raise InvalidRecord("INVALID_ENUM", f"selfTradePrevention must be one of {', '.join(SELF_TRADE_PREVENTIONS)}")
    if wire.client_order_id is not None:
        _check_token("clientOrderId", wire.client_order_id)
    expires_at = wire.expires_at
    if expires_at is not None and not 0 <= expires_at <= _TIME_MAX:
        raise InvalidRecord("INVALID_SHAPE", "expiresAt must be a time in milliseconds")
    _check_user(wire.user_id)
    return NewOrder(
        wire.symbol_id,
        _order_id(wire.id),
        wire.user_id,
        wire.type,
        side,
        None if wire.quantity is None else number_of("quantity", wire.quantity),
        None if wire.price is None else number_of("price", wire.price),
        wire.time_in_force,
        wire.client_order_id,
        wire.command_id,
        None if wire.quote_quantity is None else number_of("quoteQuantity", wire.quote_quantity),
        None if wire.stop_price is None else number_of("stopPrice", wire.stop_price),
        expires_at,
        wire.post_only,
        None if wire.display_quantity is None else number_of("displayQuantity", wire.display_quantity),
        wire.self_trade_prevention,
        replaces,
    )


def _replace(wire: WireCommand) -> NewOrder:
    replaces = _order_id(wire.order_id)
    order = _new_order(wire, replaces)
    if order.order_id == replaces:
        raise InvalidRecord("INVALID_ID", "id must be the new order's, another than orderId")
    return order


def _cancel(wire: WireCommand) -> Cancel:
    _check_user(wire.user_id)
    return Cancel(wire.symbol_id, _order_id(wire.order_id), wire.user_id, wire.command_id)


def _amend(wire: WireCommand) -> Amend:
    _check_user(wire.user_id)
    return Amend(
        wire.symbol_id,
        _order_id(wire.order_id),
        wire.user_id,
        None if wire.price is None else number_of("price", wire.price),
        None if wire.quantity is None else number_of("quantity", wire.quantity),
        wire.command_id,
        None if wire.stop_price is None else number_of("stopPrice", wire.stop_price),
    )


def _cancel_all(wire: WireCommand) -> CancelAll:
    _check_user(wire.user_id)
    return CancelAll(wire.symbol_id, wire.user_id, wire.command_id)


def _cancel_after(wire: WireCommand) -> CancelAfter:
    _check_user(wire.user_id)
    if wire.timeout is None or not 0 <= wire.timeout <= CANCEL_AFTER_MS_MAX:
        raise InvalidRecord("INVALID_TIMEOUT", f"timeout must be 0 to {CANCEL_AFTER_MS_MAX} milliseconds")
    return CancelAfter(wire.symbol_id, wire.user_id, wire.timeout, wire.command_id)


def _heartbeat(wire: WireCommand) -> Heartbeat:
    return Heartbeat(wire.symbol_id)


def _define_symbol(wire: WireCommand) -> DefineSymbol:
    if not 0 < len(wire.symbol) <= 32:
        raise InvalidRecord("INVALID_SHAPE", "symbol must be a name of 1 to 32 characters")
    if wire.status not in STATUSES:
        raise InvalidRecord("INVALID_ENUM", f"status must be one of {', '.join(STATUSES)}")
    collar = _rule("priceCollar", wire.price_collar)
    if collar is not None and collar >= 1:
        raise InvalidRecord("INVALID_RULE", "priceCollar must be a fraction below 1, such as 0.1")
    most = wire.max_open_orders
    if most is not None and not 0 < most <= _INT32_MAX:
        raise InvalidRecord("INVALID_RULE", "maxOpenOrders must be a positive integer")
    return DefineSymbol(
        wire.symbol_id,
        wire.symbol,
        _step("tickSize", wire.tick_size),
        _step("lotSize", wire.lot_size),
        str(wire.status),
        wire.command_id,
        _rule("minQuantity", wire.min_quantity),
        _rule("maxQuantity", wire.max_quantity),
        _rule("minNotional", wire.min_notional),
        collar,
        most,
        wire.keep_status,
    )


_DECODERS: Final[dict[str, Callable[[WireCommand], Command]]] = {
    "CANCEL": _cancel,
    "AMEND": _amend,
    "REPLACE": _replace,
    "CANCEL_ALL": _cancel_all,
    "CANCEL_AFTER": _cancel_after,
    "HEARTBEAT": _heartbeat,
    "SYMBOL": _define_symbol,
}


def _order_id(text: str) -> str:
    """``text`` as a dashed lower-case UUID."""
    if not _is_dashed_uuid(text):
        raise InvalidRecord("INVALID_ID", "an order id must be a UUID such as 123e4567-e89b-12d3-a456-426614174000")
    return text.lower()


def _is_dashed_uuid(text: str) -> bool:
    if len(text) != _UUID_CHARS:
        return False
    at: i64 = 0
    while at < _UUID_CHARS:
        character: i64 = ord(text[at])
        if at == 8 or at == 13 or at == 18 or at == 23:
            if character != _DASH:
                return False
        elif not (_DIGIT_0 <= character <= _DIGIT_9 or _LETTER_A <= character | _LOWER <= _LETTER_F):
            return False
        at += 1
    return True


def _check_token(field: str, text: str) -> None:
    if not TOKEN.fullmatch(text):
        raise InvalidRecord("INVALID_ID", f"{field} must be 1 to 36 letters, digits, '-' or '_'")


def _check_user(user_id: int) -> None:
    if not 0 < user_id <= _INT32_MAX:
        raise InvalidRecord("INVALID_USER", f"userId must be a positive integer, was {user_id}")


def _step(field: str, value: object) -> Decimal:
    number = decimal_of(number_of(field, value))
    if not STEP_MIN <= number <= 1_000_000 or number % STEP_MIN:
        raise InvalidRecord(
            "INVALID_STEP", f"{field} must be between {STEP_MIN:f} and 1000000, a multiple of the former"
        )
    return number.normalize()


def _rule(field: str, value: object) -> Decimal | None:
    """The number of a trading rule; None when the symbol does not have it."""
    if value is None:
        return None
    number = decimal_of(number_of(field, value))
    if not STEP_MIN <= number <= QUOTE_QUANTITY_MAX or number % STEP_MIN:
        raise InvalidRecord("INVALID_RULE", f"{field} must be between {STEP_MIN:f} and {QUOTE_QUANTITY_MAX:f}")
    return number.normalize()
