"""Stop orders: which of them a trade sets off, and in which order."""

from __future__ import annotations

from collections import deque

from forkast_streams.engine.commands import BUY
from forkast_streams.engine.events import Event, TradeExecuted
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_book import BookSide, OrderBook

Queue = deque[Order]


def is_reached(side: str, stop_ticks: int, last_ticks: int | None) -> bool:
    """Whether a trade at ``last_ticks`` triggers a stop order; before the first trade nothing does."""
    if last_ticks is None:
        return False
    return last_ticks >= stop_ticks if side == BUY else last_ticks <= stop_ticks


def collect_triggered(book: OrderBook, events: list[Event], first: int, queue: Queue) -> None:
    """Move the stop orders that the trades in ``events[first:]`` trigger to the end of ``queue``.

    Trade by trade: first the buy stops from the lowest stop price, then the sell stops from the highest, and at one
    stop price first come first served.
    """
    buys, sells = book.buy_stops, book.sell_stops
    if not buys.levels and not sells.levels:
        return
    for at in range(first, len(events)):
        event = events[at]
        if isinstance(event, TradeExecuted):
            _collect(buys, -event.price_ticks, queue)
            _collect(sells, event.price_ticks, queue)


def _collect(stops: BookSide, key_min: int, queue: Queue) -> None:
    levels = stops.levels
    while levels and levels[-1].key >= key_min:
        order = stops.first()
        assert order is not None, "a level without orders must have been dropped"
        stops.remove(order)
        queue.append(order)
