"""The rules of matching, one a row, as ladders; the engine and the naive exchange both keep them."""

from __future__ import annotations

import pytest

from tests.support.exchanges import Engine, Naive
from tests.support.ladder import Rule, keeps

PLACING = [
    Rule(
        "an order that nobody meets rests",
        "         | 101.00 | 5 bob",
        ["ann buys 3 @ 100.99"],
        [],
        """
                 | 101.00 | 5 bob
           3 ann | 100.99 |
        """,
    ),
    Rule(
        "at one price, who comes later stands behind",
        "   5 bob | 100.00 |",
        ["ann buys 3 @ 100.00", "cyd buys 1 @ 100.00"],
        [],
        "5 bob, 3 ann, 1 cyd | 100.00 |",
    ),
    Rule(
        "an order at a price between two others trades between them",
        """
        | 103.00 | 1 bob
        | 101.00 | 1 cyd
        """,
        ["dan sells 1 @ 102.00", "ann buys 2 @ 103.00"],
        ["ann buys 1 @ 101.00 from cyd", "ann buys 1 @ 102.00 from dan"],
        "| 103.00 | 1 bob",
    ),
    Rule(
        "an id is used once: whatever it says, a second order with it is a duplicate",
        "5 bob | 100.00 |",
        ["bob buys 5 @ 100.00", "bob sells 1 @ 200.00"],
        ["bob rejected: DUPLICATE_ORDER", "bob rejected: DUPLICATE_ORDER"],
    ),
    Rule(
        "an id stays used when its order is filled",
        "| 100.00 | 5 bob",
        ["ann buys 5 @ 100.00", "bob sells 5 @ 100.00", "ann buys 5 @ 100.00"],
        ["ann buys 5 @ 100.00 from bob", "bob rejected: DUPLICATE_ORDER", "ann rejected: DUPLICATE_ORDER"],
        "",
    ),
    Rule(
        "an id stays used when its order is cancelled",
        "5 bob | 100.00 |",
        ["bob cancels", "bob buys 5 @ 100.00"],
        ["bob cancelled 5 (USER)", "bob rejected: DUPLICATE_ORDER"],
        "",
    ),
    Rule(
        "an id is used up by an order that was refused",
        "",
        ["ann buys 1 @ 100.001", "ann buys 1 @ 100.00"],
        ["ann rejected: INVALID_TICK", "ann rejected: DUPLICATE_ORDER"],
    ),
]

TRADING = [
    Rule(
        "a trade has the maker's price, however much more the taker would pay",
        "| 101.00 | 5 bob",
        ["ann buys 5 @ 105.00"],
        ["ann buys 5 @ 101.00 from bob"],
        "",
    ),
    Rule(
        "the same for a seller",
        "5 bob | 99.00 |",
        ["ann sells 5 @ 90.00"],
        ["ann sells 5 @ 99.00 to bob"],
        "",
    ),
    Rule(
        "equal prices trade",
        "5 bob | 99.00 |",
        ["ann sells 2 @ 99.00"],
        ["ann sells 2 @ 99.00 to bob"],
        "3 bob | 99.00 |",
    ),
    Rule(
        "the best price trades first, whoever came first",
        """
        | 102.00 | 5 bob
        | 101.00 | 5 cyd
        """,
        ["ann buys 7 @ 102.00"],
        ["ann buys 5 @ 101.00 from cyd", "ann buys 2 @ 102.00 from bob"],
        "| 102.00 | 3 bob",
    ),
    Rule(
        "at one price, who came first trades first",
        "| 101.00 | 5 bob, 3 cyd, 2 dan",
        ["ann buys 7 @ 101.00"],
        ["ann buys 5 @ 101.00 from bob", "ann buys 2 @ 101.00 from cyd"],
        "| 101.00 | 1 cyd, 2 dan",
    ),
    Rule(
        "a maker that traded in part keeps its place",
        "| 101.00 | 5 bob, 3 cyd",
        ["ann buys 1 @ 101.00", "dan buys 1 @ 101.00"],
        ["ann buys 1 @ 101.00 from bob", "dan buys 1 @ 101.00 from bob"],
        "| 101.00 | 3 bob, 3 cyd",
    ),
    Rule(
        "a taker stops at its limit and rests there with what is left",
        """
        | 102.00 | 5 bob
        | 101.00 | 5 cyd
        """,
        ["ann buys 7 @ 101.50"],
        ["ann buys 5 @ 101.00 from cyd"],
        """
              | 102.00 | 5 bob
        2 ann | 101.50 |
        """,
    ),
]

