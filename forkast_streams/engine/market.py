"""One symbol's market: its trading rules, its book, and how orders come into the book and leave it."""

from __future__ import annotations

from collections import deque

from forkast_streams.engine.changes import Changes
from forkast_streams.engine.commands import BUY, FOK, IOC
from forkast_streams.engine.events import (
    BY_CANCEL_AFTER,
    BY_CANCEL_ALL,
    BY_COLLAR,
    BY_EXPIRY,
    BY_FOK,
    BY_IOC,
    BY_MARKET,
    BY_POST_ONLY,
    BY_SELF_TRADE,
    AllCancelled,
    Event,
    OrderCancelled,
    QuantityShown,
    StopTriggered,
)
from forkast_streams.engine.matching import can_fill, cancel_open, hide, match, worst_of
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_book import OrderBook
from forkast_streams.engine.order_terms import PLAIN
from forkast_streams.engine.stops import Queue, collect_triggered
from forkast_streams.engine.symbols import HALTED, Symbol


class Market:
    """A symbol with its book. Open orders and ``changes`` are those of the partition."""

    __slots__ = ("book", "changes", "symbol")

    def __init__(self, symbol: Symbol, open_orders: OpenOrders, changes: Changes) -> None:
        self.symbol = symbol
        self.book = OrderBook(symbol.id, open_orders)
        self.changes = changes

    def enter(self, order: Order, events: list[Event], command_id: str | None, *, in_depth: bool) -> None:
        """Let an order that is not in the book trade; what is left of it rests or ends, as its terms say.

        Args:
            order: a new one, or one that left its place.
            events: get what happens, stop orders that are triggered by it among it.
            command_id: of the command that lets it in.
            in_depth: whether the public depth has its open quantity at its limit already, see TradeExecuted.
        """
        first = len(events)
        self._enter(order, events, command_id, in_depth=in_depth)
        if self.book.buy_stops.levels or self.book.sell_stops.levels:
            self.run_stops(events, first, deque())

    def run_stops(self, events: list[Event], first: int, queue: Queue) -> None:
        """Let stop orders come in: those in ``queue``, those ``events[first:]`` triggers, and those they trigger."""
        while True:
            collect_triggered(self.book, events, first, queue)
            if not queue:
                return
            first = len(events)
            self._activate(queue.popleft(), events)

    def wait(self, order: Order, stop_ticks: int) -> None:
        """Let a new or removed stop order wait for its price, behind all others that wait for the same."""
        order.waiting = True
        order.price_ticks = stop_ticks
        self._put(order)

    def would_take(self, side: str, limit_ticks: int, *, ignoring: Order | None = None) -> bool:
        """Whether an order would trade at once if ``ignoring`` were not there."""
        makers = self.book.makers_for(side)
        maker = makers.first()
        if maker is not None and maker is ignoring:
            maker = next((other for other in makers if other is not ignoring), None)
        return maker is not None and maker.price_ticks * makers.sign >= limit_ticks * makers.sign

    def is_beyond_collar(self, limit_ticks: int) -> bool:
        """Whether a limit is too far from the last trade's price."""
        collar = self.symbol.collar(self.book.last_ticks)
        return collar is not None and not collar[0] <= limit_ticks <= collar[1]

    def market_limit(self, side: str) -> int | None:
        """The worst price, in ticks, of an order without a limit; None when it takes any."""
        collar = self.symbol.collar(self.book.last_ticks)
        if collar is None:
            return None
        return collar[1] if side == BUY else collar[0]

    def why_left(self, side: str, worst_ticks: int | None) -> str:
        """Why something of an order without a limit is left: the others are beyond the collar, or gone."""
        makers = self.book.makers_for(side)
        is_beyond = worst_ticks is not None and makers.levels and makers.levels[-1].key < worst_ticks * makers.sign
        return BY_COLLAR if is_beyond else BY_MARKET

    def cancel(self, order: Order, reason: str, command_id: str | None) -> OrderCancelled:
        """Take an open order out for good."""
        return cancel_open(self.book, self.changes, order, reason, command_id)

    def cancel_all(self, user_id: int, reason: str, command_id: str | None, events: list[Event]) -> int:
        """Cancel all orders of a user, in the order in which they were placed; return their number."""
        orders = sorted(self.book.orders_of(user_id), key=_offset)
        events.extend([self.cancel(order, reason, command_id) for order in orders])
        if reason == BY_CANCEL_ALL:
            events.append(AllCancelled(user_id, len(orders), command_id))
        return len(orders)

    def expire(self, now: int, events: list[Event]) -> None:
        """Cancel what is due at ``now`` (milliseconds)."""
        orders, users = self.book.drain_due(now, halted=self.symbol.status == HALTED)
        events.extend([self.cancel(order, BY_EXPIRY, None) for order in orders])
        for user_id in users:
            self.cancel_all(user_id, BY_CANCEL_AFTER, None, events)

    def end(self, order: Order, reason: str, events: list[Event], command_id: str | None, *, in_depth: bool) -> None:
        """End an order that stands nowhere in the book."""
        self._forget(order)
        events.append(
            OrderCancelled(
                order.id,
                order.owner.user_id,
                order.side,
                order.limit_ticks,
                order.remaining,
                order.quantity - order.remaining,
                order.remaining if in_depth else 0,
                reason,
                command_id,
            )
        )

    def _enter(self, order: Order, events: list[Event], command_id: str | None, *, in_depth: bool) -> None:
        book, terms = self.book, order.terms
        if terms is PLAIN:
            self._enter_plain(order, events, command_id, in_depth=in_depth)
            return
        limit_ticks = self.market_limit(order.side) if terms.any_price else order.price_ticks
        worst_ticks = worst_of(order.side, limit_ticks)
        if terms.time_in_force == FOK and not can_fill(book, order, limit_ticks):
            self.end(order, BY_FOK, events, command_id, in_depth=in_depth)
        elif match(book, self.changes, order, worst_ticks, events, in_depth=in_depth):
            self.end(order, BY_SELF_TRADE, events, command_id, in_depth=in_depth)
        elif not order.remaining:
            self._forget(order)
        elif terms.any_price:
            self.end(order, self.why_left(order.side, limit_ticks), events, command_id, in_depth=in_depth)
        elif terms.time_in_force == IOC:
            self.end(order, BY_IOC, events, command_id, in_depth=in_depth)
        else:
            self._rest(order, events, in_depth=in_depth)

    def _enter_plain(self, order: Order, events: list[Event], command_id: str | None, *, in_depth: bool) -> None:
        if match(self.book, self.changes, order, order.price_ticks, events, in_depth=in_depth):
            self.end(order, BY_SELF_TRADE, events, command_id, in_depth=in_depth)
        elif order.remaining:
            self._rest(order, events, in_depth=in_depth)
        else:
            self._forget(order)

    def _rest(self, order: Order, events: list[Event], *, in_depth: bool) -> None:
        hide(order)
        self._put(order)
        if not in_depth:
            shown = order.shown
            events.append(
                QuantityShown(order.id, order.owner.user_id, order.side, order.price_ticks, shown, refill=False)
            )

    def _put(self, order: Order) -> None:
        # Only an order that was in the book before has a rank.
        if order.rank:
            self.book.side_of(order).append(order)
        else:
            self.book.add(order)
        self.changes.give_rank(order)

    def _forget(self, order: Order) -> None:
        if order.rank:
            self.book.forget(order)
            self.changes.forget(order)

    def _activate(self, order: Order, events: list[Event]) -> None:
        terms, last_ticks = order.terms, self.book.last_ticks
        assert terms.stop_ticks is not None, "only a stop order waits"
        assert last_ticks is not None, "a trade triggered it"
        order.waiting = False
        order.price_ticks = terms.limit_ticks or 0
        events.append(
            StopTriggered(
                order.id,
                order.owner.user_id,
                terms.type,
                order.side,
                terms.limit_ticks,
                terms.stop_ticks,
                order.remaining,
                last_ticks,
            )
        )
        if terms.post_only and self.would_take(order.side, order.price_ticks):
            self.end(order, BY_POST_ONLY, events, None, in_depth=False)
        else:
            self._enter(order, events, None, in_depth=False)


def _offset(order: Order) -> int:
    return order.offset
