"""The order book of one symbol: price levels, and a queue of orders at each, first come first served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mypy_extensions import i64

from forkast_streams.engine.commands import BUY
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Account, Level, Order
from forkast_streams.engine.timers import NEVER, Timers

# Accounts without orders that a book keeps at most, besides as many as there are with orders.
_IDLE_ACCOUNTS_MAX: Final = 1_000


class BookSide:
    """Orders of one side by price, those that rest or those that wait for a stop price.

    ``levels`` are ascending by the price times ``sign``, so that the level that comes first is last, where a list
    grows and shrinks for free.
    """

    __slots__ = ("levels", "sign")

    def __init__(self, sign: i64) -> None:
        self.sign = sign
        self.levels: list[Level] = []

    def append(self, order: Order) -> None:
        """Put ``order`` at the back of the queue at its price."""
        key: i64 = order.price_ticks * self.sign
        levels = self.levels
        at = self._find(key)
        level = levels[at] if at < len(levels) else None
        if level is None or level.key != key:
            order.level = level = Level(key, order)
            levels.insert(at, level)
            return
        order.level = level
        tail = level.tail
        tail.next = order
        order.previous = tail
        level.tail = order
        level.open_quantity += order.remaining

    def remove(self, order: Order) -> None:
        """Take ``order`` out, wherever in its queue it stands."""
        level = order.level
        assert level is not None, "an order that stands nowhere cannot be taken out"
        previous, following = order.previous, order.next
        order.level = order.previous = order.next = None
        level.open_quantity -= order.remaining
        if previous is None:
            if following is None:
                self._drop(level.key)
                return
            level.head = following
            following.previous = None
        else:
            previous.next = following
            if following is None:
                level.tail = previous
            else:
                following.previous = previous

    def _drop(self, key: i64) -> None:
        levels = self.levels
        at = self._find(key)
        if at == len(levels) - 1:
            levels.pop()
        else:
            del levels[at]

    def _find(self, key: i64) -> i64:
        """The place of the level with ``key``, or where it belongs; fast near the best price, where most happens."""
        levels = self.levels
        above: i64 = len(levels)
        step: i64 = 1
        while step <= above and levels[above - step].key >= key:
            above -= step
            step *= 2
        below: i64 = -1
        if step <= above:
            below = above - step
        # The level above is not less than the key, or there is none; the one below is less, or there is none.
        while above - below > 1:
            middle = (above + below) >> 1
            if levels[middle].key >= key:
                above = middle
            else:
                below = middle
        return above

    def first(self) -> Order | None:
        """The order that comes first; None when there is none."""
        return self.levels[-1].head if self.levels else None

    def best_price_ticks(self) -> int | None:
        """The best price in ticks; None when the side is empty."""
        return self.levels[-1].key * self.sign if self.levels else None

    def __iter__(self) -> Iterator[Order]:
        """The orders, best price first and within a price first come first."""
        for level in reversed(self.levels):
            yield from level


class OrderBook:
    """One symbol's resting orders, waiting stop orders, and their users.

    Attributes:
        open_orders: resting and waiting orders of all books of the partition by id.
        count: number of them in this book.
        symbol_id: the symbol's.
        accounts: users that have any of them, and some that had: many come back for each order.
        last_ticks: price of the last trade.
        expiries: when orders expire, by offset.
        deadlines: when all orders of a user are cancelled, by user id.
        next_due: a moment before which neither an expiry nor a deadline is due.
    """

    __slots__ = (
        "_idle",
        "accounts",
        "asks",
        "bids",
        "buy_stops",
        "count",
        "deadlines",
        "expiries",
        "expiring",
        "last_ticks",
        "next_due",
        "open_orders",
        "sell_stops",
        "symbol_id",
    )

    def __init__(self, symbol_id: int, open_orders: OpenOrders) -> None:
        self.symbol_id = symbol_id
        self.open_orders = open_orders
        self.count = 0
        self.bids = BookSide(1)
        self.asks = BookSide(-1)
        # A rising price meets the lowest buy stop first, a falling one the highest sell stop.
        self.buy_stops = BookSide(-1)
        self.sell_stops = BookSide(1)
        self.accounts: dict[int, Account] = {}
        self._idle = 0
        self.last_ticks: int | None = None
        self.expiries = Timers()
        self.expiring: dict[int, Order] = {}
        self.deadlines = Timers()
        self.next_due = NEVER

    def __del__(self) -> None:
        """Take down the ways that lead around."""
        for level in self.levels():
            for order in level:
                order.previous = order.next = order.owner_previous = order.owner_next = order.level = None
        for account in self.accounts.values():
            account.head = None

    def levels(self) -> list[Level]:
        """The levels of all sides."""
        return [*self.bids.levels, *self.asks.levels, *self.buy_stops.levels, *self.sell_stops.levels]

    def order(self, order_id: str) -> Order | None:
        """The order of this book with this id."""
        order = self.open_orders.get(order_id)
        return order if order is not None and order.account.symbol_id == self.symbol_id else None

    def account(self, user_id: int) -> Account:
        """The user's account; a new one is kept only once an order is added to it."""
        account = self.accounts.get(user_id)
        return Account(user_id, self.symbol_id) if account is None else account

    def side_of(self, order: Order) -> BookSide:
        """Where ``order`` rests or waits."""
        if order.waiting:
            return self.buy_stops if order.side == BUY else self.sell_stops
        return self.bids if order.side == BUY else self.asks

    def add(self, order: Order) -> None:
        """Put a new order behind all others at its price, and let it be found."""
        self.side_of(order).append(order)
        self.open_orders.add(order)
        self.count += 1
        account = order.account
        if not account.listed:
            # There may be another one by now.
            order.account = account = self.accounts.setdefault(account.user_id, account)
        if account.listed and account.count == 0:
            self._idle -= 1
        account.listed = True
        account.count += 1
        following = account.head
        if following is not None:
            following.owner_previous = order
            order.owner_next = following
        account.head = order
        expires_at = order.terms.expires_at
        if expires_at is not None:
            self.expiring[order.offset] = order
            self.expiries.set(order.offset, expires_at)
            self.next_due = min(self.next_due, expires_at)

    def forget(self, order: Order) -> None:
        """Let an order that stands at no price any more not be found either."""
        self.open_orders.remove(order)
        self.count -= 1
        account = order.account
        account.count -= 1
        if account.count == 0:
            self._idle += 1
            if 2 * self._idle > len(self.accounts) + _IDLE_ACCOUNTS_MAX:
                self._drop_idle_accounts()
        previous, following = order.owner_previous, order.owner_next
        order.owner_previous = order.owner_next = None
        if previous is None:
            account.head = following
        else:
            previous.owner_next = following
        if following is not None:
            following.owner_previous = previous
        if order.terms.expires_at is not None:
            self.expiries.drop(order.offset)
            del self.expiring[order.offset]

    def _drop_idle_accounts(self) -> None:
        idle = [account for account in self.accounts.values() if account.count == 0]
        for account in idle:
            account.listed = False
            del self.accounts[account.user_id]
        self._idle = 0

    def set_deadline(self, user_id: int, deadline: int | None) -> None:
        """Let the user's orders be cancelled at ``deadline`` (milliseconds); None: not any more."""
        if deadline is None:
            self.deadlines.drop(user_id)
        else:
            self.deadlines.set(user_id, deadline)
            self.next_due = min(self.next_due, deadline)

    def take_due(self, now: int) -> tuple[list[Order], list[int]]:
        """The orders that expire and the users whose orders are all to be cancelled, by the time ``now``."""
        orders = [self.expiring[offset] for offset in self.expiries.take_due(now)]
        users = self.deadlines.take_due(now)
        self.next_due = min(self.expiries.first(), self.deadlines.first())
        return orders, users