NEVER_RESTING = [
    Rule(
        "what an IOC order cannot trade at once is cancelled",
        "| 101.00 | 5 bob",
        ["ann buys 7 @ 101.00 IOC"],
        ["ann buys 5 @ 101.00 from bob", "ann cancelled 2 (IOC)"],
        "",
    ),
    Rule(
        "an IOC order has a limit",
        "| 101.00 | 5 bob",
        ["ann buys 7 @ 100.99 IOC"],
        ["ann cancelled 7 (IOC)"],
    ),
    Rule(
        "a market order takes every price, best first",
        """
        | 900.00 | 5 bob
        | 101.00 | 5 cyd
        """,
        ["ann buys 7 at market"],
        ["ann buys 5 @ 101.00 from cyd", "ann buys 2 @ 900.00 from bob"],
        "| 900.00 | 3 bob",
    ),
    Rule(
        "what is left of a market order is cancelled",
        "5 bob | 0.01 |",
        ["ann sells 6 at market"],
        ["ann sells 5 @ 0.01 to bob", "ann cancelled 1 (MARKET)"],
        "",
    ),
    Rule("a market order never rests", "", ["ann buys 1 at market IOC"], ["ann cancelled 1 (MARKET)"]),
]

CANCELLING = [
    Rule(
        "a cancelled order leaves the others in their places",
        "| 101.00 | 5 bob, 3 cyd, 2 dan",
        ["cyd cancels"],
        ["cyd cancelled 3 (USER)"],
        "| 101.00 | 5 bob, 2 dan",
    ),
    Rule(
        "who comes after the last in the queue has gone stands behind those who stayed",
        "| 101.00 | 5 bob, 3 cyd",
        ["cyd cancels", "dan sells 2 @ 101.00"],
        ["cyd cancelled 3 (USER)"],
        "| 101.00 | 5 bob, 2 dan",
    ),
    Rule(
        "only what is open is cancelled, and only once",
        "| 101.00 | 5 bob",
        ["ann buys 2 @ 101.00", "bob cancels", "bob cancels"],
        ["ann buys 2 @ 101.00 from bob", "bob cancelled 3 (USER)", "bob rejected: UNKNOWN_ORDER"],
        "",
    ),
    Rule(
        "another user's order is unknown, as one that never was",
        "| 101.00 | 5 bob",
        ["ann cancels bob", "ann amends bob to 1", "ann cancels eve"],
        ["ann rejected: UNKNOWN_ORDER"] * 3,
    ),
]

AMENDING = [
    Rule(
        "less at the same price keeps the place",
        "| 101.00 | 5 bob, 3 cyd",
        ["bob amends to 4", "ann buys 5 @ 101.00"],
        ["bob amended to 4 @ 101.00, keeps place", "ann buys 4 @ 101.00 from bob", "ann buys 1 @ 101.00 from cyd"],
        "| 101.00 | 2 cyd",
    ),
    Rule(
        "nothing new keeps the place",
        "| 101.00 | 5 bob, 3 cyd",
        ["bob amends to 5 @ 101.00", "bob amends to"],
        ["bob amended to 5 @ 101.00, keeps place"] * 2,
    ),
    Rule(
        "more loses the place",
        "| 101.00 | 5 bob, 3 cyd",
        ["bob amends to 6"],
        ["bob amended to 6 @ 101.00, loses place"],
        "| 101.00 | 3 cyd, 6 bob",
    ),
    Rule(
        "more for an order that is filled in part adds to what is open",
        "| 101.00 | 5 bob, 3 cyd",
        ["ann buys 2 @ 101.00", "bob amends to 7"],
        ["ann buys 2 @ 101.00 from bob", "bob amended to 7 @ 101.00, loses place"],
        "| 101.00 | 3 cyd, 5 bob",
    ),
    Rule(
        "more of the only order at a price changes nothing else",
        "| 101.00 | 5 bob",
        ["bob amends to 6"],
        ["bob amended to 6 @ 101.00, loses place"],
        "| 101.00 | 6 bob",
    ),
    Rule(
        "another price loses the place, there and back",
        "| 101.00 | 5 bob, 3 cyd",
        ["bob amends to @ 102.00", "bob amends to @ 101.00"],
        ["bob amended to 5 @ 102.00, loses place", "bob amended to 5 @ 101.00, loses place"],
        "| 101.00 | 3 cyd, 5 bob",
    ),
    Rule(
        "an order amended into the other side trades as a taker",
        """
              | 101.00 | 5 bob
        4 cyd |  99.00 |
        """,
        ["cyd amends to 6 @ 101.00"],
        ["cyd amended to 6 @ 101.00, loses place", "cyd buys 5 @ 101.00 from bob"],
        "1 cyd | 101.00 |",
    ),
    Rule(
        "the quantity is the total, with what is filled",
        "| 101.00 | 5 bob",
        ["ann buys 2 @ 101.00", "bob amends to 4"],
        ["ann buys 2 @ 101.00 from bob", "bob amended to 4 @ 101.00, keeps place"],
        "| 101.00 | 2 bob",
    ),
    Rule(
        "a total that is filled already cancels the rest, also at another price",
        "| 101.00 | 5 bob",
        ["ann buys 2 @ 101.00", "bob amends to 2 @ 105.00"],
        ["ann buys 2 @ 101.00 from bob", "bob cancelled 3 (AMEND)"],
        "",
    ),
]

