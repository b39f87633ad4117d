"""An order, and where it stands: among its user's orders and at a price level of its book."""

from __future__ import annotations

from collections.abc import Iterator

from mypy_extensions import i32, i64, mypyc_attr

from forkast_streams.engine.id_keys import OrderKey, id_of
from forkast_streams.engine.order_terms import OrderTerms


# Orders, levels and users' orders lead to each other, and a book takes these ways down when it goes: so the garbage
# collector need not look at a million of them again and again.
@mypyc_attr(acyclic=True)
class UserOrders:
    """One user's orders in one book, in no order that means anything.

    Attributes:
        symbol_id: the book's.
        count: number of orders.
        listed: whether the book has it in its ``users``.
    """

    __slots__ = ("count", "head", "listed", "symbol_id", "user_id")

    def __init__(self, user_id: int, symbol_id: int) -> None:
        self.user_id = user_id
        self.symbol_id = symbol_id
        self.head: Order | None = None
        self.count = 0
        self.listed = False

    def __iter__(self) -> Iterator[Order]:
        order = self.head
        while order is not None:
            # Whoever iterates may remove the order.
            following = order.owner_next
            yield order
            order = following


@mypyc_attr(acyclic=True, free_list_len=1)
class Order:
    """An order that rests in the book, waits for its stop price, or is on its way into the book.

    Attributes:
        offset: input offset of the command that placed it: its identity in checkpoints.
        rank: queue position, counted up over the partition; it changes when the order loses its place.
        price_ticks: the price it stands at: its limit, and while it waits, its stop price.
        quantity: total in lots; ``remaining`` of it is open.
        hidden: the part of ``remaining`` that does not trade until what is shown has traded; 0 but for icebergs.
        waiting: whether it is a stop order that has not been triggered.
        saved: whether a checkpoint already has it.
        level: where it stands; None when it stands nowhere.
        text: its id, as long as it is in no checkpoint: afterwards it would be one more place of the memory to go to.
        key: its id as numbers.
        number: its place among the open orders.
        changed_at: its place among the orders that no checkpoint has as they are; -1 when it is not one of them.
    """

    __slots__ = (
        "changed_at",
        "hidden",
        "key",
        "level",
        "next",
        "number",
        "offset",
        "owner",
        "owner_next",
        "owner_previous",
        "previous",
        "price_ticks",
        "quantity",
        "rank",
        "remaining",
        "saved",
        "side",
        "terms",
        "text",
        "waiting",
    )

    def __init__(
        self,
        offset: int,
        text: str | None,
        key: OrderKey,
        owner: UserOrders,
        side: str,
        price_ticks: int,
        quantity: int,
        remaining: int,
        terms: OrderTerms,
    ) -> None:
        # What the neighbours of an order that goes are asked for comes first: it is in the memory line of their head.
        self.previous: Order | None = None
        self.next: Order | None = None
        self.owner_previous: Order | None = None
        self.owner_next: Order | None = None
        self.level: Level | None = None
        self.text = text
        self.owner = owner
        self.side = side
        self.price_ticks = price_ticks
        self.quantity = quantity
        self.remaining = remaining
        self.terms = terms
        self.hidden = 0
        self.key = key
        self.number: i32 = 0
        self.changed_at: i32 = -1
        self.offset = offset
        self.rank = 0
        self.waiting = False
        self.saved = False

    @property
    def id(self) -> str:
        """What its user calls it."""
        return id_of(self.key) if self.text is None else self.text

    @property
    def symbol_id(self) -> int:
        """The symbol of its book."""
        return self.owner.symbol_id

    @property
    def shown(self) -> int:
        """The open quantity that counts at its price."""
        return 0 if self.waiting else self.remaining - self.hidden

    @property
    def limit_ticks(self) -> int | None:
        """The limit price; None for an order that takes any."""
        if self.waiting or self.terms.any_price:
            return self.terms.limit_ticks
        return self.price_ticks


@mypyc_attr(acyclic=True, free_list_len=1)
class Level:
    """The orders at one price: a linked list, so that any of them leaves at the same small cost.

    Attributes:
        key: the price in ticks, with the sign of the side.
    """

    __slots__ = ("head", "key", "open_quantity", "tail")

    def __init__(self, key: i64, order: Order) -> None:
        self.key = key
        self.head: Order | None = order
        self.tail: Order = order
        self.open_quantity = order.remaining

    def __iter__(self) -> Iterator[Order]:
        order = self.head
        while order is not None:
            # Whoever iterates may remove the order.
            following = order.next
            yield order
            order = following
