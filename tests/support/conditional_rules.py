"""The rules of stop orders, of icebergs, of the price collar and of changed rules, as ladders."""

from __future__ import annotations

from tests.support.ladder import Rule

STOPS = [
    Rule(
        "a stop order waits for its price, and counts nowhere until then",
        "| 101.00 | 5 bob",
        ["ann buys 3 stop 102.00", "cyd buys 1 @ 101.00"],
        ["cyd buys 1 @ 101.00 from bob"],
        """
        (3 ann) | 102.00 |
                | 101.00 | 4 bob
        """,
    ),
    Rule(
        "a trade at its stop price makes it a market order",
        """
        | 103.00 | 5 dan
        | 102.00 | 1 bob
        """,
        ["ann buys 3 stop 102.00", "cyd buys 1 @ 102.00"],
        ["cyd buys 1 @ 102.00 from bob", "ann triggered at 102.00", "ann buys 3 @ 103.00 from dan"],
        "| 103.00 | 2 dan",
    ),
    Rule(
        "a stop-limit order becomes a limit order, and rests with what is left",
        """
        | 103.00 | 5 dan
        | 102.00 | 1 bob
        """,
        ["ann buys 3 @ 102.50 stop 102.00", "cyd buys 1 @ 102.00"],
        ["cyd buys 1 @ 102.00 from bob", "ann triggered at 102.00", "ann shows 3 @ 102.50"],
        """
              | 103.00 | 5 dan
        3 ann | 102.50 |
        """,
    ),
    Rule(
        "a falling price triggers sell stops",
        """
        1 bob |  99.00 |
        5 dan |  98.00 |
        """,
        ["ann sells 3 stop 99.50", "cyd sells 1 @ 99.00"],
        ["cyd sells 1 @ 99.00 to bob", "ann triggered at 99.00", "ann sells 3 @ 98.00 to dan"],
        "2 dan | 98.00 |",
    ),
    Rule(
        "where the last trade was beyond the stop price already, it is triggered at once",
        "| 101.00 | 5 bob",
        ["cyd buys 1 @ 101.00", "ann buys 3 stop 100.00"],
        ["cyd buys 1 @ 101.00 from bob", "ann triggered at 101.00", "ann buys 3 @ 101.00 from bob"],
        "| 101.00 | 1 bob",
    ),
    Rule(
        "before the first trade nothing triggers",
        "| 101.00 | 5 bob",
        ["ann buys 3 stop 1.00"],
        [],
        """
                | 101.00 | 5 bob
        (3 ann) |   1.00 |
        """,
    ),
    Rule(
        "one trade triggers buys from the lowest stop price, and at one price first come first served",
        """
        | 110.00 | 9 dan
        | 102.00 | 1 bob
        """,
        ["eve buys 1 stop 102.00", "ann buys 2 stop 101.00", "fay buys 3 stop 102.00", "cyd buys 1 @ 102.00"],
        [
            "cyd buys 1 @ 102.00 from bob",
            "ann triggered at 102.00",
            "ann buys 2 @ 110.00 from dan",
            "eve triggered at 110.00",
            "eve buys 1 @ 110.00 from dan",
            "fay triggered at 110.00",
            "fay buys 3 @ 110.00 from dan",
        ],
        "| 110.00 | 3 dan",
    ),
    Rule(
        "every trade of a sweep counts, also a price that was left again within one command",
        """
        | 105.00 | 5 dan
        | 100.00 | 1 bob
        """,
        ["ann sells 2 @ 104.00 stop 100.50", "cyd buys 2 @ 105.00"],
        [
            "cyd buys 1 @ 100.00 from bob",
            "cyd buys 1 @ 105.00 from dan",
            "ann triggered at 105.00",
            "ann shows 2 @ 104.00",
        ],
        """
        | 105.00 | 4 dan
        | 104.00 | 2 ann
        """,
    ),
    Rule(
        "triggered orders trigger others, which come in behind those triggered before",
        """
        | 120.00 | 9 gus
        | 110.00 | 1 dan
        | 102.00 | 1 bob
        """,
        ["ann buys 1 stop 102.00", "eve buys 1 stop 110.00", "fay buys 1 stop 102.00", "cyd buys 1 @ 102.00"],
        [
            "cyd buys 1 @ 102.00 from bob",
            "ann triggered at 102.00",
            "ann buys 1 @ 110.00 from dan",
            "fay triggered at 110.00",
            "fay buys 1 @ 120.00 from gus",
            "eve triggered at 120.00",
            "eve buys 1 @ 120.00 from gus",
        ],
        "| 120.00 | 7 gus",
    ),
    Rule(
        "a stop order can be cancelled, and amended in price, stop price and quantity",
        "",
        ["ann buys 3 @ 99.00 stop 98.00", "ann amends to 4 @ 99.50 stop 98.50", "ann amends to 2", "ann cancels"],
        [
            "ann amended to 4 @ 99.50 stop 98.50, loses place",
            "ann amended to 2 @ 99.50 stop 98.50, keeps place",
            "ann cancelled 2 (USER)",
        ],
    ),
    Rule(
        "a stop order amended to a price that was reached comes in at once",
        "| 101.00 | 5 bob",
        ["cyd buys 1 @ 101.00", "ann buys 1 stop 102.00", "ann amends to stop 101.00"],
        [
            "cyd buys 1 @ 101.00 from bob",
            "ann amended to 1 stop 101.00, loses place",
            "ann triggered at 101.00",
            "ann buys 1 @ 101.00 from bob",
        ],
        "| 101.00 | 3 bob",
    ),
    Rule(
        "once it is triggered it has no stop price to amend",
        "| 101.00 | 5 bob",
        ["cyd buys 1 @ 101.00", "ann buys 1 @ 100.00 stop 101.00", "ann amends to stop 103.00"],
        [
            "cyd buys 1 @ 101.00 from bob",
            "ann triggered at 101.00",
            "ann shows 1 @ 100.00",
            "ann rejected: STOP_PRICE_NOT_ALLOWED",
        ],
        """
              | 101.00 | 4 bob
        1 ann | 100.00 |
        """,
    ),
]

