"""The one type by which every value of ``orders.new`` is decoded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from forkast_streams.engine.commands import EXPIRE_TAKER, GTC

_REMEMBERED_MAX = 65_536
_REMEMBERED_LENGTH_MAX = 32


class WireCommand(Struct, gc=False, rename="camel"):
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
    quote_quantity: Any = None
    stop_price: Any = None
    expires_at: int | None = None
    post_only: bool = False
    display_quantity: Any = None
    self_trade_prevention: str = EXPIRE_TAKER
    timeout: int | None = None
    symbol: str = ""
    tick_size: Any = UNSET
    lot_size: Any = UNSET
    status: str | UnsetType = UNSET
    keep_status: bool = False
    min_quantity: Any = None
    max_quantity: Any = None
    min_notional: Any = None
    price_collar: Any = None
    max_open_orders: int | None = None


class _Decimals(dict[str, Decimal]):
    """Decimals by their text: prices come again and again, and to make one costs five look-ups."""

    def __missing__(self, text: str) -> Decimal:
        number = Decimal(text)
        if len(text) <= _REMEMBERED_LENGTH_MAX:
            if len(self) >= _REMEMBERED_MAX:
                self.clear()
            self[text] = number
        return number


decode = msgspec.json.Decoder(WireCommand, float_hook=_Decimals().__getitem__).decode
