"""Stop and iceberg orders, times in force, self-trade prevention and the rest, as ladders; both exchanges keep them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from forkast_streams.limits import FOK_LEVELS_MAX, FOK_ORDERS_MAX
from tests.support.conditional_rules import CHANGED_RULES, COLLARS, ICEBERGS, STOPS
from tests.support.exchanges import Engine, Naive
from tests.support.flows import order_command, symbol_command
from tests.support.ladder import Rule, keeps

TIMES_IN_FORCE = [
    Rule(
        "fill or kill: all of it at once",
        """
        | 101.00 | 2 bob
        | 100.00 | 2 cyd
        """,
        ["ann buys 4 @ 101.00 FOK"],
        ["ann buys 2 @ 100.00 from cyd", "ann buys 2 @ 101.00 from bob"],
        "",
    ),
    Rule(
        "or nothing",
        """
        | 101.00 | 2 bob
        | 100.00 | 2 cyd
        """,
        ["ann buys 4 @ 100.50 FOK", "dan buys 5 @ 101.00 FOK", "eve buys 5 at market FOK"],
        ["ann cancelled 4 (FOK)", "dan cancelled 5 (FOK)", "eve cancelled 5 (FOK)"],
    ),
    Rule(
        "an order good till a date is gone when the log's time reaches it, before the command that comes then",
        "",
        ["ann sells 5 @ 101.00 until 3", "bob buys 1 @ 101.00", "cyd buys 1 @ 101.00"],
        ["bob buys 1 @ 101.00 from ann", "ann expired 4 (EXPIRED)"],
        "1 cyd | 101.00 |",
    ),
    Rule(
        "what expires by one moment goes in the order of the dates, then of arrival",
        "",
        [
            "ann sells 1 @ 101.00 until 6",
            "bob sells 1 @ 101.00 until 5",
            "cyd sells 1 @ 101.00 until 5",
            "dan cancels",
            "heartbeat",
            "heartbeat",
        ],
        [
            "dan rejected: UNKNOWN_ORDER",
            "bob expired 1 (EXPIRED)",
            "cyd expired 1 (EXPIRED)",
            "ann expired 1 (EXPIRED)",
        ],
    ),
    Rule(
        "a stop order expires as well, also where trading is halted",
        "",
        ["ann buys 1 stop 101.00 until 3", "set status=HALTED", "heartbeat"],
        ["ann expired 1 (EXPIRED)"],
    ),
    Rule(
        "a date that is past is refused",
        "",
        ["ann buys 1 @ 101.00 until 1"],
        ["ann rejected: ALREADY_EXPIRED"],
    ),
    Rule(
        "post-only rests or is refused",
        "| 101.00 | 5 bob",
        ["ann buys 1 @ 101.00 post-only", "cyd buys 1 @ 100.99 post-only", "cyd amends to @ 101.00"],
        ["ann rejected: POST_ONLY_WOULD_TAKE", "cyd rejected: POST_ONLY_WOULD_TAKE"],
        """
              | 101.00 | 5 bob
        1 cyd | 100.99 |
        """,
    ),
    Rule(
        "a triggered post-only order that would take is cancelled",
        "| 101.00 | 5 bob",
        ["ann buys 2 @ 101.00 stop 101.00 post-only", "cyd buys 1 @ 101.00"],
        ["cyd buys 1 @ 101.00 from bob", "ann triggered at 101.00", "ann cancelled 2 (POST_ONLY)"],
        "| 101.00 | 4 bob",
    ),
]

AMOUNTS = [
    Rule(
        "an amount of money buys as many lots as it affords, and what is less than one lot stays",
        """
        | 102.00 | 9 bob
        | 100.00 | 2 cyd
        """,
        ["ann buys for 410.00 at market"],
        ["ann buys 2 @ 100.00 from cyd", "ann buys 2 @ 102.00 from bob"],
        "| 102.00 | 7 bob",
    ),
    Rule(
        "what is left of it when the book is empty is cancelled",
        "| 100.00 | 2 bob",
        ["ann buys for 350.50 at market"],
        ["ann buys 2 @ 100.00 from bob", "ann cancelled 150.5 of the amount (MARKET)"],
        "",
    ),
    Rule(
        "an amount that affords nothing trades nothing",
        "| 100.00 | 2 bob",
        ["ann buys for 99.99 at market"],
        ["ann cancelled 99.99 of the amount (MARKET)"],
    ),
    Rule(
        "it buys no more than an order with a quantity may",
        """
        | 102.00 | 9 bob
        | 100.00 | 2 cyd
        """,
        ["set maxQuantity=5", "ann buys for 5000.00 at market"],
        ["ann buys 2 @ 100.00 from cyd", "ann buys 3 @ 102.00 from bob"],
        "| 102.00 | 6 bob",
    ),
    Rule(
        "sellers can name an amount too",
        """
        5 bob | 100.00 |
        5 cyd |  10.00 |
        """,
        ["ann sells for 250.00 at market"],
        ["ann sells 2 @ 100.00 to bob"],
        """
        3 bob | 100.00 |
        5 cyd |  10.00 |
        """,
    ),
]

SELF_TRADES = [
    Rule(
        "by default the taker expires, and what it traded before stays",
        "| 101.00 | 1 cyd, 5 bob",
        ["bob2 buys 3 @ 101.00"],
        ["bob2 buys 1 @ 101.00 from cyd", "bob2 expired 2 (SELF_TRADE)"],
        "| 101.00 | 5 bob",
    ),
    Rule(
        "or the maker expires and the taker goes on",
        "| 101.00 | 5 bob, 2 cyd",
        ["bob2 buys 3 @ 101.00 EXPIRE_MAKER"],
        ["bob expired 5 (SELF_TRADE)", "bob2 buys 2 @ 101.00 from cyd"],
        "1 bob2 | 101.00 |",
    ),
    Rule(
        "or both expire",
        "| 101.00 | 5 bob, 2 cyd",
        ["bob2 buys 3 @ 101.00 EXPIRE_BOTH"],
        ["bob expired 5 (SELF_TRADE)", "bob2 expired 3 (SELF_TRADE)"],
        "| 101.00 | 2 cyd",
    ),
    Rule(
        "or users trade with themselves",
        "| 101.00 | 5 bob",
        ["bob2 buys 5 @ 101.00 NONE"],
        ["bob2 buys 5 @ 101.00 from bob"],
        "",
    ),
    Rule(
        "the taker's mode decides, also of an order that is amended into the other side",
        "| 101.00 | 5 bob",
        ["bob2 buys 2 @ 99.00 EXPIRE_MAKER", "bob2 amends to @ 101.00"],
        ["bob2 amended to 2 @ 101.00, loses place", "bob expired 5 (SELF_TRADE)"],
        "2 bob2 | 101.00 |",
    ),
    Rule(
        "a fill-or-kill order counts no order it would not trade with",
        "| 101.00 | 2 cyd, 5 bob, 2 dan",
        ["bob2 buys 4 @ 101.00 FOK", "bob3 buys 5 @ 101.00 FOK EXPIRE_MAKER", "bob4 buys 4 @ 101.00 FOK EXPIRE_MAKER"],
        [
            "bob2 cancelled 4 (FOK)",
            "bob3 cancelled 5 (FOK)",
            "bob4 buys 2 @ 101.00 from cyd",
            "bob expired 5 (SELF_TRADE)",
            "bob4 buys 2 @ 101.00 from dan",
        ],
        "",
    ),
    Rule(
        "nor what an iceberg order shows only behind an own order",
        "",
        [
            "cyd sells 9 @ 101.00 shows 2",
            "bob sells 5 @ 101.00",
            "bob2 buys 4 @ 101.00 FOK",
            "bob3 buys 2 @ 101.00 FOK",
            "bob4 buys 7 @ 101.00 FOK EXPIRE_MAKER",
        ],
        [
            "cyd shows 2 @ 101.00",
            "bob2 cancelled 4 (FOK)",
            "bob3 buys 2 @ 101.00 from cyd",
            "cyd shows 2 @ 101.00",
            "bob expired 5 (SELF_TRADE)",
            "bob4 buys 2 @ 101.00 from cyd",
            "cyd shows 2 @ 101.00",
            "bob4 buys 2 @ 101.00 from cyd",
            "cyd shows 2 @ 101.00",
            "bob4 buys 2 @ 101.00 from cyd",
            "cyd shows 1 @ 101.00",
            "bob4 buys 1 @ 101.00 from cyd",
        ],
        "",
    ),
]

MANY_AT_ONCE = [
    Rule(
        "a user's orders are all cancelled at once, stop orders too, first come first",
        "| 101.00 | 5 bob, 2 cyd",
        ["bob2 buys 1 @ 99.00", "bob3 buys 2 stop 103.00", "bob cancels all", "bob cancels all"],
        [
            "bob cancelled 5 (CANCEL_ALL)",
            "bob2 cancelled 1 (CANCEL_ALL)",
            "bob3 cancelled 2 (CANCEL_ALL)",
            "bob cancelled all 3",
            "bob cancelled all 0",
        ],
        "| 101.00 | 2 cyd",
    ),
    Rule(
        "a dead-man's switch cancels what is there when its time has come, unless it was set again",
        "| 101.00 | 5 bob",
        ["bob cancels all in 3", "bob cancels all in 3", "bob2 buys 1 @ 99.00", "heartbeat", "heartbeat", "heartbeat"],
        ["bob cancelled 5 (CANCEL_AFTER)", "bob2 cancelled 1 (CANCEL_AFTER)"],
        "",
    ),
    Rule(
        "a dead-man's switch can be switched off",
        "| 101.00 | 5 bob",
        ["bob cancels all in 2", "bob cancels all in 0", "heartbeat", "heartbeat", "heartbeat"],
        [],
    ),
    Rule(
        "while a symbol is halted a dead-man's switch can be set again; others go off once it trades",
        "| 101.00 | 5 bob, 2 cyd, 3 dan",
        [
            *["bob cancels all in 5", "cyd cancels all in 5", "dan cancels all in 5", "set status=HALTED"],
            *["heartbeat"] * 4,
            *["cyd cancels all in 9", "dan cancels all in 0", "set status=TRADING", "ann buys 9 @ 101.00 IOC"],
        ],
        [
            "bob cancelled 5 (CANCEL_AFTER)",
            "ann buys 2 @ 101.00 from cyd",
            "ann buys 3 @ 101.00 from dan",
            "ann cancelled 4 (IOC)",
        ],
        "",
    ),
    Rule(
        "a replacement cancels one order and places another",
        "| 101.00 | 5 bob, 2 cyd",
        ["bob2 sells 4 @ 102.00 for bob"],
        ["bob cancelled 5 (REPLACED)"],
        """
        | 102.00 | 4 bob2
        | 101.00 | 2 cyd
        """,
    ),
    Rule(
        "both or neither: an order that cannot be placed, or that replaces nothing of the user's, changes nothing",
        """
              | 101.00 | 5 bob, 2 cyd
        1 dan |  99.00 |
        """,
        ["bob2 sells 4 @ 102.001 for bob", "bob3 sells 4 @ 102.00 for cyd", "bob4 sells 4 @ 99.00 post-only for bob"],
        ["bob rejected: INVALID_TICK", "bob rejected: UNKNOWN_ORDER", "bob rejected: POST_ONLY_WOULD_TAKE"],
    ),
    Rule(
        "the order that is replaced is in nobody's way",
        "| 101.00 | 5 bob",
        ["bob2 buys 4 @ 101.00 post-only for bob"],
        ["bob cancelled 5 (REPLACED)"],
        "4 bob2 | 101.00 |",
    ),
]

RULES = [*STOPS, *ICEBERGS, *TIMES_IN_FORCE, *AMOUNTS, *SELF_TRADES, *MANY_AT_ONCE, *COLLARS, *CHANGED_RULES]


@pytest.mark.parametrize("exchange", [Engine, Naive])
@pytest.mark.parametrize("rule", RULES, ids=[rule.fact for rule in RULES])
def test_rule(rule: Rule, exchange: type[Engine | Naive]) -> None:
    """The fact is the row's own."""
    keeps(rule, exchange())