ICEBERGS = [
    Rule(
        "an iceberg order shows one slice of itself",
        "",
        ["ann sells 10 @ 101.00 shows 2"],
        ["ann shows 2 @ 101.00"],
        "| 101.00 | 2+8 ann",
    ),
    Rule(
        "when its slice has traded the next one stands behind all others at the price",
        "",
        ["ann sells 10 @ 101.00 shows 2", "bob sells 3 @ 101.00", "cyd buys 4 @ 101.00"],
        [
            "ann shows 2 @ 101.00",
            "cyd buys 2 @ 101.00 from ann",
            "ann shows 2 @ 101.00",
            "cyd buys 2 @ 101.00 from bob",
        ],
        "| 101.00 | 1 bob, 2+6 ann",
    ),
    Rule(
        "a slice that traded in part keeps its place",
        "",
        ["ann sells 10 @ 101.00 shows 2", "bob sells 3 @ 101.00", "cyd buys 1 @ 101.00"],
        ["ann shows 2 @ 101.00", "cyd buys 1 @ 101.00 from ann"],
        "| 101.00 | 1+8 ann, 3 bob",
    ),
    Rule(
        "alone at its price it trades slice by slice, the last one with what is left",
        "",
        ["ann sells 5 @ 101.00 shows 2", "cyd buys 9 @ 101.00"],
        [
            "ann shows 2 @ 101.00",
            "cyd buys 2 @ 101.00 from ann",
            "ann shows 2 @ 101.00",
            "cyd buys 2 @ 101.00 from ann",
            "ann shows 1 @ 101.00",
            "cyd buys 1 @ 101.00 from ann",
        ],
        "4 cyd | 101.00 |",
    ),
    Rule(
        "as a taker it trades with all of its quantity",
        "| 101.00 | 5 bob",
        ["ann buys 9 @ 101.00 shows 1"],
        ["ann buys 5 @ 101.00 from bob", "ann shows 1 @ 101.00"],
        "1+3 ann | 101.00 |",
    ),
    Rule(
        "less of it takes from the hidden part first and keeps the place",
        "",
        ["ann sells 10 @ 101.00 shows 2", "bob sells 1 @ 101.00", "ann amends to 3", "ann amends to 1"],
        ["ann shows 2 @ 101.00", "ann amended to 3 @ 101.00, keeps place", "ann amended to 1 @ 101.00, keeps place"],
        "| 101.00 | 1 ann, 1 bob",
    ),
    Rule(
        "amended otherwise it comes in again as a whole",
        "4 bob | 100.00 |",
        ["ann sells 10 @ 101.00 shows 2", "ann amends to @ 100.00"],
        [
            "ann shows 2 @ 101.00",
            "ann amended to 10 @ 100.00, loses place",
            "ann sells 4 @ 100.00 to bob",
            "ann shows 2 @ 100.00",
        ],
        "| 100.00 | 2+4 ann",
    ),
    Rule(
        "what it hides can fill a fill-or-kill order",
        "",
        ["ann sells 4 @ 101.00 shows 2", "bob buys 4 @ 101.00 FOK"],
        [
            "ann shows 2 @ 101.00",
            "bob buys 2 @ 101.00 from ann",
            "ann shows 2 @ 101.00",
            "bob buys 2 @ 101.00 from ann",
        ],
        "",
    ),
    Rule(
        "it comes in at most ten slices",
        "",
        ["ann sells 11 @ 101.00 shows 1", "bob sells 10 @ 101.00 shows 1", "bob amends to 11"],
        ["ann rejected: INVALID_DISPLAY_QUANTITY", "bob shows 1 @ 101.00", "bob rejected: INVALID_DISPLAY_QUANTITY"],
        "| 101.00 | 1+9 bob",
    ),
]

