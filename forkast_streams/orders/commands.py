"""Commands as the OMS writes them into the log, see docs/wire.md."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from forkast_streams.codec import decimal_text
from forkast_streams.engine.commands import EXPIRE_TAKER, Amend, NewOrder

_encode = msgspec.json.Encoder().encode


def place_command(order: NewOrder, fields: dict[str, Any]) -> bytes:
    """The value that places an order, or replaces one; ``fields`` are its ``order_fields``."""
    command = {"id": order.order_id, "userId": order.user_id, "symbolId": order.symbol_id, **fields}
    if order.replaces is not None:
        command |= {"command": "REPLACE", "orderId": order.replaces}
    if order.command_id is not None:
        command["commandId"] = order.command_id
    return _encode(command)


def order_fields(order: NewOrder) -> dict[str, Any]:
    """What the trader chose of an order, by the names of the wire; what was not chosen is left out."""
    fields: dict[str, Any] = {"type": order.type, "side": order.side, "timeInForce": order.time_in_force}
    if order.quantity is not None:
        fields["quantity"] = decimal_text(order.quantity)
    if order.price is not None:
        fields["price"] = decimal_text(order.price)
    if order.client_order_id is not None:
        fields["clientOrderId"] = order.client_order_id
    if order.quote_quantity is not None:
        fields["quoteQuantity"] = decimal_text(order.quote_quantity)
    if order.stop_price is not None:
        fields["stopPrice"] = decimal_text(order.stop_price)
    if order.expires_at is not None:
        fields["expiresAt"] = order.expires_at
    if order.post_only:
        fields["postOnly"] = True
    if order.display_quantity is not None:
        fields["displayQuantity"] = decimal_text(order.display_quantity)
    if order.self_trade_prevention != EXPIRE_TAKER:
        fields["selfTradePrevention"] = order.self_trade_prevention
    return fields


def request_digest(order: NewOrder) -> bytes:
    """What makes two requests the same request: everything the trader chose, however its numbers were written."""
    chosen = order_fields(order) | {"symbolId": order.symbol_id, "replaces": order.replaces}
    return hashlib.blake2b(msgspec.json.encode(chosen, order="sorted"), digest_size=16).digest()


def cancel_command(symbol_id: int, order_id: str, user_id: int, command_id: str) -> bytes:
    """The value that cancels an order."""
    return _encode(
        {"command": "CANCEL", "symbolId": symbol_id, "orderId": order_id, "userId": user_id, "commandId": command_id}
    )


def amend_command(amend: Amend) -> bytes:
    """The value that changes an order."""
    command: dict[str, Any] = {
        "command": "AMEND",
        "symbolId": amend.symbol_id,
        "orderId": amend.order_id,
        "userId": amend.user_id,
        "commandId": amend.command_id,
    }
    changes = {"price": amend.price, "quantity": amend.quantity, "stopPrice": amend.stop_price}
    return _encode(command | {name: decimal_text(value) for name, value in changes.items() if value is not None})


def cancel_all_command(symbol_id: int, user_id: int, command_id: str) -> bytes:
    """The value that cancels all orders of a user in a symbol."""
    return _encode({"command": "CANCEL_ALL", "symbolId": symbol_id, "userId": user_id, "commandId": command_id})


def cancel_after_command(symbol_id: int, user_id: int, timeout_ms: int, command_id: str) -> bytes:
    """The value that sets or clears a user's dead-man's switch in a symbol."""
    command = {"command": "CANCEL_AFTER", "symbolId": symbol_id, "userId": user_id, "timeout": timeout_ms}
    return _encode(command | {"commandId": command_id})
