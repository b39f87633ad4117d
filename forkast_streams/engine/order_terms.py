"""What an order demands besides side, price and quantity."""

from __future__ import annotations

from typing import Final

from forkast_streams.engine.commands import (
    EXPIRE_TAKER,
    GTC,
    LIMIT,
    MARKET,
    SELF_TRADE_PREVENTIONS,
    STOP,
    TIMES_IN_FORCE,
    TYPES,
)


class OrderTerms:
    """What an order demands besides side, price and quantity. Orders that demand nothing special share one of these.

    Attributes:
        any_price: whether the order takes any price once it comes in.
        limit_ticks: the limit a stop order will have; None for any price, and for an order that has no stop price.
        stop_ticks: of a stop order.
        display_quantity: lots an iceberg order shows at a time.
        expires_at: milliseconds.
    """

    __slots__ = (
        "any_price",
        "display_quantity",
        "expires_at",
        "limit_ticks",
        "post_only",
        "self_trade_prevention",
        "stop_ticks",
        "time_in_force",
        "type",
    )

    def __init__(
        self,
        order_type: str,
        time_in_force: str,
        self_trade_prevention: str,
        limit_ticks: int | None = None,
        stop_ticks: int | None = None,
        display_quantity: int | None = None,
        expires_at: int | None = None,
        *,
        post_only: bool = False,
    ) -> None:
        self.type = order_type
        self.any_price = order_type in (MARKET, STOP)
        self.time_in_force = time_in_force
        self.self_trade_prevention = self_trade_prevention
        self.limit_ticks = limit_ticks
        self.stop_ticks = stop_ticks
        self.display_quantity = display_quantity
        self.expires_at = expires_at
        self.post_only = post_only


# Terms without numbers of their own are shared by all orders that have them.
_SHARED: Final = {
    (order_type, time_in_force, mode): OrderTerms(order_type, time_in_force, mode)
    for order_type in TYPES
    for time_in_force in TIMES_IN_FORCE
    for mode in SELF_TRADE_PREVENTIONS
}
PLAIN: Final = _SHARED[LIMIT, GTC, EXPIRE_TAKER]


def shared_terms(order_type: str, time_in_force: str, self_trade_prevention: str) -> OrderTerms:
    """The terms of all orders that demand this and have no stop price, expiry or display quantity."""
    return _SHARED[order_type, time_in_force, self_trade_prevention]
