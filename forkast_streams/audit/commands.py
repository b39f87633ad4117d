"""Reads a record of ``orders.new`` as docs/wire.md says it is to be read, and judges whether it is a command at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from enum import Enum, auto
from typing import Any

import msgspec
from msgspec import UNSET, Struct

Command = dict[str, Any]


class Verdict(Enum):
    """Whether a record is a command."""

    VALID = auto()
    INVALID = auto()
    # What docs/wire.md leaves open, such as a wrong type in a field that the command does not use: what the engine
    # made of it is taken for granted.
    OPEN = auto()


class _Fields(Struct, rename="camel"):
    """Every field that some command has, as it stands there; numbers are int or Decimal."""

    symbol_id: Any = UNSET
    command: Any = UNSET
    id: Any = UNSET
    order_id: Any = UNSET
    user_id: Any = UNSET
    type: Any = UNSET
    side: Any = UNSET
    quantity: Any = UNSET
    price: Any = UNSET
    time_in_force: Any = UNSET
    client_order_id: Any = UNSET
    command_id: Any = UNSET
    symbol: Any = UNSET
    tick_size: Any = UNSET
    lot_size: Any = UNSET
    status: Any = UNSET
    keep_status: Any = UNSET
    quote_quantity: Any = UNSET
    stop_price: Any = UNSET
    expires_at: Any = UNSET
    post_only: Any = UNSET
    display_quantity: Any = UNSET
    self_trade_prevention: Any = UNSET
    timeout: Any = UNSET
    min_quantity: Any = UNSET
    max_quantity: Any = UNSET
    min_notional: Any = UNSET
    price_collar: Any = UNSET
    max_open_orders: Any = UNSET


_NAMES = [(field.name, field.encode_name) for field in msgspec.structs.fields(_Fields)]
_KNOWN = {name for _, name in _NAMES}
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_decode_fields = msgspec.json.Decoder(_Fields, float_hook=Decimal).decode

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
# Of a command; a dead letter has no more of a larger value, and no more of a key than this.
VALUE_BYTES_MAX, KEY_BYTES_MAX = 65_536, 1_024
_INT32_MAX = 2**31 - 1
_SMALLEST_STEP = Decimal("0.00000001")
_SYMBOL_NAME_MAX = 32

_TIME_MAX = 2**53
_TIMEOUT_MS_MAX = 86_400_000

_TYPES = ("LIMIT", "MARKET", "STOP", "STOP_LIMIT")
_TIMES_IN_FORCE = ("GTC", "IOC", "FOK", "GTD")
_PREVENTIONS = ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE")
_STATUSES = ("TRADING", "HALTED", "CANCEL_ONLY")
_TEXTS = ("id", "orderId", "type", "side", "timeInForce", "symbol", "status", "selfTradePrevention")
_FLAGS = ("postOnly", "keepStatus")
_ORDER_NUMBERS = ("price", "quantity", "quoteQuantity", "stopPrice", "displayQuantity")
_RULES = ("minQuantity", "maxQuantity", "minNotional", "priceCollar")


def read_input(value: bytes | None) -> tuple[Verdict, Command]:
    """The command of a value, empty when it cannot be read, and whether the exchange must take it."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        return Verdict.INVALID, {}
    try:
        command = _read(value)
    except RecursionError:
        return Verdict.OPEN, {}
    except (msgspec.MsgspecError, ValueError, ArithmeticError):
        return Verdict.INVALID, {}
    return _judge(command, value), command


def _judge(command: Command, value: bytes) -> Verdict:
    command_id, kind = command.get("commandId"), command.get("command")
    judge = _JUDGES.get(kind) if kind is None or isinstance(kind, str) else None
    is_named = is_identifier(command.get("symbolId")) and (command_id is None or _is_token(command_id))
    if judge is None or not is_named:
        return Verdict.INVALID
    verdict = judge(command)
    if verdict is Verdict.VALID and not (_is_plain(command) and _is_said_once(command, value)):
        return Verdict.OPEN
    return verdict


def _is_said_once(command: Command, value: bytes) -> bool:
    """Whether no field of a command stands there twice, of which the first may be wrong."""
    # Each name has a colon behind it; most values have no other one.
    if value.count(b":") == len(command):
        return True
    objects: list[list[tuple[str, Any]]] = []
    text = value.decode(errors="replace")
    try:
        json.loads(text, strict=False, parse_int=str, parse_float=str, object_pairs_hook=objects.append)
    except (ValueError, RecursionError):
        return False
    # The outermost one is complete last.
    names = [name for name, _ in objects[-1] if name in _KNOWN]
    return len(names) == len(set(names))