REFUSING = [
    Rule("a limit order needs a price", "", ["ann buys 1"], ["ann rejected: PRICE_REQUIRED"]),
    Rule("a market order has none", "", ["ann buys 1 at market @ 5.00"], ["ann rejected: PRICE_NOT_ALLOWED"]),
    Rule(
        "prices are above zero and at most a billion",
        "",
        ["ann buys 1 @ 0", "ann2 buys 1 @ -5.00", "ann3 buys 1 @ 1000000000.01"],
        ["ann rejected: INVALID_PRICE"] * 3,
    ),
    Rule(
        "quantities are above zero and at most a billion",
        "",
        ["ann buys 0 @ 5.00", "ann2 buys -1 @ 5.00", "ann3 buys 1000000001 @ 5.00"],
        ["ann rejected: INVALID_QUANTITY"] * 3,
    ),
    Rule("prices are multiples of the tick size", "", ["ann buys 1 @ 5.005"], ["ann rejected: INVALID_TICK"]),
    Rule("quantities are multiples of the lot size", "", ["ann buys 1.5 @ 5.00"], ["ann rejected: INVALID_LOT"]),
    Rule(
        "an amendment keeps to the same bounds and grids",
        "| 101.00 | 5 bob",
        ["bob amends to @ 0", "bob amends to @ 101.001", "bob amends to 0", "bob amends to 1.5"],
        [f"bob rejected: INVALID_{what}" for what in ("PRICE", "TICK", "QUANTITY", "LOT")],
    ),
    Rule(
        "the first reason in the documented order is given",
        "",
        [
            "ann buys 0.5",
            "ann2 buys 0.5 at market @ 0.001",
            "ann3 buys 0.5 @ 0",
            "ann4 buys 0 @ 0.001",
            "ann5 buys -0.5 @ 1.00",
            "set status=HALTED",
            "ann5 buys 0.5",
            "ann6 buys 0.5",
        ],
        [
            f"ann rejected: {code}"
            for code in (
                "PRICE_REQUIRED",
                "PRICE_NOT_ALLOWED",
                "INVALID_PRICE",
                "INVALID_TICK",
                "INVALID_QUANTITY",
                "DUPLICATE_ORDER",
                "SYMBOL_HALTED",
            )
        ],
    ),
]

SYMBOLS = [
    Rule(
        "while a symbol is halted, nothing changes",
        "| 101.00 | 5 bob, 3 cyd",
        [
            "set status=HALTED",
            "ann buys 5 @ 101.00",
            "bob amends to 4",
            "ann amends to 1",
            "bob cancels",
            "bob cancels all",
        ],
        [
            "ann rejected: SYMBOL_HALTED",
            "bob rejected: SYMBOL_HALTED",
            "ann rejected: UNKNOWN_ORDER",
            "bob rejected: SYMBOL_HALTED",
            "bob rejected: SYMBOL_HALTED",
        ],
    ),
    Rule(
        "orders can only be cancelled while a symbol is so",
        "| 101.00 | 5 bob, 3 cyd",
        ["set status=CANCEL_ONLY", "ann buys 5 @ 101.00", "bob amends to 4", "bob cancels", "cyd cancels all"],
        [
            "ann rejected: CANCEL_ONLY",
            "bob rejected: CANCEL_ONLY",
            "bob cancelled 5 (USER)",
            "cyd cancelled 3 (CANCEL_ALL)",
            "cyd cancelled all 1",
        ],
        "",
    ),
    Rule(
        "trading goes on where it was halted",
        "| 101.00 | 5 bob",
        ["set status=HALTED", "set status=TRADING", "ann buys 5 @ 101.00"],
        ["ann buys 5 @ 101.00 from bob"],
        "",
    ),
    Rule(
        "the grids do not change while orders rest",
        "| 101.00 | 5 bob",
        ["set tickSize=0.5", "set lotSize=5", "set tickSize=0.010"],
        ["symbol rejected: SYMBOL_IN_USE", "symbol rejected: SYMBOL_IN_USE"],
    ),
    Rule(
        "the grids change once the book is empty",
        "| 101.00 | 5 bob",
        ["bob cancels", "set tickSize=0.5", "ann buys 5 @ 101.50", "ann2 buys 5 @ 101.25"],
        ["bob cancelled 5 (USER)", "ann rejected: INVALID_TICK"],
        "5 ann | 101.50 |",
    ),
]

RULES = [*PLACING, *TRADING, *NEVER_RESTING, *CANCELLING, *AMENDING, *REFUSING, *SYMBOLS]


@pytest.mark.parametrize("exchange", [Engine, Naive])
@pytest.mark.parametrize("rule", RULES, ids=[rule.fact for rule in RULES])
def test_rule(rule: Rule, exchange: type[Engine | Naive]) -> None:
    """The fact is the row's own."""
    keeps(rule, exchange())
