"""The command that sets a symbol's trading rules: msgspec's, because checkpoints keep it as it is."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct


class DefineSymbol(Struct, gc=False):
    """Set the trading rules of a symbol from here on in the log; a rule that is None does not exist.

    Attributes:
        min_notional: smallest price times quantity of an order with a limit.
        price_collar: how far from the last trade's price orders may trade, as a fraction of it.
        max_open_orders: of one user, stop orders that wait among them.
        keep_status: whether a symbol that is there keeps its status, and ``status`` is for a new one alone.
    """

    symbol_id: int
    name: str
    tick_size: Decimal
    lot_size: Decimal
    status: str
    command_id: str | None
    min_quantity: Decimal | None = None
    max_quantity: Decimal | None = None
    min_notional: Decimal | None = None
    price_collar: Decimal | None = None
    max_open_orders: int | None = None
    keep_status: bool = False
