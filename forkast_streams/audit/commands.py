"""Reads a record of ``orders.new`` as docs/wire.md says it is to be read, and judges whether it is a command at all."""

from __future__ import annotations

import re
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
_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_decode_fields = msgspec.json.Decoder(_Fields, float_hook=Decimal).decode

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)
_INT32_MAX = 2**31 - 1
_SMALLEST_STEP = Decimal("0.00000001")
_SYMBOL_NAME_MAX = 32

_TEXTS = ("id", "orderId", "type", "side", "timeInForce", "symbol", "status", "selfTradePrevention")
_OPTIONAL_NUMBERS = ("minQuantity", "maxQuantity", "minNotional", "priceCollar", "maxOpenOrders")
_NEW_IN_LIFECYCLE = {"REPLACE", "CANCEL_ALL", "CANCEL_AFTER", "HEARTBEAT"}


class CommandReader:
    """Judges records by today's wire, or by the one with stops, icebergs and the other lifecycles of orders.

    Args:
        lifecycle: whether the exchange that wrote the log knows the latter.
    """

    def __init__(self, *, lifecycle: bool) -> None:
        self._lifecycle = lifecycle
        more = lifecycle
        self._types = {"LIMIT", "MARKET"} | ({"STOP", "STOP_LIMIT"} if more else set())
        self._times = {"GTC", "IOC"} | ({"FOK", "GTD"} if more else set())
        self._statuses = {"TRADING", "HALTED"} | ({"CANCEL_ONLY"} if more else set())

    def read(self, value: bytes | None) -> tuple[Verdict, Command]:
        """The command of a value, empty when it cannot be read, and whether the exchange must take it."""
        if value is None:
            return Verdict.INVALID, {}
        try:
            command = _read(value)
        except RecursionError:
            return Verdict.OPEN, {}
        except (msgspec.MsgspecError, ValueError, ArithmeticError):
            return Verdict.INVALID, {}
        return self._judge(command), command

    def _judge(self, command: Command) -> Verdict:
        command_id = command.get("commandId")
        if not is_identifier(command.get("symbolId")) or not (command_id is None or _is_token(command_id)):
            return Verdict.INVALID
        kind = command.get("command")
        if kind is None:
            verdict = self._judge_order(command)
        elif kind == "SYMBOL":
            verdict = self._judge_symbol(command)
        elif kind in ("CANCEL", "AMEND"):
            verdict = _judge_change(command)
        elif self._lifecycle and isinstance(kind, str) and kind in _NEW_IN_LIFECYCLE:
            verdict = self._judge_new_kind(kind, command)
        else:
            return Verdict.INVALID
        return verdict if verdict is Verdict.INVALID or self._is_plain(command) else Verdict.OPEN

    def _is_plain(self, command: Command) -> bool:
        """Whether no field, needed or not, has a type of another kind."""
        texts = all(isinstance(command[name], str) for name in _TEXTS if name in command)
        client_order_id, user_id = command.get("clientOrderId"), command.get("userId", 0)
        texts = texts and type(user_id) is int and (client_order_id is None or isinstance(client_order_id, str))
        return texts and (not self._lifecycle or _is_plain_in_lifecycle(command))

    def _judge_order(self, command: Command) -> Verdict:
        client_order_id = command.get("clientOrderId", "x")
        is_order = (
            _is_one_of(command.get("type"), self._types)
            and command.get("side") in ("BUY", "SELL")
            and _is_one_of(command.get("timeInForce", "GTC"), self._times)
            and (client_order_id is None or _is_token(client_order_id))
            and is_identifier(command.get("userId"))
            and _is_uuid(command.get("id"))
            and (command.get("price") is None or _is_number(command["price"]))
        )
        if not is_order:
            return Verdict.INVALID
        if not _is_number(command.get("quantity")):
            is_missing = self._lifecycle and command.get("quantity") is None
            return Verdict.OPEN if is_missing else Verdict.INVALID
        return Verdict.VALID

    def _judge_symbol(self, command: Command) -> Verdict:
        name = command.get("symbol")
        is_named = isinstance(name, str) and 0 < len(name) <= _SYMBOL_NAME_MAX
        is_symbol = is_named and _is_one_of(command.get("status"), self._statuses)
        if not is_symbol or not (_is_step(command.get("tickSize")) and _is_step(command.get("lotSize"))):
            return Verdict.INVALID
        has_limits = self._lifecycle and any(command.get(name) is not None for name in _OPTIONAL_NUMBERS)
        return Verdict.OPEN if has_limits and not _has_positive_limits(command) else Verdict.VALID

    def _judge_new_kind(self, kind: str, command: Command) -> Verdict:
        if kind == "HEARTBEAT":
            return Verdict.VALID
        if not is_identifier(command.get("userId")):
            return Verdict.INVALID
        if kind == "REPLACE":
            verdict = self._judge_order(command)
            return verdict if _is_uuid(command.get("orderId")) else Verdict.INVALID
        if kind == "CANCEL_AFTER":
            timeout = command.get("timeout")
            return Verdict.VALID if type(timeout) is int and 0 <= timeout <= _INT32_MAX else Verdict.OPEN
        return Verdict.VALID


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


def _judge_change(command: Command) -> Verdict:
    if not (_is_uuid(command.get("orderId")) and is_identifier(command.get("userId"))):
        return Verdict.INVALID
    values = [command.get("price"), command.get("quantity")] if command["command"] == "AMEND" else []
    return Verdict.VALID if all(value is None or _is_number(value) for value in values) else Verdict.INVALID


def _is_plain_in_lifecycle(command: Command) -> bool:
    numbers = all(_is_number(command[name]) for name in ("quoteQuantity", "stopPrice", "displayQuantity", *_LIMITS)
                  if command.get(name) is not None)  # fmt: skip
    expires_at = command.get("expiresAt")
    return (
        numbers
        and (expires_at is None or (type(expires_at) is int and 0 < expires_at <= 2**53))
        and isinstance(command.get("postOnly", False), bool)
        and command.get("selfTradePrevention", "NONE") in ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE")
    )


_LIMITS = ("minQuantity", "maxQuantity", "minNotional", "priceCollar")


def _has_positive_limits(command: Command) -> bool:
    limits = [command[name] for name in _LIMITS if command.get(name) is not None]
    most = command.get("maxOpenOrders")
    is_count = most is None or (type(most) is int and 0 < most <= _INT32_MAX)
    return is_count and all(_is_number(limit) and 0 < Decimal(limit) <= 10**9 for limit in limits)


def is_identifier(value: Any) -> bool:
    """Whether ``value`` can be the id of a symbol or a user."""
    return type(value) is int and 0 < value <= _INT32_MAX


def _is_one_of(value: Any, words: set[str]) -> bool:
    return isinstance(value, str) and value in words


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
