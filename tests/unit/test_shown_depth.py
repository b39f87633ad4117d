"""Depth is what is shown: icebergs, stops and other quantity that stands in no level, from events written by hand."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from forkast_streams.errors import CorruptLog
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.replay.depth import Depth as ReplayedDepth
from tests.support.hand_written import Event, amend, cancel, order, records, reject, show, trade, trigger
from tests.support.market_events import HOME, SYMBOL, Depth, depth_of

ICEBERG = [
    order("iceberg", "SELL", "101.00", "10", displayQuantity="4"),
    show("iceberg", "SELL", "101.00", "4", refill=False),
]
STOP_LIMIT = [order("stop", "BUY", "103.00", "5", type="STOP_LIMIT", stopPrice="102.00")]
BEHIND = [order("behind", "SELL", "101.00", "7")]
SLICE_TRADES = trade(("taker", "4", True), ("iceberg", "4", False), "BUY", "101.00", "4")
NEXT_SLICE = show("iceberg", "SELL", "101.00", "4", refill=True)
MARKET = {"type": "MARKET", "timeInForce": "GTC"}


def depth_after(*commands: list[Event]) -> Depth:
    """The depth that the keeper has after ``commands``."""
    state = MarketDataState(HOME)
    state.apply(records(*commands))
    return depth_of(state.books[SYMBOL])


@pytest.mark.parametrize(
    ("commands", "buy", "sell"),
    [
        pytest.param([ICEBERG], {}, {"101.00": ("4", 1)}, id="an iceberg shows one slice"),
        pytest.param(
            [ICEBERG, BEHIND, [order("taker", "BUY", None, "4", **MARKET), SLICE_TRADES, NEXT_SLICE]],
            {},
            {"101.00": ("11", 2)},
            id="the next slice comes in the place of the one that is gone",
        ),
        pytest.param(
            [ICEBERG, [order("taker", "BUY", None, "4", **MARKET), SLICE_TRADES, NEXT_SLICE]],
            {},
            {"101.00": ("4", 1)},
            id="a level may stand empty inside a command",
        ),
        pytest.param(
            [
                [order("maker", "BUY", "101.50", "2")],
                [
                    order("late", "SELL", "101.00", "5", displayQuantity="4"),
                    trade(("maker", "2", True), ("late", "2", False), "SELL", "101.50", "2"),
                    show("late", "SELL", "101.00", "3", refill=False),
                ],
            ],
            {},
            {"101.00": ("3", 1)},
            id="an iceberg that takes stands in no level before it rests",
        ),
        pytest.param(
            [ICEBERG, BEHIND, [cancel("iceberg", "SELL", "101.00", "10", shownQuantity="4")]],
            {},
            {"101.00": ("7", 1)},
            id="a cancelled iceberg takes its slice along",
        ),
        pytest.param(
            [ICEBERG, [amend("iceberg", "SELL", ("101.00", "10"), ("101.00", "6"), previousShownQuantity="4",
                             shownQuantity="4", keptPriority=True)]],
            {},
            {"101.00": ("4", 1)},
            id="less of an iceberg takes from what is hidden",
        ),
        pytest.param(
            [ICEBERG, [amend("iceberg", "SELL", ("101.00", "10"), ("101.00", "3"), previousShownQuantity="4",
                             keptPriority=True)]],
            {},
            {"101.00": ("3", 1)},
            id="an iceberg with less than a slice is seen whole",
        ),
        pytest.param(
            [ICEBERG, [amend("iceberg", "SELL", ("101.00", "10"), ("102.00", "10"), previousShownQuantity="4",
                             shownQuantity="0"), show("iceberg", "SELL", "102.00", "4", refill=False)]],
            {},
            {"102.00": ("4", 1)},
            id="an iceberg that moves shows itself again",
        ),
        pytest.param([STOP_LIMIT], {}, {}, id="a stop order that waits is not seen"),
        pytest.param(
            [STOP_LIMIT, [cancel("stop", "BUY", "103.00", "5", shownQuantity="0", stopPrice="102.00")]],
            {},
            {},
            id="a stop order that ends unseen takes nothing along",
        ),
        pytest.param(
            [STOP_LIMIT, [amend("stop", "BUY", ("103.00", "5"), ("104.00", "6"), shownQuantity="0",
                                previousShownQuantity="0", stopPrice="102.00", previousStopPrice="102.00")]],
            {},
            {},
            id="a stop order that is amended stays unseen",
        ),
        pytest.param(
            [
                [order("stop", "BUY", None, "5", type="STOP", stopPrice="102.00")],
                [amend("stop", "BUY", (None, "5"), (None, "6"), shownQuantity="0", previousShownQuantity="0",
                       stopPrice="101.00", previousStopPrice="102.00")],
                [cancel("stop", "BUY", None, "6", stopPrice="101.00")],
            ],
            {},
            {},
            id="a stop order without a price is in no level",
        ),
        pytest.param(
            [STOP_LIMIT, [trigger("stop", "BUY", "103.00", "102.00", "5", "102.50"),
                          show("stop", "BUY", "103.00", "5", refill=False)]],
            {"103.00": ("5", 1)},
            {},
            id="a triggered stop order that rests is seen",
        ),
        pytest.param(
            [STOP_LIMIT, BEHIND, [trigger("stop", "BUY", "103.00", "102.00", "5", "102.50"),
                                  trade(("stop", "5", True), ("behind", "5", False), "BUY", "101.00", "5")]],
            {},
            {"101.00": ("2", 1)},
            id="a triggered stop order takes without a level of its own",
        ),
        pytest.param(
            [STOP_LIMIT, BEHIND, [trigger("stop", "BUY", "103.00", "102.00", "5", "102.50"),
                                  cancel("stop", "BUY", "103.00", "5", shownQuantity="0", reason="POST_ONLY")]],
            {},
            {"101.00": ("7", 1)},
            id="a triggered stop order that may not take ends unseen",
        ),
        pytest.param(
            [BEHIND, [order("spends", "BUY", None, None, quoteQuantity="250", **MARKET),
                      trade(("spends", "2", False), ("behind", "2", False), "BUY", "101.00", "2"),
                      cancel("spends", "BUY", None, None, filledQuantity="2", quoteQuantity="48", reason="MARKET")]],
            {},
            {"101.00": ("5", 1)},
            id="an order for an amount is in no level",
        ),
        pytest.param(
            [BEHIND, [order("fok", "BUY", "101.00", "9", timeInForce="FOK"),
                      cancel("fok", "BUY", "101.00", "9", reason="FOK")]],
            {},
            {"101.00": ("7", 1)},
            id="what cannot be filled whole comes and goes",
        ),
        pytest.param(
            [BEHIND, [order("own", "BUY", "101.00", "9"),
                      cancel("own", "BUY", "101.00", "9", status="EXPIRED", reason="SELF_TRADE")]],
            {},
            {"101.00": ("7", 1)},
            id="a taker that meets its own user goes",
        ),
        pytest.param(
            [BEHIND, [cancel("behind", "SELL", "101.00", "7", reason="REPLACED"),
                      order("new", "SELL", "102.00", "7")]],
            {},
            {"102.00": ("7", 1)},
            id="a replaced order makes room",
        ),
        pytest.param(
            [
                BEHIND,
                [("CANCEL_AFTER", {"userId": 1, "deadline": 5})],
                [reject("REPLACE", "UNKNOWN_ORDER", id="x", type="LIMIT", side="BUY", price="1", quantity="1")],
                [reject("CANCEL_ALL", "SYMBOL_HALTED")],
                [
                    cancel("behind", "SELL", "101.00", "7", reason="CANCEL_AFTER"),
                    ("CANCEL_ALL", {"userId": 1, "count": 0}),
                ],
            ],
            {},
            {},
            id="answers to a user leave the book alone",
        ),
    ],
)  # fmt: skip
def test_depth(commands: list[list[Event]], buy: dict[str, tuple[str, int]], sell: dict[str, tuple[str, int]]) -> None:
    """What is seen of a book after each way in which quantity can be hidden, come forth and go."""
    assert depth_after(*commands) == {"BUY": buy, "SELL": sell}
    replayed = ReplayedDepth()
    for record in records(*commands):
        assert replayed.apply(json.loads(record.value or b""))
    for side, levels in (("BUY", buy), ("SELL", sell)):
        assert replayed.levels[side] == {Decimal(price): Decimal(quantity) for price, (quantity, _) in levels.items()}


def test_an_empty_level_inside_a_command_is_seen_by_nobody() -> None:
    """Cut between an iceberg's trade and its next slice, the book is still the one before the command."""
    events = records(ICEBERG, [order("taker", "BUY", None, "4", **MARKET), SLICE_TRADES, NEXT_SLICE])
    state = MarketDataState(HOME)
    state.apply(events[:-1])
    assert depth_of(state.books[SYMBOL])["SELL"] == {"101.00": ("4", 1)}
    [change] = state.apply(events[-1:])
    assert change.sell == {"101.00": ("4", 1)}
    assert [trade.quantity for trade in change.trades] == ["4"]


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        (
            [ICEBERG, [order("taker", "BUY", None, "4", **MARKET), SLICE_TRADES]],
            "leaves SELL 101.00 with orders that show nothing",
        ),
        ([ICEBERG, [NEXT_SLICE], [cancel("iceberg", "SELL", "101.00", "10")]], "takes more from SELL 101.00"),
        ([[NEXT_SLICE]], "an order that is not there"),
        ([[show("iceberg", "SELL", "101.00", "0", refill=False)]], "adds nothing to SELL 101.00"),
        ([[order("none", "SELL", "101.00", None)]], "adds nothing to SELL 101.00"),
        ([BEHIND, [cancel("behind", "SELL", "101.00", "8")]], "takes more from SELL 101.00"),
        ([BEHIND, [cancel("behind", "SELL", "101.00", "6")]], "takes more from SELL 101.00"),
        ([BEHIND, BEHIND, [cancel("behind", "SELL", "101.00", None)]], "takes more from SELL 101.00"),
        ([BEHIND, [cancel("stop", "SELL", "102.00", "7")]], "takes more from SELL 102.00"),
    ],
)
def test_a_book_that_contradicts_itself_stops_the_keeper(commands: list[list[Event]], message: str) -> None:
    """Levels without quantity at the end of a command, quantity without orders, and quantity out of nowhere."""
    with pytest.raises(CorruptLog, match=message):
        depth_after(*commands)
