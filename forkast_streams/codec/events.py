"""Events as the values of ``orders.exchange``, see docs/wire.md."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from forkast_streams.codec.numbers import decimal_text
from forkast_streams.engine.commands import (
    BUY,
    EXPIRE_TAKER,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    NewOrder,
    Number,
)
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import (
    AllCancelled,
    CancelScheduled,
    CommandRejected,
    Event,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderDetails,
    QuantityShown,
    StopTriggered,
    SymbolDefined,
    TradeExecuted,
    final_status,
)
from forkast_streams.engine.symbols import Symbol

_HEX_3: Final = [f"{number:03x}" for number in range(0x1000)]


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
        name, data = _encode(event, symbol, timestamp)
        values.append(
            f'{{"type":"{name}","symbolId":{symbol.id},"sequence":{symbol.sequence},'
            f'{source}{index},"count":{count}}},"data":{data}}}'.encode()
        )
    return values


def trade_id(symbol_id: int, sequence: int) -> str:
    """The id of the trade with ``sequence``: a UUID that a replay gives again."""
    return f"{_hex_12(symbol_id)[4:]}-0000-8000-8000-{_hex_12(sequence)}"


def _hex_12(number: int) -> str:
    """Twelve digits; four times cheaper by a table than by a format."""
    high, low = number >> 24, number & 0xFFFFFF
    return f"{_HEX_3[high >> 12]}{_HEX_3[high & 0xFFF]}{_HEX_3[low >> 12]}{_HEX_3[low & 0xFFF]}"


def _encode(event: Event, symbol: Symbol, timestamp: int) -> tuple[str, str]:
    """The name of the event's type and its data. Compiled, a chain of tests is cheaper than a table of functions."""
    if isinstance(event, OrderAccepted):
        return _encode_accepted(event, symbol, timestamp)
    if isinstance(event, TradeExecuted):
        return _encode_trade(event, symbol, timestamp)
    if isinstance(event, OrderCancelled):
        return _encode_cancelled(event, symbol)
    if isinstance(event, CommandRejected):
        return _encode_rejected(event)
    if isinstance(event, OrderAmended):
        return _encode_amended(event, symbol)
    if isinstance(event, StopTriggered):
        return _encode_triggered(event, symbol)
    if isinstance(event, QuantityShown):
        return _encode_shown(event, symbol)
    if isinstance(event, AllCancelled):
        return _encode_all_cancelled(event)
    if isinstance(event, CancelScheduled):
        return _encode_scheduled(event)
    return _encode_symbol(event)


def _encode_accepted(event: OrderAccepted, symbol: Symbol, timestamp: int) -> tuple[str, str]:
    price = "null" if event.price_ticks is None else f'"{symbol.ticks.text(event.price_ticks)}"'
    quantity = "null" if event.quantity is None else f'"{symbol.lots.text(event.quantity)}"'
    client = "" if event.client_order_id is None else f'"clientOrderId":"{event.client_order_id}",'
    details = "" if event.details is None else _details(event.details, symbol)
    return "ORDER", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"symbolId":{symbol.id},"type":"{event.type}",'
        f'"side":"{event.side}","price":{price},"quantity":{quantity},'
        f'"filledQuantity":"0","status":"PENDING","timeInForce":"{event.time_in_force}",{client}{details}'
        f'{_command_id(event.command_id)}"createdAt":{timestamp}}}'
    )


def _details(details: OrderDetails, symbol: Symbol) -> str:
    text = ""
    if details.quote_quantity is not None:
        text += f'"quoteQuantity":"{decimal_text(details.quote_quantity)}",'
    if details.stop_ticks is not None:
        text += f'"stopPrice":"{symbol.ticks.text(details.stop_ticks)}",'
    if details.expires_at is not None:
        text += f'"expiresAt":{details.expires_at},'
    if details.post_only:
        text += '"postOnly":true,'
    if details.display_quantity is not None:
        text += f'"displayQuantity":"{symbol.lots.text(details.display_quantity)}",'
    if details.self_trade_prevention != EXPIRE_TAKER:
        text += f'"selfTradePrevention":"{details.self_trade_prevention}",'
    if details.replaces is not None:
        text += f'"replaces":"{details.replaces}",'
    return text


