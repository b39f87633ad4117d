"""The bodies of answers about orders and symbols, as clients get them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from forkast_streams.api_description.fields import (
    ClientOrderId,
    CommandId,
    DecimalText,
    ExactNumber,
    JsonSchema,
    Milliseconds,
    Moment,
    OrderId,
)

Side = Literal["BUY", "SELL"]
OrderType = Literal["LIMIT", "MARKET", "STOP", "STOP_LIMIT"]
TimeInForce = Literal["GTC", "IOC", "FOK", "GTD"]
SelfTradePrevention = Literal["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"]
Status = Literal["PENDING", "PARTIALLY_FILLED", "FILLED", "CANCELLED", "REJECTED", "EXPIRED"]


# What refuses a part of a batch: the body that would have been the answer to it alone.
_REFUSED: JsonSchema = {
    "type": "object",
    "properties": {"error": {"$ref": "#/components/schemas/ErrorDetail"}},
    "required": ["error"],
    "additionalProperties": False,
}


def _or_refused(name: str) -> Meta:
    # The library has no union of objects that do not say which of them they are.
    return Meta(extra_json_schema={"oneOf": [{"$ref": f"#/components/schemas/{name}"}, _REFUSED]})


class PlacedOrder(Struct, rename="camel", forbid_unknown_fields=True):
    """The log has the order."""

    order_id: OrderId
    client_order_id: ClientOrderId | UnsetType = UNSET


class RequestedChange(Struct, rename="camel", forbid_unknown_fields=True):
    """The log has the request; what becomes of it is decided in the order of the log, and the order shows it."""

    order_id: OrderId
    command_id: CommandId
    status: Literal["CANCEL_REQUESTED", "AMEND_REQUESTED"]


class PlacedBatch(Struct, forbid_unknown_fields=True):
    """An answer for each order, in the order in which they were sent."""

    results: list[Annotated[Any, _or_refused("PlacedOrder")]]


class CancelledBatch(Struct, forbid_unknown_fields=True):
    """An answer for each id, in the order in which they were sent."""

    results: list[Annotated[Any, _or_refused("RequestedChange")]]


class RequestedCancelAll(Struct, rename="camel", forbid_unknown_fields=True):
    """The logs of these symbols have the request."""

    command_id: CommandId
    status: Literal["CANCEL_REQUESTED"]
    symbol_ids: list[int]


class ScheduledCancelAll(Struct, rename="camel", forbid_unknown_fields=True):
    """The logs of these symbols have the time; ``timeout`` is in seconds, 0 when it was cleared."""

    command_id: CommandId
    timeout: int
    symbol_ids: list[int]


class OrderView(Struct, rename="camel", forbid_unknown_fields=True):
    """An order of the user; ``reason`` says why it ended unfilled.

    ``quantity`` is null for an order by ``quoteQuantity``; ``averagePrice`` is that of its fills, null without one.
    """

    id: OrderId
    user_id: int
    symbol_id: int
    type: OrderType
    side: Side
    price: DecimalText | None
    quantity: ExactNumber | None
    filled_quantity: ExactNumber
    remaining_quantity: ExactNumber | None
    status: Status
    time_in_force: TimeInForce
    client_order_id: str | None
    reason: str | None
    created_at: Moment
    updated_at: Moment
    executed_at: Moment | None
    stop_price: DecimalText | None
    expires_at: Milliseconds | None
    post_only: bool
    display_quantity: ExactNumber | None
    self_trade_prevention: SelfTradePrevention
    quote_quantity: DecimalText | None
    triggered_at: Moment | None
    replaces: OrderId | None
    average_price: DecimalText | None
    fee: DecimalText
    fee_currency: str | None


class FillView(Struct, rename="camel", forbid_unknown_fields=True):
    """One fill of an order."""

    trade_id: OrderId
    price: DecimalText
    quantity: ExactNumber
    liquidity: Literal["MAKER", "TAKER"]
    timestamp: Moment
    fee: DecimalText
    fee_currency: str | None


class OrderWithFills(OrderView, rename="camel", forbid_unknown_fields=True):
    """An order of the user with its fills, the first one first, at most 1,000."""

    trades: list[FillView]


class OrdersPage(Struct, rename="camel", forbid_unknown_fields=True):
    """Orders of the user, newest first."""

    page: int
    limit: int
    orders: list[OrderView]


class SymbolView(Struct, rename="camel", forbid_unknown_fields=True):
    """A symbol with its trading rules; a rule that is null does not exist."""

    id: int
    symbol: str
    name: str | None
    market: str | None
    currency: str | None
    tick_size: DecimalText
    lot_size: DecimalText
    status: Literal["TRADING", "HALTED", "CANCEL_ONLY"]
    min_quantity: DecimalText | None
    max_quantity: DecimalText | None
    min_notional: DecimalText | None
    price_collar: DecimalText | None
    max_open_orders: int | None


class SymbolList(Struct, rename="camel", forbid_unknown_fields=True):
    """All symbols."""

    symbols: list[SymbolView]
