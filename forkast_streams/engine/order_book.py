"""The order book of one symbol: price levels, and a queue of orders at each, first come first served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mypy_extensions import i64

from forkast_streams.engine.commands import BUY
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Level, Order, UserOrders
from forkast_streams.engine.timers import NEVER, Timers

# Users without orders that a book keeps at most, besides as many as there are with orders.
_IDLE_USERS_MAX: Final = 1_000
# Levels of a list.
_LIST_MAX: Final = 512


class BookSide:
    """Orders of one side by price, those that rest or those that wait for a stop price.

    Levels are ascending by the price times ``sign``. The last list has the one that comes first at its end, where a
    list grows and shrinks for free; no list is long, because each level in it that comes or goes moves those behind it.

    Attributes:
        sign: 1 where the highest price comes first, -1 where the lowest does.
        levels: the last list; always the same one, and empty only when there are no orders.
        farther: the lists before it, none of them empty.
    """

    __slots__ = ("farther", "levels", "sign")

    def __init__(self, sign: i64) -> None:
        self.sign = sign
        self.levels: list[Level] = []
        self.farther: list[list[Level]] = []

    def append(self, order: Order) -> None:
        """Put ``order`` at the back of the queue at its price."""
        key: i64 = order.price_ticks * self.sign
        number = self._number_of(key)
        levels = self._list(number)
        at = _place_of(levels, key)
        level = levels[at] if at < len(levels) else None
        if level is None or level.key != key:
            order.level = level = Level(key, order)
            levels.insert(at, level)
            if len(levels) > _LIST_MAX:
                self._split(number)
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
        if levels[-1].key == key:
            levels.pop()
            if not levels and self.farther:
                levels.extend(self.farther.pop())
            return
        number = self._number_of(key)
        levels = self._list(number)
        del levels[_place_of(levels, key)]
        if not levels:
            del self.farther[number]

    def _number_of(self, key: i64) -> i64:
        """Which list the level with ``key`` is in or belongs to; that of ``levels`` is the last one's."""
        farther = self.farther
        above: i64 = len(farther)
        if above == 0 or self.levels[0].key <= key:
            return above
        below: i64 = 0
        # The list above begins behind the key; the one below does not, or is the first.
        while above - below > 1:
            middle = (above + below) >> 1
            if farther[middle][0].key <= key:
                below = middle
            else:
                above = middle
        return below

    def _list(self, number: i64) -> list[Level]:
        return self.levels if number == len(self.farther) else self.farther[number]

    def _split(self, number: i64) -> None:
        """Make two of a list that has become too long."""
        levels = self._list(number)
        half = len(levels) // 2
        self.farther.insert(number, levels[:half])
        del levels[:half]

    def first(self) -> Order | None:
        """The order that comes first; None when there is none."""
        return self.levels[-1].head if self.levels else None

    def best_price_ticks(self) -> int | None:
        """The best price in ticks; None when the side is empty."""
        return self.levels[-1].key * self.sign if self.levels else None

    def nearest(self) -> Iterator[Level]:
        """The levels, best price first."""
        yield from reversed(self.levels)
        for levels in reversed(self.farther):
            yield from reversed(levels)

    def __iter__(self) -> Iterator[Order]:
        """The orders, best price first and within a price first come first."""
        for level in self.nearest():
            yield from level


def _place_of(levels: list[Level], key: i64) -> i64:
    """The place of the level with ``key``, or where it belongs; fast near the end, where most happens."""
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


