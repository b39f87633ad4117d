"""What the engine answers. Prices are in ticks and quantities in lots of the symbol."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from mypy_extensions import mypyc_attr

from forkast_streams.engine.commands import Command
from forkast_streams.engine.define_symbol import DefineSymbol

PENDING: Final = "PENDING"
PARTIALLY_FILLED: Final = "PARTIALLY_FILLED"
FILLED: Final = "FILLED"
CANCELLED: Final = "CANCELLED"
EXPIRED: Final = "EXPIRED"

# Why an order ended with something open.
BY_USER: Final = "USER"
BY_IOC: Final = "IOC"
BY_FOK: Final = "FOK"
BY_MARKET: Final = "MARKET"
BY_AMEND: Final = "AMEND"
BY_REPLACE: Final = "REPLACED"
BY_POST_ONLY: Final = "POST_ONLY"
BY_SELF_TRADE: Final = "SELF_TRADE"
BY_EXPIRY: Final = "EXPIRED"
BY_CANCEL_ALL: Final = "CANCEL_ALL"
BY_CANCEL_AFTER: Final = "CANCEL_AFTER"
BY_COLLAR: Final = "COLLAR"
# These ends nobody asked for at that moment; the others are cancellations.
_EXPIRIES: Final = frozenset({BY_SELF_TRADE, BY_EXPIRY})


@mypyc_attr(acyclic=True, free_list_len=1)
class OrderAccepted:
    """A new order is accepted; its trades follow.

    ``price_ticks`` is None for an order without a limit, ``quantity`` for one that was sent with a quote quantity.
    """

    def __init__(
        self,
        order_id: str,
        user_id: int,
        type: str,  # noqa: A002 - the field is called so on the wire
        side: str,
        price_ticks: int | None,
        quantity: int | None,
        time_in_force: str,
        client_order_id: str | None,
        command_id: str | None,
        details: OrderDetails | None = None,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.type = type
        self.side = side
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.time_in_force = time_in_force
        self.client_order_id = client_order_id
        self.command_id = command_id
        self.details = details


@mypyc_attr(acyclic=True)
class OrderDetails:
    """What only some orders have; see NewOrder."""

    def __init__(
        self,
        quote_quantity: Decimal | None,
        stop_ticks: int | None,
        expires_at: int | None,
        post_only: bool,
        display_quantity: int | None,
        self_trade_prevention: str,
        replaces: str | None,
    ) -> None:
        self.quote_quantity = quote_quantity
        self.stop_ticks = stop_ticks
        self.expires_at = expires_at
        self.post_only = post_only
        self.display_quantity = display_quantity
        self.self_trade_prevention = self_trade_prevention
        self.replaces = replaces


@mypyc_attr(acyclic=True)
class StopTriggered:
    """A stop order that waited becomes active; its trades follow."""

    def __init__(
        self,
        order_id: str,
        user_id: int,
        type: str,  # noqa: A002 - the field is called so on the wire
        side: str,
        price_ticks: int | None,
        stop_ticks: int,
        open_quantity: int,
        last_ticks: int,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.type = type
        self.side = side
        self.price_ticks = price_ticks
        self.stop_ticks = stop_ticks
        self.open_quantity = open_quantity
        self.last_ticks = last_ticks


@mypyc_attr(acyclic=True, free_list_len=1)
class TradeExecuted:
    """One fill at the maker's price, with the state of both orders after it.

    ``taker_price_ticks`` is None unless the taker's open quantity counts at that price already.
    """

    def __init__(
        self,
        price_ticks: int,
        quantity: int,
        taker_side: str,
        taker_price_ticks: int | None,
        taker_order_id: str,
        taker_user_id: int,
        taker_filled: int,
        taker_status: str,
        maker_order_id: str,
        maker_user_id: int,
        maker_filled: int,
        maker_status: str,
    ) -> None:
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.taker_side = taker_side
        self.taker_price_ticks = taker_price_ticks
        self.taker_order_id = taker_order_id
        self.taker_user_id = taker_user_id
        self.taker_filled = taker_filled
        self.taker_status = taker_status
        self.maker_order_id = maker_order_id
        self.maker_user_id = maker_user_id
        self.maker_filled = maker_filled
        self.maker_status = maker_status


@mypyc_attr(acyclic=True)
class QuantityShown:
    """``quantity`` of an order counts at its price from now on.

    ``refill`` is True for the next slice of an iceberg order, False when the order comes to rest.
    """

    def __init__(
        self,
        order_id: str,
        user_id: int,
        side: str,
        price_ticks: int,
        quantity: int,
        refill: bool,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.side = side
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.refill = refill


@mypyc_attr(acyclic=True, free_list_len=1)
class OrderCancelled:
    """An order ends with ``open_quantity`` unfilled; for one with a quote quantity ``quote_left`` of it is left.

    Attributes:
        shown_quantity: how much of the open quantity counted at the order's price.
        stop_ticks: of a stop order that still waited.
    """

    def __init__(
        self,
        order_id: str,
        user_id: int,
        side: str,
        price_ticks: int | None,
        open_quantity: int,
        filled_quantity: int,
        shown_quantity: int,
        reason: str,
        command_id: str | None,
        stop_ticks: int | None = None,
        quote_left: Decimal | None = None,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.side = side
        self.price_ticks = price_ticks
        self.open_quantity = open_quantity
        self.filled_quantity = filled_quantity
        self.shown_quantity = shown_quantity
        self.reason = reason
        self.command_id = command_id
        self.stop_ticks = stop_ticks
        self.quote_left = quote_left


@mypyc_attr(acyclic=True)
class OrderAmended:
    """An order has another price or quantity; the trades this causes follow.

    The shown quantities are what counts at the order's price before and after; stop prices are None unless it waits.
    """

    def __init__(
        self,
        order_id: str,
        user_id: int,
        side: str,
        price_ticks: int | None,
        quantity: int,
        filled_quantity: int,
        status: str,
        kept_priority: bool,
        previous_price_ticks: int | None,
        previous_quantity: int,
        shown_quantity: int,
        previous_shown_quantity: int,
        command_id: str | None,
        stop_ticks: int | None = None,
        previous_stop_ticks: int | None = None,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.side = side
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.filled_quantity = filled_quantity
        self.status = status
        self.kept_priority = kept_priority
        self.previous_price_ticks = previous_price_ticks
        self.previous_quantity = previous_quantity
        self.shown_quantity = shown_quantity
        self.previous_shown_quantity = previous_shown_quantity
        self.command_id = command_id
        self.stop_ticks = stop_ticks
        self.previous_stop_ticks = previous_stop_ticks


@mypyc_attr(acyclic=True)
class AllCancelled:
    """``count`` orders of the user were cancelled by one command; their own events came before."""

    def __init__(
        self,
        user_id: int,
        count: int,
        command_id: str | None,
    ) -> None:
        self.user_id = user_id
        self.count = count
        self.command_id = command_id


@mypyc_attr(acyclic=True)
class CancelScheduled:
    """All orders of the user will be cancelled at ``deadline`` (milliseconds); None: no more."""

    def __init__(
        self,
        user_id: int,
        deadline: int | None,
        command_id: str | None,
    ) -> None:
        self.user_id = user_id
        self.deadline = deadline
        self.command_id = command_id


@mypyc_attr(acyclic=True)
class CommandRejected:
    """A command changes nothing."""

    def __init__(
        self,
        command: Command,
        code: str,
        message: str,
    ) -> None:
        self.command = command
        self.code = code
        self.message = message


@mypyc_attr(acyclic=True)
class SymbolDefined:
    """The symbol's trading rules from here on."""

    def __init__(
        self,
        rules: DefineSymbol,
    ) -> None:
        self.rules = rules


Event = (
    OrderAccepted
    | StopTriggered
    | TradeExecuted
    | QuantityShown
    | OrderCancelled
    | OrderAmended
    | AllCancelled
    | CancelScheduled
    | CommandRejected
    | SymbolDefined
)


def status_of(filled: int, quantity: int) -> str:
    """Status of an order of ``quantity`` with ``filled`` of it traded, as long as it has not ended otherwise."""
    if filled == quantity:
        return FILLED
    return PARTIALLY_FILLED if filled else PENDING


def final_status(reason: str) -> str:
    """Status of an order that ended unfilled for ``reason``."""
    return EXPIRED if reason in _EXPIRIES else CANCELLED
