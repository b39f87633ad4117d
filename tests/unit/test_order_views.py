"""What an order's owner is shown."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import pytest

from forkast_streams.orders.views import trade_view


@pytest.mark.parametrize("quantity", ["1234567890123456789012345678901.5", "0.000000000001", "1000000000.000000000001"])
def test_quantities_are_exact(quantity: str) -> None:
    """However many digits they have: more than Python's decimals keep by default."""
    row = {
        "tradeId": "t",
        "price": Decimal(1),
        "quantity": Decimal(quantity + "00"),
        "isTaker": True,
        "timestamp": datetime(2026, 1, 1),  # noqa: DTZ001 - as the driver gives it
    }
    assert f"{trade_view(row)['quantity']:f}" == quantity