class OrderBook:
    """One symbol's resting orders, waiting stop orders, and their users.

    Attributes:
        open_orders: resting and waiting orders of all books of the partition by id.
        count: number of them in this book.
        symbol_id: the symbol's.
        users: those who have any of them, by id, and some who had: many come back for each order.
        last_ticks: price of the last trade.
        expiries: when orders expire, by offset.
        deadlines: when all orders of a user are cancelled, by user id.
        next_due: a moment before which neither an expiry nor a deadline is due.
    """

    __slots__ = (
        "_idle",
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
        "users",
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
        self.users: dict[int, UserOrders] = {}
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
        for owner in self.users.values():
            owner.head = None

    def levels(self) -> list[Level]:
        """The levels of all sides."""
        sides = (self.bids, self.asks, self.buy_stops, self.sell_stops)
        return [level for side in sides for level in side.nearest()]

    def order(self, order_id: str) -> Order | None:
        """The order of this book with this id."""
        order = self.open_orders.get(order_id)
        return order if order is not None and order.owner.symbol_id == self.symbol_id else None

    def orders_of(self, user_id: int) -> UserOrders:
        """The user's orders; a new user is kept only once an order is added."""
        orders = self.users.get(user_id)
        return UserOrders(user_id, self.symbol_id) if orders is None else orders

    def side_of(self, order: Order) -> BookSide:
        """Where ``order`` rests or waits."""
        if order.waiting:
            return self.buy_stops if order.side == BUY else self.sell_stops
        return self.bids if order.side == BUY else self.asks

    def makers_for(self, side: str) -> BookSide:
        """What an order of ``side`` trades with."""
        return self.asks if side == BUY else self.bids

    def add(self, order: Order) -> None:
        """Put a new order behind all others at its price, and let it be found."""
        self.side_of(order).append(order)
        self.open_orders.add(order)
        self.count += 1
        owner = order.owner
        if not owner.listed:
            # There may be another one by now.
            order.owner = owner = self.users.setdefault(owner.user_id, owner)
        if owner.listed and owner.count == 0:
            self._idle -= 1
        owner.listed = True
        owner.count += 1
        following = owner.head
        if following is not None:
            following.owner_previous = order
            order.owner_next = following
        owner.head = order
        expires_at = order.terms.expires_at
        if expires_at is not None:
            self.expiring[order.offset] = order
            self.expiries.set(order.offset, expires_at)
            self.next_due = min(self.next_due, expires_at)

    def forget(self, order: Order) -> None:
        """Let an order that stands at no price any more not be found either."""
        self.open_orders.remove(order)
        self.count -= 1
        owner = order.owner
        owner.count -= 1
        if owner.count == 0:
            self._idle += 1
            if 2 * self._idle > len(self.users) + _IDLE_USERS_MAX:
                self._drop_idle_users()
        previous, following = order.owner_previous, order.owner_next
        order.owner_previous = order.owner_next = None
        if previous is None:
            owner.head = following
        else:
            previous.owner_next = following
        if following is not None:
            following.owner_previous = previous
        if order.terms.expires_at is not None:
            self.expiries.drop(order.offset)
            del self.expiring[order.offset]

    def _drop_idle_users(self) -> None:
        idle = [owner for owner in self.users.values() if owner.count == 0]
        for owner in idle:
            owner.listed = False
            del self.users[owner.user_id]
        self._idle = 0

    def set_deadline(self, user_id: int, deadline: int | None) -> None:
        """Let the user's orders be cancelled at ``deadline`` (milliseconds); None: not any more."""
        if deadline is None:
            self.deadlines.drop(user_id)
        else:
            self.deadlines.set(user_id, deadline)
            self.next_due = min(self.next_due, deadline)

    def drain_due(self, now: int, *, halted: bool) -> tuple[list[Order], list[int]]:
        """The orders that expire and the users whose orders are all to be cancelled, by the time ``now``.

        While the symbol is halted the users' deadlines wait, see `look_for_due`.
        """
        orders = [self.expiring[offset] for offset in self.expiries.drain_due(now)]
        users = [] if halted else self.deadlines.drain_due(now)
        self.look_for_due(halted=halted)
        return orders, users

    def look_for_due(self, *, halted: bool) -> None:
        """Find ``next_due`` anew: while the symbol is halted no deadline is due, and after that at once."""
        self.next_due = self.expiries.first() if halted else min(self.expiries.first(), self.deadlines.first())
