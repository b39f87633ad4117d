"""The commands of ``orders.new``, one type each; the codec decodes them all as one and then checks what each needs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from forkast_streams.api_description.order_answers import OrderType, SelfTradePrevention, Side, TimeInForce
from forkast_streams.limits import CANCEL_AFTER_MS_MAX


class _OrderFields(Struct, rename="camel", kw_only=True):
    id: str
    user_id: int
    symbol_id: int
    type: OrderType
    side: Side
    quantity: Any | UnsetType = UNSET
    quote_quantity: Any | UnsetType = UNSET
    price: Any | UnsetType = UNSET
    stop_price: Any | UnsetType = UNSET
    time_in_force: TimeInForce = "GTC"
    expires_at: int | UnsetType = UNSET
    post_only: bool = False
    display_quantity: Any | UnsetType = UNSET
    self_trade_prevention: SelfTradePrevention = "EXPIRE_TAKER"
    client_order_id: str | UnsetType = UNSET
    command_id: str | UnsetType = UNSET


class NewOrderCommand(_OrderFields, rename="camel", kw_only=True):
    """Place an order, with ``quantity`` or (MARKET) ``quoteQuantity``; docs/wire.md says what goes with what."""

    command: UnsetType | None = UNSET


class ReplaceCommand(_OrderFields, rename="camel", kw_only=True):
    """Cancel an order and place another one; both happen or neither."""

    command: Literal["REPLACE"]
    order_id: str


class CancelCommand(Struct, rename="camel", kw_only=True):
    """Cancel an order."""

    command: Literal["CANCEL"]
    symbol_id: int
    order_id: str
    user_id: int
    command_id: str | UnsetType = UNSET


class AmendCommand(Struct, rename="camel", kw_only=True):
    """Change the price, stop price or total quantity of an order."""

    command: Literal["AMEND"]
    symbol_id: int
    order_id: str
    user_id: int
    price: Any | UnsetType = UNSET
    quantity: Any | UnsetType = UNSET
    stop_price: Any | UnsetType = UNSET
    command_id: str | UnsetType = UNSET


class CancelAllCommand(Struct, rename="camel", kw_only=True):
    """Cancel all orders of a user in a symbol."""

    command: Literal["CANCEL_ALL"]
    symbol_id: int
    user_id: int
    command_id: str | UnsetType = UNSET


class CancelAfterCommand(Struct, rename="camel", kw_only=True):
    """Cancel all orders of a user in a symbol ``timeout`` milliseconds later in the log's time; 0 switches it off."""

    command: Literal["CANCEL_AFTER"]
    symbol_id: int
    user_id: int
    timeout: Annotated[int, Meta(ge=0, le=CANCEL_AFTER_MS_MAX)]
    command_id: str | UnsetType = UNSET


class HeartbeatCommand(Struct, rename="camel", kw_only=True):
    """Let what is due in a symbol expire; engines send it."""

    command: Literal["HEARTBEAT"]
    symbol_id: int


class SymbolCommand(Struct, rename="camel", kw_only=True):
    """Set the trading rules of a symbol; one that is left out does not hold."""

    command: Literal["SYMBOL"]
    symbol_id: int
    symbol: Annotated[str, Meta(min_length=1, max_length=32)]
    tick_size: Any
    lot_size: Any
    status: Literal["TRADING", "HALTED", "CANCEL_ONLY"]
    keep_status: bool | UnsetType = UNSET
    min_quantity: Any | UnsetType = UNSET
    max_quantity: Any | UnsetType = UNSET
    min_notional: Any | UnsetType = UNSET
    price_collar: Any | UnsetType = UNSET
    max_open_orders: int | UnsetType = UNSET
    command_id: str | UnsetType = UNSET


COMMANDS: tuple[type[Struct], ...] = (
    NewOrderCommand,
    ReplaceCommand,
    CancelCommand,
    AmendCommand,
    CancelAllCommand,
    CancelAfterCommand,
    HeartbeatCommand,
    SymbolCommand,
)
