"""Between the wire (JSON, see docs/wire.md) and the engine's commands and events."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from forkast_streams.engine.commands import (
    BUY,
    GTC,
    IOC,
    LIMIT,
    MARKET,
    SELL,
    Amend,
    Cancel,
    Command,
    DefineSymbol,
    NewOrder,
    Number,
)
from forkast_streams.engine.events import (
    CANCELLED,
    CommandRejected,
    Event,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    SymbolDefined,
    TradeExecuted,
)
from forkast_streams.engine.symbols import STATUSES, Symbol, decimal_of
from forkast_streams.errors import InvalidRecord
from forkast_streams.limits import STEP_MIN

_NUMBER_TYPES: Final = frozenset({int, str, Decimal})
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_COMMANDS: Final = frozenset({"CANCEL", "AMEND", "SYMBOL"})
_INT32_MAX: Final = 2**31 - 1


class _WireCommand(Struct, gc=False, rename="camel"):
    """Any command as it stands on the wire; what a command needs of it is checked afterwards."""

    symbol_id: int
    command: str | None = None
    id: str = ""
    order_id: str = ""
    user_id: int = 0
    type: str = ""
    side: str = ""
    # Untyped, so that the decoder hands over the number's own text instead of a float.
    quantity: Any = None
    price: Any = None
    time_in_force: str = GTC
    client_order_id: str | None = None
    command_id: str | None = None
    symbol: str = ""
    tick_size: Any = UNSET
    lot_size: Any = UNSET
    status: str | UnsetType = UNSET


_decode = msgspec.json.Decoder(_WireCommand, float_hook=Decimal).decode


def decode_command(value: bytes | None) -> Command:
    """Decode the value of an ``orders.new`` record.

    Raises:
        InvalidRecord: it is no command; ``code`` says why.
    """
    if value is None:
        raise InvalidRecord("NULL_VALUE", "a command must have a value, a tombstone has none")
    try:
        wire = _decode(value)
    except msgspec.ValidationError as exc:
        raise InvalidRecord("INVALID_SHAPE", str(exc)) from None
    except (msgspec.DecodeError, ValueError, RecursionError, ArithmeticError) as exc:
        raise InvalidRecord("INVALID_JSON", f"the value is not JSON: {exc}") from None
    command_id = wire.command_id
    if not 0 < wire.symbol_id <= _INT32_MAX:
        raise InvalidRecord("UNKNOWN_SYMBOL", f"symbolId must be a positive integer, was {wire.symbol_id}")
    if command_id is not None and not _TOKEN.fullmatch(command_id):
        raise InvalidRecord("INVALID_ID", "commandId must be 1 to 36 letters, digits, '-' or '_'")
    if wire.command is None:
        return _new_order(wire)
    if wire.command == "SYMBOL":
        return _define_symbol(wire)
    if wire.command not in _COMMANDS:
        raise InvalidRecord("UNKNOWN_COMMAND", f"command must be CANCEL, AMEND or SYMBOL, was {wire.command[:40]}")
    order_id = _order_id(wire.order_id)
    _check_user(wire.user_id)
    if wire.command == "CANCEL":
        return Cancel(wire.symbol_id, order_id, wire.user_id, command_id)
    price = None if wire.price is None else number_of("price", wire.price)
    quantity = None if wire.quantity is None else number_of("quantity", wire.quantity)
    return Amend(wire.symbol_id, order_id, wire.user_id, price, quantity, command_id)


def _new_order(wire: _WireCommand) -> NewOrder:
    if wire.type not in (LIMIT, MARKET):
        raise InvalidRecord("INVALID_ENUM", "type must be LIMIT or MARKET")
    if wire.side not in (BUY, SELL):
        raise InvalidRecord("INVALID_ENUM", "side must be BUY or SELL")
    if wire.time_in_force not in (GTC, IOC):
        raise InvalidRecord("INVALID_ENUM", "timeInForce must be GTC or IOC")
    if wire.client_order_id is not None and not _TOKEN.fullmatch(wire.client_order_id):
        raise InvalidRecord("INVALID_ID", "clientOrderId must be 1 to 36 letters, digits, '-' or '_'")
    _check_user(wire.user_id)
    return NewOrder(
        wire.symbol_id,
        _order_id(wire.id),
        wire.user_id,
        wire.type,
        wire.side,
        number_of("quantity", wire.quantity),
        None if wire.price is None else number_of("price", wire.price),
        wire.time_in_force,
        wire.client_order_id,
        wire.command_id,
    )


def _define_symbol(wire: _WireCommand) -> DefineSymbol:
    if not 0 < len(wire.symbol) <= 32:
        raise InvalidRecord("INVALID_SHAPE", "symbol must be a name of 1 to 32 characters")
    if wire.status not in STATUSES:
        raise InvalidRecord("INVALID_ENUM", f"status must be one of {', '.join(sorted(STATUSES))}")
    tick_size, lot_size = _step("tickSize", wire.tick_size), _step("lotSize", wire.lot_size)
    return DefineSymbol(wire.symbol_id, wire.symbol, tick_size, lot_size, str(wire.status), wire.command_id)


def _order_id(text: str) -> str:
    """``text`` as a dashed lower-case UUID."""
    # fromhex is the cheapest check of 32 hexadecimal digits; it skips white space, which the length shows.
    try:
        if len(text) == 36 and text[8:24:5] == "----" and len(bytes.fromhex(text.replace("-", ""))) == 16:
            return text.lower()
    except ValueError:
        pass
    raise InvalidRecord("INVALID_ID", "an order id must be a UUID such as 123e4567-e89b-12d3-a456-426614174000")


def _check_user(user_id: int) -> None:
    if not 0 < user_id <= _INT32_MAX:
        raise InvalidRecord("INVALID_USER", f"userId must be a positive integer, was {user_id}")


def number_of(field: str, value: object) -> Number:
    """``value`` if it is a number or the text of one.

    Raises:
        InvalidRecord: it is something else.
    """
    # bool is an int to isinstance, and True would be found as 1 in every cache of numbers.
    if type(value) not in _NUMBER_TYPES:
        raise InvalidRecord("INVALID_TYPE", f"{field} must be a number or a decimal string")
    if type(value) is str and not _is_decimal_text(value):
        raise InvalidRecord("INVALID_TYPE", f"{field} as text must be a plain decimal number such as 101.25")
    return value  # type: ignore[return-value]


@lru_cache(maxsize=65_536)
def _is_decimal_text(text: str) -> bool:
    try:
        decimal_of(text)
    except ValueError:
        return False
    return True


def _step(field: str, value: object) -> Decimal:
    number = decimal_of(number_of(field, value))
    if not STEP_MIN <= number <= 1_000_000 or number % STEP_MIN:
        raise InvalidRecord("INVALID_STEP", f"{field} must be between {STEP_MIN:f} and 1000000, was {number:f}")
    return number.normalize()


def encode_events(events: list[Event], symbol: Symbol, partition: int, offset: int, timestamp: int) -> list[bytes]:
    """Encode the events of one command as ``orders.exchange`` values and give each its sequence.

    Args:
        events: all events of the command, in order.
        symbol: the command's symbol; its ``sequence`` is counted up by one an event.
        partition: partition of the command's record.
        offset: its place there.
        timestamp: milliseconds, the exchange's time of the command.
    """
    count = len(events)
    source = f'"timestamp":{timestamp},"source":{{"partition":{partition},"offset":{offset},"index":'
    values = []
    for index, event in enumerate(events):
        symbol.sequence += 1
        kind = type(event)
        name, data = _ENCODERS[kind](event, symbol, timestamp)
        values.append(
            f'{{"type":"{name}","symbolId":{symbol.id},"sequence":{symbol.sequence},'
            f'{source}{index},"count":{count}}},"data":{data}}}'.encode()
        )
    return values


def trade_id(symbol_id: int, sequence: int) -> str:
    """The id of the trade with ``sequence``: a UUID that a replay gives again."""
    return f"{symbol_id:08x}-0000-8000-8000-{sequence:012x}"


def _encode_accepted(event: OrderAccepted, symbol: Symbol, timestamp: int) -> tuple[str, str]:
    price = "null" if event.price_ticks is None else f'"{symbol.ticks.text(event.price_ticks)}"'
    client = "" if event.client_order_id is None else f'"clientOrderId":"{event.client_order_id}",'
    return "ORDER", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"symbolId":{symbol.id},"type":"{event.type}",'
        f'"side":"{event.side}","price":{price},"quantity":"{symbol.lots.text(event.quantity)}",'
        f'"filledQuantity":"0","status":"PENDING","timeInForce":"{event.time_in_force}",{client}'
        f'{_command_id(event.command_id)}"createdAt":{timestamp}}}'
    )


def _encode_trade(event: TradeExecuted, symbol: Symbol, timestamp: int) -> tuple[str, str]:
    lots = symbol.lots.text
    limit = event.taker_price_ticks
    taker_price = "null" if limit is None else f'"{symbol.ticks.text(limit)}"'
    taker = (event.taker_order_id, event.taker_user_id, lots(event.taker_filled), event.taker_status)
    maker = (event.maker_order_id, event.maker_user_id, lots(event.maker_filled), event.maker_status)
    buy, sell = (taker, maker) if event.taker_side == BUY else (maker, taker)
    return "TRADE", (
        f'{{"tradeId":"{trade_id(symbol.id, symbol.sequence)}","symbolId":{symbol.id},'
        f'"price":"{symbol.ticks.text(event.price_ticks)}","quantity":"{lots(event.quantity)}",'
        f'"buyOrderId":"{buy[0]}","sellOrderId":"{sell[0]}","buyUserId":{buy[1]},"sellUserId":{sell[1]},'
        f'"timestamp":{timestamp},"takerSide":"{event.taker_side}","takerPrice":{taker_price},'
        f'"buyFilledQuantity":"{buy[2]}","buyStatus":"{buy[3]}",'
        f'"sellFilledQuantity":"{sell[2]}","sellStatus":"{sell[3]}"}}'
    )


def _encode_cancelled(event: OrderCancelled, symbol: Symbol, _timestamp: int) -> tuple[str, str]:
    price = "null" if event.price_ticks is None else f'"{symbol.ticks.text(event.price_ticks)}"'
    lots = symbol.lots.text
    return "CANCEL", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}","price":{price},'
        f'"quantity":"{lots(event.open_quantity)}","filledQuantity":"{lots(event.filled_quantity)}",'
        f'{_command_id(event.command_id)}"status":"{CANCELLED}","reason":"{event.reason}"}}'
    )


def _encode_amended(event: OrderAmended, symbol: Symbol, _timestamp: int) -> tuple[str, str]:
    ticks, lots = symbol.ticks.text, symbol.lots.text
    return "AMEND", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}",'
        f'"price":"{ticks(event.price_ticks)}","quantity":"{lots(event.quantity)}",'
        f'"filledQuantity":"{lots(event.filled_quantity)}",{_command_id(event.command_id)}'
        f'"status":"{event.status}","keptPriority":{"true" if event.kept_priority else "false"},'
        f'"previousPrice":"{ticks(event.previous_price_ticks)}","previousQuantity":"{lots(event.previous_quantity)}"}}'
    )


def _encode_rejected(event: CommandRejected, _symbol: Symbol, _timestamp: int) -> tuple[str, str]:
    command = event.command
    data: dict[str, Any] = {}
    if isinstance(command, DefineSymbol):
        data |= {"command": "SYMBOL", "symbol": command.name}
    else:
        data |= {"id": command.order_id, "userId": command.user_id, "command": _COMMAND_NAMES[type(command)]}
    if isinstance(command, NewOrder):
        data |= {
            "type": command.type,
            "side": command.side,
            "price": None if command.price is None else str(command.price),
            "quantity": str(command.quantity),
            "timeInForce": command.time_in_force,
        }
        if command.client_order_id is not None:
            data["clientOrderId"] = command.client_order_id
    if command.command_id is not None:
        data["commandId"] = command.command_id
    data |= {"code": event.code, "message": event.message}
    return "REJECT", msgspec.json.encode(data).decode()


def _encode_symbol(event: SymbolDefined, _symbol: Symbol, _timestamp: int) -> tuple[str, str]:
    data = {
        "symbol": event.name,
        "tickSize": event.tick_size,
        "lotSize": event.lot_size,
        "status": event.status,
    }
    if event.command_id is not None:
        data["commandId"] = event.command_id
    return "SYMBOL", msgspec.json.encode(data).decode()


def _command_id(command_id: str | None) -> str:
    return "" if command_id is None else f'"commandId":"{command_id}",'


_COMMAND_NAMES = {NewOrder: "NEW", Cancel: "CANCEL", Amend: "AMEND"}
_ENCODERS: dict[type, Callable[[Any, Symbol, int], tuple[str, str]]] = {
    OrderAccepted: _encode_accepted,
    TradeExecuted: _encode_trade,
    OrderCancelled: _encode_cancelled,
    OrderAmended: _encode_amended,
    CommandRejected: _encode_rejected,
    SymbolDefined: _encode_symbol,
}
