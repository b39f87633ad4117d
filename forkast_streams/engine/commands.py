"""What the engine can be asked to do. Prices and quantities are as they were sent: exact, not yet on a grid.

Commands and events are plain classes, which mypyc makes structs of: to read an attribute of one takes 2 ns, of
msgspec's 16, and a command has some sixty of them read.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from mypy_extensions import mypyc_attr

from forkast_streams.engine.define_symbol import DefineSymbol

BUY: Final = "BUY"
SELL: Final = "SELL"

LIMIT: Final = "LIMIT"
MARKET: Final = "MARKET"
STOP: Final = "STOP"
STOP_LIMIT: Final = "STOP_LIMIT"
TYPES: Final = (LIMIT, MARKET, STOP, STOP_LIMIT)

GTC: Final = "GTC"
IOC: Final = "IOC"
FOK: Final = "FOK"
GTD: Final = "GTD"
TIMES_IN_FORCE: Final = (GTC, IOC, FOK, GTD)

# What happens when an order would trade with another one of its user: which of the two expires.
EXPIRE_TAKER: Final = "EXPIRE_TAKER"
EXPIRE_MAKER: Final = "EXPIRE_MAKER"
EXPIRE_BOTH: Final = "EXPIRE_BOTH"
NONE: Final = "NONE"
SELF_TRADE_PREVENTIONS: Final = (EXPIRE_TAKER, EXPIRE_MAKER, EXPIRE_BOTH, NONE)

Number = int | str | Decimal


@mypyc_attr(acyclic=True, free_list_len=1)
class NewOrder:
    """Place an order; what was not sent is None.

    Attributes:
        quote_quantity: for a market order, the amount of money to trade instead of a quantity.
        expires_at: milliseconds; the order is over when the log's time reaches it.
        replaces: id of an order of the same user to cancel first; both happen or neither.
    """

    def __init__(
        self,
        symbol_id: int,
        order_id: str,
        user_id: int,
        type: str,  # noqa: A002 - the field is called so on the wire
        side: str,
        quantity: Number | None,
        price: Number | None,
        time_in_force: str,
        client_order_id: str | None,
        command_id: str | None,
        quote_quantity: Number | None = None,
        stop_price: Number | None = None,
        expires_at: int | None = None,
        post_only: bool = False,
        display_quantity: Number | None = None,
        self_trade_prevention: str = EXPIRE_TAKER,
        replaces: str | None = None,
    ) -> None:
        self.symbol_id = symbol_id
        self.order_id = order_id
        self.user_id = user_id
        self.type = type
        self.side = side
        self.quantity = quantity
        self.price = price
        self.time_in_force = time_in_force
        self.client_order_id = client_order_id
        self.command_id = command_id
        self.quote_quantity = quote_quantity
        self.stop_price = stop_price
        self.expires_at = expires_at
        self.post_only = post_only
        self.display_quantity = display_quantity
        self.self_trade_prevention = self_trade_prevention
        self.replaces = replaces

    @property
    def is_plain(self) -> bool:
        """Whether it has a price and a quantity and demands nothing else, as nearly all do."""
        return (
            self.type == LIMIT
            and self.time_in_force == GTC
            and self.self_trade_prevention == EXPIRE_TAKER
            and self.price is not None
            and self.quantity is not None
            and self.quote_quantity is None
            and self.stop_price is None
            and self.expires_at is None
            and not self.post_only
            and self.display_quantity is None
            and self.replaces is None
        )


def limit_order(symbol_id: int, order_id: str, user_id: int, side: str, quantity: Number, price: Number) -> NewOrder:
    """A limit order that demands nothing else; cheaper to call from Python than the class with all its fields."""
    return NewOrder(symbol_id, order_id, user_id, LIMIT, side, quantity, price, GTC, None, None)


def cancel_order(symbol_id: int, order_id: str, user_id: int) -> Cancel:
    """The cancel of an order, likewise."""
    return Cancel(symbol_id, order_id, user_id, None)


@mypyc_attr(acyclic=True, free_list_len=1)
class Cancel:
    """Take a resting or waiting order out of the book."""

    def __init__(
        self,
        symbol_id: int,
        order_id: str,
        user_id: int,
        command_id: str | None,
    ) -> None:
        self.symbol_id = symbol_id
        self.order_id = order_id
        self.user_id = user_id
        self.command_id = command_id


@mypyc_attr(acyclic=True)
class Amend:
    """Change an order; ``quantity`` is the new total with what is filled, None leaves a field as it is."""

    def __init__(
        self,
        symbol_id: int,
        order_id: str,
        user_id: int,
        price: Number | None,
        quantity: Number | None,
        command_id: str | None,
        stop_price: Number | None = None,
    ) -> None:
        self.symbol_id = symbol_id
        self.order_id = order_id
        self.user_id = user_id
        self.price = price
        self.quantity = quantity
        self.command_id = command_id
        self.stop_price = stop_price


@mypyc_attr(acyclic=True)
class CancelAll:
    """Cancel all orders of a user in the symbol."""

    def __init__(
        self,
        symbol_id: int,
        user_id: int,
        command_id: str | None,
    ) -> None:
        self.symbol_id = symbol_id
        self.user_id = user_id
        self.command_id = command_id


@mypyc_attr(acyclic=True)
class CancelAfter:
    """Cancel all orders of a user in the symbol ``timeout_ms`` from now unless told again; 0 switches that off."""

    def __init__(
        self,
        symbol_id: int,
        user_id: int,
        timeout_ms: int,
        command_id: str | None,
    ) -> None:
        self.symbol_id = symbol_id
        self.user_id = user_id
        self.timeout_ms = timeout_ms
        self.command_id = command_id


@mypyc_attr(acyclic=True)
class Heartbeat:
    """Nothing but the passing of time: what is due expires."""

    def __init__(
        self,
        symbol_id: int,
    ) -> None:
        self.symbol_id = symbol_id


Command = NewOrder | Cancel | Amend | CancelAll | CancelAfter | Heartbeat | DefineSymbol