def _encode_triggered(event: StopTriggered, symbol: Symbol) -> tuple[str, str]:
    ticks = symbol.ticks
    price = "null" if event.price_ticks is None else f'"{ticks.text(event.price_ticks)}"'
    return "TRIGGER", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}","type":"{event.type}",'
        f'"price":{price},"stopPrice":"{ticks.text(event.stop_ticks)}",'
        f'"quantity":"{symbol.lots.text(event.open_quantity)}","lastPrice":"{ticks.text(event.last_ticks)}"}}'
    )


def _encode_shown(event: QuantityShown, symbol: Symbol) -> tuple[str, str]:
    return "SHOW", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}",'
        f'"price":"{symbol.ticks.text(event.price_ticks)}","quantity":"{symbol.lots.text(event.quantity)}",'
        f'"refill":{"true" if event.refill else "false"}}}'
    )


def _encode_trade(event: TradeExecuted, symbol: Symbol, timestamp: int) -> tuple[str, str]:
    lots = symbol.lots
    limit = event.taker_price_ticks
    taker_price = "null" if limit is None else f'"{symbol.ticks.text(limit)}"'
    taker = (event.taker_order_id, event.taker_user_id, lots.text(event.taker_filled), event.taker_status)
    maker = (event.maker_order_id, event.maker_user_id, lots.text(event.maker_filled), event.maker_status)
    buy, sell = (taker, maker) if event.taker_side == BUY else (maker, taker)
    return "TRADE", (
        f'{{"tradeId":"{trade_id(symbol.id, symbol.sequence)}","symbolId":{symbol.id},'
        f'"price":"{symbol.ticks.text(event.price_ticks)}","quantity":"{lots.text(event.quantity)}",'
        f'"buyOrderId":"{buy[0]}","sellOrderId":"{sell[0]}","buyUserId":{buy[1]},"sellUserId":{sell[1]},'
        f'"timestamp":{timestamp},"takerSide":"{event.taker_side}","takerPrice":{taker_price},'
        f'"buyFilledQuantity":"{buy[2]}","buyStatus":"{buy[3]}",'
        f'"sellFilledQuantity":"{sell[2]}","sellStatus":"{sell[3]}"}}'
    )


def _encode_cancelled(event: OrderCancelled, symbol: Symbol) -> tuple[str, str]:
    lots = symbol.lots
    price = "null" if event.price_ticks is None else f'"{symbol.ticks.text(event.price_ticks)}"'
    quantity = f'"{lots.text(event.open_quantity)}"'
    details = ""
    if event.quote_left is not None:
        quantity = "null"
        details = f'"quoteQuantity":"{decimal_text(event.quote_left)}",'
    elif event.price_ticks is not None and event.shown_quantity != event.open_quantity:
        details = f'"shownQuantity":"{lots.text(event.shown_quantity)}",'
    if event.stop_ticks is not None:
        details += f'"stopPrice":"{symbol.ticks.text(event.stop_ticks)}",'
    return "CANCEL", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}","price":{price},'
        f'"quantity":{quantity},"filledQuantity":"{lots.text(event.filled_quantity)}",{details}'
        f'{_command_id(event.command_id)}"status":"{final_status(event.reason)}","reason":"{event.reason}"}}'
    )


def _encode_amended(event: OrderAmended, symbol: Symbol) -> tuple[str, str]:
    lots = symbol.lots
    details = ""
    if event.shown_quantity != event.quantity - event.filled_quantity:
        details += f'"shownQuantity":"{lots.text(event.shown_quantity)}",'
    if event.previous_shown_quantity != event.previous_quantity - event.filled_quantity:
        details += f'"previousShownQuantity":"{lots.text(event.previous_shown_quantity)}",'
    if event.stop_ticks is not None and event.previous_stop_ticks is not None:
        stops = symbol.ticks.text(event.stop_ticks), symbol.ticks.text(event.previous_stop_ticks)
        details += f'"stopPrice":"{stops[0]}","previousStopPrice":"{stops[1]}",'
    return "AMEND", (
        f'{{"id":"{event.order_id}","userId":{event.user_id},"side":"{event.side}",'
        f'"price":{_price(event.price_ticks, symbol)},"quantity":"{lots.text(event.quantity)}",'
        f'"filledQuantity":"{lots.text(event.filled_quantity)}",{details}{_command_id(event.command_id)}'
        f'"status":"{event.status}","keptPriority":{"true" if event.kept_priority else "false"},'
        f'"previousPrice":{_price(event.previous_price_ticks, symbol)},'
        f'"previousQuantity":"{lots.text(event.previous_quantity)}"}}'
    )