@pytest.mark.parametrize("exchange", [Engine, Naive])
def test_fill_or_kill_looks_at_so_many_levels_and_no_more(exchange: type[Engine | Naive]) -> None:
    """Whoever could make an engine look at a million of them for each order could stop it."""
    one = exchange()
    one.process(symbol_command(1))
    for number in range(FOK_LEVELS_MAX + 1):
        # The best one last, which is how a list of them grows fastest.
        price = f"{300 - number / 100:.2f}"
        one.process(order_command(id=_id(number), side="SELL", quantity=1, price=price))
    for number, quantity in ((1, FOK_LEVELS_MAX + 1), (2, FOK_LEVELS_MAX)):
        changes = {"id": _id(number << 64), "userId": 3, "price": 400, "timeInForce": "FOK"}
        events = one.process(order_command(quantity=quantity, **changes))
        kinds = [kind for kind, _ in events]
        assert kinds == (["ORDER", "CANCEL"] if quantity > FOK_LEVELS_MAX else ["ORDER"] + ["TRADE"] * quantity)


@pytest.mark.parametrize(
    ("other_order", "quantity", "is_filled"),
    [
        (None, FOK_ORDERS_MAX + 1, True),
        ({"price": 10}, FOK_ORDERS_MAX + 1, False),
        ({"price": 10}, FOK_ORDERS_MAX, True),
        ({"type": "STOP", "price": None, "stopPrice": 500}, FOK_ORDERS_MAX + 1, False),
        ({"price": 10, "userId": 4}, FOK_ORDERS_MAX + 1, True),
    ],
)
@pytest.mark.parametrize("exchange", [Engine, Naive])
def test_fill_or_kill_of_a_user_with_other_orders_looks_at_so_many_orders_and_no_more(
    exchange: type[Engine | Naive], other_order: dict[str, Any] | None, quantity: int, is_filled: bool
) -> None:
    """Each of them might be its own; one trade may trigger ten thousand such orders of one user."""
    one = exchange()
    one.process(symbol_command(1))
    for number in range(FOK_ORDERS_MAX + 1):
        one.process(order_command(id=_id(number), side="SELL", quantity=1, price=100 + number % 2))
    if other_order is not None:
        one.process(order_command() | {"id": _id(1 << 64), "userId": 3, "quantity": 1} | other_order)
    events = one.process(order_command(id=_id(2 << 64), userId=3, quantity=quantity, price=400, timeInForce="FOK"))
    assert [kind for kind, _ in events] == ["ORDER", *(["TRADE"] * quantity if is_filled else ["CANCEL"])]


@pytest.mark.parametrize("exchange", [Engine, Naive])
def test_fill_or_kill_stops_of_one_user_triggered_together_are_each_others_other_orders(
    exchange: type[Engine | Naive],
) -> None:
    """Until the last one, which has no other beside it any more."""
    one = exchange()
    one.process(symbol_command(1))
    for number in range(FOK_ORDERS_MAX + 2):
        one.process(order_command(id=_id(number), side="SELL", quantity=1))
    stop = {"userId": 3, "type": "STOP", "price": None, "stopPrice": 100, "timeInForce": "FOK"}
    for number in (1, 2):
        one.process(order_command(id=_id(number << 64), quantity=FOK_ORDERS_MAX + 1) | stop)
    events = one.process(order_command(id=_id(3 << 64), userId=4, quantity=1))
    kinds = [kind for kind, _ in events]
    assert kinds == ["ORDER", "TRADE", "TRIGGER", "CANCEL", "TRIGGER", *["TRADE"] * (FOK_ORDERS_MAX + 1)]


def _id(number: int) -> str:
    return str(uuid.UUID(int=number))