def _is_plain(command: Command) -> bool:
    """Whether no field, needed or not, has a type of another kind."""
    client_order_id, timeout = command.get("clientOrderId"), command.get("timeout")
    expires_at, most = command.get("expiresAt"), command.get("maxOpenOrders")
    return (
        all(isinstance(command[name], str) for name in _TEXTS if name in command)
        and (client_order_id is None or isinstance(client_order_id, str))
        and type(command.get("userId", 0)) is int
        and all(isinstance(command.get(name, False), bool) for name in _FLAGS)
        and all(number is None or type(number) is int for number in (timeout, expires_at, most))
    )


def _judge_order(command: Command) -> Verdict:
    client_order_id, expires_at = command.get("clientOrderId"), command.get("expiresAt")
    is_order = (
        command.get("type") in _TYPES
        and command.get("side") in ("BUY", "SELL")
        and command.get("timeInForce", "GTC") in _TIMES_IN_FORCE
        and command.get("selfTradePrevention", "NONE") in _PREVENTIONS
        and (client_order_id is None or _is_token(client_order_id))
        and (expires_at is None or (type(expires_at) is int and 0 <= expires_at <= _TIME_MAX))
        and is_identifier(command.get("userId"))
        and _is_uuid(command.get("id"))
        and _are_numbers(command, _ORDER_NUMBERS)
    )
    return Verdict.VALID if is_order else Verdict.INVALID


def _judge_replacement(command: Command) -> Verdict:
    replaced = command.get("orderId")
    if not _is_uuid(replaced) or str(replaced).lower() == str(command.get("id")).lower():
        return Verdict.INVALID
    return _judge_order(command)


def _judge_change(command: Command) -> Verdict:
    if not (_is_uuid(command.get("orderId")) and is_identifier(command.get("userId"))):
        return Verdict.INVALID
    numbers = ("price", "quantity", "stopPrice") if command["command"] == "AMEND" else ()
    return Verdict.VALID if _are_numbers(command, numbers) else Verdict.INVALID


def _judge_all(command: Command) -> Verdict:
    is_timed = True
    if command["command"] == "CANCEL_AFTER":
        timeout = command.get("timeout")
        is_timed = type(timeout) is int and 0 <= timeout <= _TIMEOUT_MS_MAX
    return Verdict.VALID if is_timed and is_identifier(command.get("userId")) else Verdict.INVALID


def _judge_heartbeat(_: Command) -> Verdict:
    return Verdict.VALID


def _judge_symbol(command: Command) -> Verdict:
    name = command.get("symbol")
    is_named = isinstance(name, str) and 0 < len(name) <= _SYMBOL_NAME_MAX
    is_symbol = is_named and command.get("status") in _STATUSES
    if not is_symbol or not (_is_step(command.get("tickSize")) and _is_step(command.get("lotSize"))):
        return Verdict.INVALID
    if not _are_numbers(command, _RULES):
        return Verdict.INVALID
    # How large and how fine a rule may be docs/wire.md does not say.
    collar, most = command.get("priceCollar"), command.get("maxOpenOrders")
    is_usual = (
        all(_is_step(command[name]) for name in _RULES if command.get(name) is not None)
        and (collar is None or Decimal(collar) < 1)
        and (most is None or is_identifier(most))
    )
    return Verdict.VALID if is_usual else Verdict.OPEN


_JUDGES: dict[str | None, Callable[[Command], Verdict]] = {
    None: _judge_order, "REPLACE": _judge_replacement, "CANCEL": _judge_change, "AMEND": _judge_change,
    "CANCEL_ALL": _judge_all, "CANCEL_AFTER": _judge_all, "HEARTBEAT": _judge_heartbeat, "SYMBOL": _judge_symbol,
}  # fmt: skip


def _are_numbers(command: Command, names: tuple[str, ...]) -> bool:
    return all(_is_number(command[name]) for name in names if command.get(name) is not None)


def _read(value: bytes) -> Command:
    """The fields of a JSON object; numbers are int or Decimal."""
    try:
        command = _decode(value)
        if isinstance(command, dict):
            return command
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
        # What cannot be read may stand in a field that no command has.
        pass
    fields = _decode_fields(value)
    return {name: found for attribute, name in _NAMES if (found := getattr(fields, attribute)) is not UNSET}


def is_identifier(value: Any) -> bool:
    """Whether ``value`` can be the id of a symbol or a user."""
    return type(value) is int and 0 < value <= _INT32_MAX


def _is_uuid(value: Any) -> bool:
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None
    return type(value) is int or isinstance(value, Decimal)


def _is_step(value: Any) -> bool:
    if not _is_number(value):
        return False
    step = Decimal(value)
    return bool(_SMALLEST_STEP <= step <= 10**6 and step % _SMALLEST_STEP == 0)