def _encode_all_cancelled(event: AllCancelled) -> tuple[str, str]:
    return "CANCEL_ALL", (f'{{"userId":{event.user_id},{_command_id(event.command_id)}"count":{event.count}}}')


def _encode_scheduled(event: CancelScheduled) -> tuple[str, str]:
    deadline = "null" if event.deadline is None else str(event.deadline)
    return "CANCEL_AFTER", f'{{"userId":{event.user_id},{_command_id(event.command_id)}"deadline":{deadline}}}'


def _encode_rejected(event: CommandRejected) -> tuple[str, str]:
    command = event.command
    # Each by itself, the most frequent first: to ask for one of several is slow where it is compiled.
    if isinstance(command, Cancel):
        name, fields = "CANCEL", _named(command.order_id, command.user_id)
    elif isinstance(command, Amend):
        name, fields = "AMEND", _named(command.order_id, command.user_id)
    elif isinstance(command, NewOrder):
        name = "NEW" if command.replaces is None else "REPLACE"
        fields = f"{_named(command.order_id, command.user_id)}{_json(_as_sent(command))[1:-1]},"
    elif isinstance(command, CancelAll):
        name, fields = "CANCEL_ALL", f'"userId":{command.user_id},'
    elif isinstance(command, CancelAfter):
        name, fields = "CANCEL_AFTER", f'"userId":{command.user_id},'
    else:
        assert isinstance(command, DefineSymbol), "a heartbeat cannot be refused"
        name, fields = "SYMBOL", f'"symbol":{_json(command.name)},'
    return "REJECT", (
        f'{{"command":"{name}",{fields}{_command_id(command.command_id)}"code":"{event.code}",'
        f'"message":{_json(event.message)}}}'
    )


def _named(order_id: str, user_id: int) -> str:
    return f'"id":"{order_id}","userId":{user_id},'


def _as_sent(order: NewOrder) -> dict[str, Any]:
    """The fields of an order as they came; those that did not come and have no value without them are left out."""
    data: dict[str, Any] = {
        "type": order.type,
        "side": order.side,
        "price": _sent_number(order.price),
        "quantity": _sent_number(order.quantity),
        "timeInForce": order.time_in_force,
    }
    optional = {
        "clientOrderId": order.client_order_id,
        "quoteQuantity": _sent_number(order.quote_quantity),
        "stopPrice": _sent_number(order.stop_price),
        "expiresAt": order.expires_at,
        "postOnly": order.post_only or None,
        "displayQuantity": _sent_number(order.display_quantity),
        "selfTradePrevention": None if order.self_trade_prevention == EXPIRE_TAKER else order.self_trade_prevention,
        "replaces": order.replaces,
    }
    return data | {name: value for name, value in optional.items() if value is not None}


def _encode_symbol(event: SymbolDefined) -> tuple[str, str]:
    rules = event.rules
    data: dict[str, Any] = {
        "symbol": rules.name,
        "tickSize": decimal_text(rules.tick_size),
        "lotSize": decimal_text(rules.lot_size),
        "status": rules.status,
    }
    optional = {
        "minQuantity": rules.min_quantity,
        "maxQuantity": rules.max_quantity,
        "minNotional": rules.min_notional,
        "priceCollar": rules.price_collar,
    }
    data |= {name: decimal_text(value) for name, value in optional.items() if value is not None}
    if rules.max_open_orders is not None:
        data["maxOpenOrders"] = rules.max_open_orders
    if rules.command_id is not None:
        data["commandId"] = rules.command_id
    return "SYMBOL", _json(data)


def _command_id(command_id: str | None) -> str:
    return "" if command_id is None else f'"commandId":"{command_id}",'


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _price(price_ticks: int | None, symbol: Symbol) -> str:
    return "null" if price_ticks is None else f'"{symbol.ticks.text(price_ticks)}"'


def _sent_number(number: Number | None) -> str | None:
    return None if number is None else str(number)
