"""The order book of one symbol: price levels, and a queue of orders at each, first come first served."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from forkast_streams.engine.commands import BUY


class Order:
    """A resting order.

    Attributes:
        offset: input offset of the command that placed it: its identity in checkpoints.
        rank: queue position, counted up over the partition; it changes when the order loses its place.
        quantity: total in lots; ``remaining`` of it is open.
        timestamp: milliseconds at which the log took the order.
        saved: whether a checkpoint already has it.
    """

    __slots__ = (
        "client_order_id",
        "id",
        "next",
        "offset",
        "previous",
        "price_ticks",
        "quantity",
        "rank",
        "remaining",
        "saved",
        "side",
        "symbol_id",
        "timestamp",
        "user_id",
    )

    def __init__(
        self,
        offset: int,
        symbol_id: int,
        order_id: str,
        user_id: int,
        side: str,
        price_ticks: int,
        quantity: int,
        remaining: int,
        timestamp: int,
        client_order_id: str | None,
    ) -> None:
        self.offset = offset
        self.symbol_id = symbol_id
        self.id = order_id
        self.user_id = user_id
        self.side = side
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.remaining = remaining
        self.timestamp = timestamp
        self.client_order_id = client_order_id
        self.rank = 0
        self.saved = False
        self.previous: Order | None = None
        self.next: Order | None = None


class Level:
    """The orders at one price: a linked list, so that any of them leaves at the same small cost."""

    __slots__ = ("head", "tail")

    def __init__(self, order: Order) -> None:
        self.head: Order | None = order
        self.tail: Order = order

    def __iter__(self) -> Iterator[Order]:
        order = self.head
        while order is not None:
            yield order
            order = order.next


class BookSide:
    """One side of a book.

    ``keys`` are the prices times ``sign``, ascending, so that on both sides the best price is last, where a list
    grows and shrinks for free.
    """

    __slots__ = ("keys", "levels", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.keys: list[int] = []
        self.levels: dict[int, Level] = {}

    def append(self, order: Order) -> None:
        """Put ``order`` at the back of the queue at its price."""
        key = order.price_ticks * self.sign
        level = self.levels.get(key)
        if level is None:
            self.levels[key] = Level(order)
            keys = self.keys
            if not keys or key > keys[-1]:
                keys.append(key)
            else:
                insort(keys, key)
            return
        tail = level.tail
        tail.next = order
        order.previous = tail
        level.tail = order

    def remove(self, order: Order) -> None:
        """Take ``order`` out, wherever in its queue it stands."""
        key = order.price_ticks * self.sign
        level = self.levels[key]
        previous, following = order.previous, order.next
        order.previous = order.next = None
        if previous is None:
            if following is None:
                self.drop_level(key)
                return
            level.head = following
            following.previous = None
        else:
            previous.next = following
            if following is None:
                level.tail = previous
            else:
                following.previous = previous

    def drop_level(self, key: int) -> None:
        """Forget the empty level at ``key``."""
        del self.levels[key]
        keys = self.keys
        if keys[-1] == key:
            keys.pop()
        else:
            del keys[bisect_left(keys, key)]

    def best_price_ticks(self) -> int | None:
        """The best price in ticks; None when the side is empty."""
        return self.keys[-1] * self.sign if self.keys else None

    def __iter__(self) -> Iterator[Order]:
        """The orders, best price first and within a price first come first."""
        for key in reversed(self.keys):
            yield from self.levels[key]


class OrderBook:
    """Both sides of one symbol's book and its orders by id."""

    __slots__ = ("asks", "bids", "orders")

    def __init__(self) -> None:
        self.bids = BookSide(1)
        self.asks = BookSide(-1)
        self.orders: dict[str, Order] = {}

    def side(self, side: str) -> BookSide:
        """The side on which orders of ``side`` rest."""
        return self.bids if side == BUY else self.asks
