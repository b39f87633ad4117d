"""Streams of commands that meet each other often: few users, few prices, few ids, and many mistakes."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

from tests.support.flows import START_MS, symbol_command

Command = dict[str, Any]

# Symbol 2 has other grids, and lots below one.
GRIDS = {1: {"tickSize": "0.01", "lotSize": "1"}, 2: {"tickSize": "0.5", "lotSize": "0.001"}}
DEFINITIONS = [symbol_command(symbol_id, **grids) for symbol_id, grids in GRIDS.items()]

_symbol_ids = st.sampled_from([1] * 7 + [2])
_user_ids = st.integers(1, 3)
_kinds = st.sampled_from(["new"] * 10 + ["change"] * 7 + ["replace"] * 2 + ["user"] * 2 + ["symbol"])
_is_rare = st.sampled_from([False] * 15 + [True])
_good_prices = st.sampled_from(["99.00", "99.5", 100, 100.5, "101"])
_bad_prices = st.sampled_from([0, -1, "100.005", "1000000000.01", "0.00000000000000000001", 99.25, 10**12])
_prices = _is_rare.flatmap(lambda is_rare: _bad_prices if is_rare else _good_prices)
_good_quantities = st.one_of(st.integers(1, 9), st.sampled_from(["3", 2.0, "4.000", 12]))
_bad_quantities = st.sampled_from([0, -3, "0.5", "0.0005", 10**9 + 1, 10**18])
_quantities = _is_rare.flatmap(lambda is_rare: _bad_quantities if is_rare else _good_quantities)


# Relative to the first command's time; a stream takes a millisecond a command.
_expiries = st.integers(0, 70).map(lambda after: START_MS + after)
_new_orders = st.fixed_dictionaries(
    {
        "userId": _user_ids,
        "symbolId": _symbol_ids,
        "type": st.sampled_from(["LIMIT"] * 12 + ["MARKET"] * 2 + ["STOP", "STOP_LIMIT"] * 2),
        "side": st.sampled_from(["BUY", "SELL"]),
        "quantity": _quantities,
    },
    optional={
        "timeInForce": st.sampled_from(["GTC"] * 5 + ["IOC", "FOK", "GTD"]),
        "clientOrderId": st.sampled_from(["a", "B-2_c"]),
        "commandId": st.sampled_from(["c1", "c2"]),
        "selfTradePrevention": st.sampled_from(["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "NONE"]),
        # What a producer must not be able to set.
        "status": st.just("FILLED"),
        "filledQuantity": st.just(3),
    },
)
_amounts = st.sampled_from([100, "250.5", 1000, "99.99", 7, 0, "0.0000000000000000001", 10**16])
_user_commands = st.one_of(
    st.just({"command": "CANCEL_ALL"}),
    st.builds(lambda timeout: {"command": "CANCEL_AFTER", "timeout": timeout}, st.sampled_from([0, 3, 10, 30])),
    st.just({"command": "HEARTBEAT"}),
)
_changes = st.one_of(
    st.just({"command": "CANCEL"}),
    st.fixed_dictionaries(
        {"command": st.just("AMEND")}, optional={"price": _prices, "quantity": _quantities, "stopPrice": _prices}
    ),
    st.fixed_dictionaries({"command": st.just("AMEND"), "quantity": st.integers(1, 4)}),
)
_symbols = st.builds(
    lambda symbol_id, change: symbol_command(symbol_id, **GRIDS[symbol_id] | change),
    _symbol_ids,
    st.sampled_from(
        [
            *[{"status": "TRADING"}] * 3,
            {"status": "HALTED"},
            {"status": "CANCEL_ONLY"},
            {"keepStatus": True},
            {"keepStatus": True, "tickSize": "0.5"},
            {"minQuantity": 2, "maxQuantity": 8},
            {"minNotional": "250"},
            {"priceCollar": "0.005"},
            {"priceCollar": "0.00001"},
            {"priceCollar": "0.01", "maxOpenOrders": 3},
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
        elif kind == "user":
            commands.append({"userId": draw(_user_ids), "symbolId": draw(_symbol_ids)} | draw(_user_commands))
        elif kind == "change" and placed:
            commands.append(_change(draw, placed))
        elif kind == "replace" and placed:
            target = draw(st.sampled_from(placed[-8:]))
            placed.append(_new_order(draw, placed))
            if placed[-1]["id"].lower() == target["id"].lower():
                placed[-1] = placed[-1] | {"id": str(uuid.UUID(int=0xFEDCBA + len(placed)))}
            same = {"symbolId": target["symbolId"], "userId": target["userId"]}
            commands.append(placed[-1] | {"command": "REPLACE", "orderId": target["id"]} | same)
            placed[-1] = placed[-1] | same
        else:
            placed.append(_new_order(draw, placed))
            commands.append(placed[-1])
    return commands


def _new_order(draw: st.DrawFn, placed: list[Command]) -> Command:
    order: Command = {"id": str(uuid.UUID(int=0xABCDEF + len(placed)))} | draw(_new_orders)
    if (order["type"] in ("LIMIT", "STOP_LIMIT")) != draw(_is_rare):
        order["price"] = draw(_prices)
    if (order["type"] in ("STOP", "STOP_LIMIT")) != draw(_is_rare):
        order["stopPrice"] = draw(_prices)
    if (order.get("timeInForce") == "GTD") != draw(_is_rare):
        order["expiresAt"] = draw(_expiries)
    if order["type"] == "MARKET" and draw(st.booleans()):
        del order["quantity"]
        order["quoteQuantity"] = draw(_amounts)
    if draw(st.sampled_from([False] * 5 + [True])):
        order["postOnly"] = True
    if draw(st.sampled_from([False] * 5 + [True])):
        order["displayQuantity"] = draw(st.sampled_from([1, 1, 2, 3, 2, "0.5", 0]))
    if draw(_is_rare):
        order.pop("quantity", None)
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