COLLARS = [
    Rule(
        "a market order stops at the collar around the last trade before it",
        """
        | 120.00 | 5 dan
        | 110.00 | 1 cyd
        | 100.00 | 1 bob
        """,
        ["eve buys 1 @ 100.00", "set priceCollar=0.1", "ann buys 3 at market"],
        ["eve buys 1 @ 100.00 from bob", "ann buys 1 @ 110.00 from cyd", "ann cancelled 2 (COLLAR)"],
        "| 120.00 | 5 dan",
    ),
    Rule(
        "it is never narrower than a tick",
        "| 100.00 | 1 bob",
        [
            "eve buys 1 @ 100.00",
            "set priceCollar=0.00001",
            *["ann buys 1 @ 100.02", "ann2 buys 1 @ 99.98", "ann3 buys 1 @ 99.99", "ann4 sells 1 @ 100.01"],
        ],
        ["eve buys 1 @ 100.00 from bob", "ann rejected: PRICE_COLLAR", "ann rejected: PRICE_COLLAR"],
        """
               | 100.01 | 1 ann4
        1 ann3 |  99.99 |
        """,
    ),
    Rule(
        "a limit beyond it is refused",
        "| 100.00 | 1 bob",
        [
            "eve buys 1 @ 100.00",
            "set priceCollar=0.1",
            "ann buys 3 @ 110.01",
            "ann2 buys 3 @ 89.99",
            "ann3 buys 3 @ 90.00",
            "ann3 amends to @ 89.99",
        ],
        ["eve buys 1 @ 100.00 from bob"] + ["ann rejected: PRICE_COLLAR"] * 3,
        "3 ann3 | 90.00 |",
    ),
    Rule(
        "before the first trade there is none",
        "",
        ["set priceCollar=0.1", "ann buys 3 @ 900.00", "bob buys 3 @ 1.00"],
        [],
        """
        3 ann | 900.00 |
        3 bob |   1.00 |
        """,
    ),
]

# An amendment is refused for what it makes worse alone.
CHANGED_RULES = [
    Rule(
        "an order larger than is allowed by now can have another price and get smaller",
        "| 101.00 | 9 bob",
        ["set maxQuantity=5", "bob amends to @ 102.00", "bob amends to 8", "bob amends to 9"],
        [
            "bob amended to 9 @ 102.00, loses place",
            "bob amended to 8 @ 102.00, keeps place",
            "bob rejected: QUANTITY_TOO_LARGE",
        ],
        "| 102.00 | 8 bob",
    ),
    Rule(
        "an order smaller than is allowed by now can have another price and get larger",
        "| 101.00 | 9 bob",
        ["set minQuantity=12", "bob amends to @ 102.00", "bob amends to 8", "bob amends to 10"],
        [
            "bob amended to 9 @ 102.00, loses place",
            "bob rejected: QUANTITY_TOO_SMALL",
            "bob amended to 10 @ 102.00, loses place",
        ],
        "| 102.00 | 10 bob",
    ),
    Rule(
        "an order worth less than is allowed by now can become worth more",
        "| 101.00 | 9 bob",
        ["set minNotional=2000", "bob amends to 12", "bob amends to 11", "bob amends to @ 100.00"],
        ["bob amended to 12 @ 101.00, loses place"] + ["bob rejected: MIN_NOTIONAL"] * 2,
        "| 101.00 | 12 bob",
    ),
    Rule(
        "an order that the collar has left behind can get smaller, its price named or not",
        """
              | 100.00 | 1 bob
        5 cyd |  90.00 |
        """,
        [
            *["eve buys 1 @ 100.00", "set priceCollar=0.05"],
            *["cyd amends to 4", "cyd amends to 3 @ 90.00", "cyd amends to @ 91.00"],
        ],
        [
            "eve buys 1 @ 100.00 from bob",
            "cyd amended to 4 @ 90.00, keeps place",
            "cyd amended to 3 @ 90.00, keeps place",
            "cyd rejected: PRICE_COLLAR",
        ],
        "3 cyd | 90.00 |",
    ),
]
