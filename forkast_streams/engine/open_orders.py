"""The open orders of a partition by their ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from librt.vecs import append, pop, vec
from mypy_extensions import i32, i64

from forkast_streams.engine.id_keys import (
    PARTS,
    OrderKey,
    home_of,
    is_crowded,
    mix,
    more_places,
    order_key,
    part_of,
    tag_of,
)
from forkast_streams.engine.order import Order

# A place of the table holds a tag, and below it a number of so many bits.
_NUMBER_BITS: Final[i64] = 31
_NUMBER: Final[i64] = (1 << 31) - 1


class OpenOrders:
    """Resting and waiting orders by id, in no order that means anything.

    With a million orders nearly each step to another place of the memory is a wait. A dict of Python's takes a step
    for its index, one for its entry and two for the text it compares; here tag and number of an order are side by side.

    Attributes:
        count: number of orders.
    """

    __slots__ = ("_free", "_orders", "_parts", "count")

    def __init__(self) -> None:
        self.count = 0
        self._parts = [_Part() for _ in range(PARTS)]
        # By number, from 1 on. Numbers are given again, the last one first: most orders come and go while others stay.
        self._orders: list[Order | None] = [None]
        self._free = vec[i64]()

    def get(self, order_id: str) -> Order | None:
        """The order with this id, if it is there."""
        return self.find(order_key(order_id))

    def find(self, key: OrderKey) -> Order | None:
        """The order whose id has this key, if it is there."""
        high, low = key
        mixed = mix(key)
        slots = self._parts[part_of(mixed)].slots
        end: i64 = len(slots)
        tag = tag_of(mixed)
        at = home_of(tag, end)
        while (there := slots[at]) != 0:
            if there >> _NUMBER_BITS == tag:
                order = self._orders[there & _NUMBER]
                if order is not None and order.key[0] == high and order.key[1] == low:
                    return order
            at += 1
            if at == end:
                at = 0
        return None

    def add(self, order: Order) -> None:
        """Put in ``order``, whose id must not be there."""
        number: i64 = len(self._orders)
        if len(self._free) > 0:
            self._free, number = pop(self._free)
            self._orders[number] = order
        else:
            self._orders.append(order)
        order.number = i32(number)
        mixed = mix(order.key)
        self._parts[part_of(mixed)].add(tag_of(mixed) << _NUMBER_BITS | number)
        self.count += 1

    def remove(self, order: Order) -> None:
        """Take out ``order``, which must be there."""
        number = i64(order.number)
        mixed = mix(order.key)
        self._parts[part_of(mixed)].remove(tag_of(mixed) << _NUMBER_BITS | number)
        self._orders[number] = None
        self._free = append(self._free, number)
        self.count -= 1

    def __iter__(self) -> Iterator[Order]:
        """The orders by number, which is about the order in which they lie in memory.

        Whoever iterates may add and remove some: those that are there all the time come once.
        """
        number: i64 = 1
        while number < len(self._orders):
            order = self._orders[number]
            if order is not None:
                yield order
            number += 1


class _Part:
    """Some of the orders: tags with numbers, 0 where a place is free."""

    __slots__ = ("_count", "slots")

    def __init__(self) -> None:
        self._count: i64 = 0
        self.slots = vec[i64]([0])

    def add(self, entry: i64) -> None:
        """Put an order in."""
        if is_crowded(self._count + 1, len(self.slots)):
            self._grow()
        _put(self.slots, entry)
        self._count += 1

    def remove(self, entry: i64) -> None:
        """Take an order out, and put those behind it that would not be found any more where they are."""
        slots = self.slots
        end: i64 = len(slots)
        at = home_of(entry >> _NUMBER_BITS, end)
        while (there := slots[at]) != entry:
            assert there != 0, "only an order that is there is taken out"
            at += 1
            if at == end:
                at = 0
        behind = at
        while True:
            behind += 1
            if behind == end:
                behind = 0
            following = slots[behind]
            if following == 0:
                break
            # From its home on, an entry is looked for until a free place.
            passed = behind - home_of(following >> _NUMBER_BITS, end)
            distance = behind - at
            if (passed if passed >= 0 else passed + end) >= (distance if distance >= 0 else distance + end):
                slots[at] = following
                at = behind
        slots[at] = 0
        self._count -= 1

    def _grow(self) -> None:
        old = self.slots
        self.slots = slots = vec[i64]([0] * more_places(len(old)))
        for entry in old:
            if entry != 0:
                _put(slots, entry)


def _put(slots: vec[i64], entry: i64) -> None:
    end: i64 = len(slots)
    at = home_of(entry >> _NUMBER_BITS, end)
    while slots[at] != 0:
        at += 1
        if at == end:
            at = 0
    slots[at] = entry
