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

_symbol_ids = st.sampled_from([1] * 7 + [2])
_user_ids = st.integers(1, 3)
_kinds = st.sampled_from(["new"] * 10 + ["change"] * 7 + ["symbol"])
_is_rare = st.sampled_from([False] * 15 + [True])
_good_prices = st.sampled_from(["99.00", "99.5", 100, 100.5, "101"])
_bad_prices = st.sampled_from([0, -1, "100.005", "1000000000.01", "0.00000000000000000001", 99.25, 10**12])
_prices = _is_rare.flatmap(lambda is_rare: _bad_prices if is_rare else _good_prices)
_good_quantities = st.one_of(st.integers(1, 9), st.sampled_from(["3", 2.0, "4.000"]))
_bad_quantities = st.sampled_from([0, -3, "0.5", "0.0005", 10**9 + 1, 10**18])
_quantities = _is_rare.flatmap(lambda is_rare: _bad_quantities if is_rare else _good_quantities)


_new_orders = st.fixed_dictionaries(
    {
        "userId": _user_ids,
        "symbolId": _symbol_ids,
        "type": st.sampled_from(["LIMIT"] * 9 + ["MARKET"]),
        "side": st.sampled_from(["BUY", "SELL"]),
        "quantity": _quantities,
    },
    optional={
        "timeInForce": st.sampled_from(["GTC", "GTC", "GTC", "IOC"]),
        "clientOrderId": st.sampled_from(["a", "B-2_c"]),
        "commandId": st.sampled_from(["c1", "c2"]),
        # What a producer must not be able to set.
        "status": st.just("FILLED"),
        "filledQuantity": st.just(3),
    },
)
_changes = st.one_of(
    st.just({"command": "CANCEL"}),
    st.fixed_dictionaries({"command": st.just("AMEND")}, optional={"price": _prices, "quantity": _quantities}),
    st.fixed_dictionaries({"command": st.just("AMEND"), "quantity": st.integers(1, 4)}),
)
_symbols = st.builds(
    lambda symbol_id, change: symbol_command(symbol_id, **GRIDS[symbol_id] | change),
    _symbol_ids,
    st.sampled_from(
        [
            *[{"status": "TRADING"}] * 3,
            {"status": "HALTED"},
            {"tickSize": "0.5"},
            {"tickSize": "0.010", "lotSize": "1.0"},
            {"lotSize": "0.1", "commandId": "c5"},
        ]
    ),
)


@st.composite
def command_streams(draw: st.DrawFn) -> list[Command]:
    """Commands that mostly make sense: new ids for new orders, and changes by the owner of an order placed lately."""
    commands = list(DEFINITIONS)
    placed: list[Command] = []
    # A list without a fixed length would have a handful of commands most of the time.
    count = draw(st.integers(1, 60))
    for kind in draw(st.lists(_kinds, min_size=count, max_size=count)):
        if kind == "symbol":
            commands.append(draw(_symbols))
        elif kind == "change" and placed:
            commands.append(_change(draw, placed))
        else:
            placed.append(_new_order(draw, placed))
            commands.append(placed[-1])
    return commands


def _new_order(draw: st.DrawFn, placed: list[Command]) -> Command:
    order: Command = {"id": str(uuid.UUID(int=0xABCDEF + len(placed)))} | draw(_new_orders)
    if (order["type"] == "LIMIT") != draw(_is_rare):
        order["price"] = draw(_prices)
    if placed and draw(_is_rare):
        order["id"] = draw(st.sampled_from(placed))["id"].upper()
    return order


def _change(draw: st.DrawFn, placed: list[Command]) -> Command:
    order = draw(st.sampled_from(placed[-8:]))
    target = {"symbolId": order["symbolId"], "orderId": order["id"], "userId": order["userId"]}
    if draw(_is_rare):
        target["userId"] = draw(_user_ids)
        target["symbolId"] = draw(_symbol_ids)
    if draw(_is_rare):
        target |= {"orderId": order["id"].upper(), "commandId": "c3"}
    change: Command = draw(_changes)
    return target | change
