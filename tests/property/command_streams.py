"""Streams of commands that meet each other often: few users, few prices, few ids, and many mistakes."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from tests.unit.flows import symbol_command

Command = dict[str, Any]

# Symbol 2 has other grids, and lots below one.
GRIDS = {1: {"tickSize": "0.01", "lotSize": "1"}, 2: {"tickSize": "0.5", "lotSize": "0.001"}}
DEFINITIONS = [symbol_command(symbol_id, **grids) for symbol_id, grids in GRIDS.items()]

_symbol_ids = st.sampled_from([1, 1, 1, 2])
_user_ids = st.integers(1, 3)
# Few enough that cancels find their orders and ids come twice; some in capitals, which are the same ids.
_order_ids = st.one_of(
    st.integers(1, 40).map(lambda number: str(uuid.UUID(int=number))),
    st.integers(10, 15).map(lambda number: str(uuid.UUID(int=number)).upper()),
)
_good_prices = st.sampled_from(["99.00", "99.5", 100, 100.5, "101"])
_bad_prices = st.sampled_from([0, -1, "100.005", "1000000000.01", "0.00000000000000000001", 99.25, 10**12])
_prices = st.one_of(*[_good_prices] * 9, _bad_prices)
_good_quantities = st.one_of(st.integers(1, 9), st.sampled_from(["3", 2.0, "4.000"]))
_bad_quantities = st.sampled_from([0, -3, "0.5", "0.0005", 10**9 + 1, 10**18])
_quantities = st.one_of(*[_good_quantities] * 9, _bad_quantities)


_new_orders = st.fixed_dictionaries(
    {
        "id": _order_ids,
        "userId": _user_ids,
        "symbolId": _symbol_ids,
        "type": st.sampled_from(["LIMIT"] * 9 + ["MARKET"]),
        "side": st.sampled_from(["BUY", "SELL"]),
        "quantity": _quantities,
    },
    optional={
        "timeInForce": st.sampled_from(["GTC", "GTC", "IOC"]),
        "clientOrderId": st.sampled_from(["a", "B-2_c"]),
        "commandId": st.sampled_from(["c1", "c2"]),
        # What a producer must not be able to set.
        "status": st.just("FILLED"),
        "filledQuantity": st.just(3),
    },
)


@st.composite
def _priced_orders(draw: st.DrawFn) -> Command:
    """Mostly as it should be: limit orders with a price, market orders without."""
    order = draw(_new_orders)
    if (order["type"] == "LIMIT") != draw(st.sampled_from([False] * 15 + [True])):
        order["price"] = draw(_prices)
    return order


_cancels = st.fixed_dictionaries(
    {"command": st.just("CANCEL"), "symbolId": _symbol_ids, "orderId": _order_ids, "userId": _user_ids},
    optional={"commandId": st.just("c3")},
)
_amends = st.fixed_dictionaries(
    {"command": st.just("AMEND"), "symbolId": _symbol_ids, "orderId": _order_ids, "userId": _user_ids},
    optional={"price": _prices, "quantity": _quantities, "commandId": st.just("c4")},
)
_symbols = st.builds(
    lambda symbol_id, change: symbol_command(symbol_id, **GRIDS[symbol_id] | change),
    _symbol_ids,
    st.one_of(
        st.just({"status": "TRADING"}),
        st.just({"status": "HALTED"}),
        st.just({"tickSize": "0.5"}),
        st.just({"tickSize": "0.010", "lotSize": "1.0"}),
        st.just({"lotSize": "0.1", "commandId": "c5"}),
    ),
)
_commands = st.one_of(*[_priced_orders()] * 12, *[_cancels] * 3, *[_amends] * 4, _symbols)

command_streams = st.lists(_commands, min_size=1, max_size=60).map(lambda commands: [*DEFINITIONS, *commands])
