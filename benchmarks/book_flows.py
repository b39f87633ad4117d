"""Flows of limit orders and cancels that every order book understands, for measuring books side by side.

Only orders that are open are cancelled, because some peers fail at others, and none on a level that has traded since
it was empty: nanobook 0.19.2 never returns from an order that meets such a cancelled one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

# Prices are in cents.
MIDDLE = 10_000
_LEVELS = 1_000


class Step(NamedTuple):
    """A limit order, or the cancel of an earlier one, which ``number`` names; ``quantity`` is 0 for a cancel."""

    number: int
    is_buy: bool
    cents: int
    quantity: int


class _OpenOrders:
    """Which orders are open: a plain book of its own, so that no measured one has a say in the flow."""

    def __init__(self) -> None:
        self.sides: dict[bool, dict[int, dict[int, int]]] = {True: {}, False: {}}
        self.numbers: list[int] = []
        self._place: dict[int, int] = {}
        self.steps: dict[int, Step] = {}
        self._traded: set[tuple[bool, int]] = set()

    def add(self, step: Step) -> None:
        """Match the order and keep what is left."""
        others, left = self.sides[not step.is_buy], step.quantity
        while left and others:
            best = min(others) if step.is_buy else max(others)
            if (best > step.cents) if step.is_buy else (best < step.cents):
                break
            level = others[best]
            self._traded.add((not step.is_buy, best))
            while left and level:
                number, resting = next(iter(level.items()))
                filled = min(left, resting)
                left -= filled
                if filled == resting:
                    self._forget(self.steps[number])
                else:
                    level[number] = resting - filled
        if left:
            self.sides[step.is_buy].setdefault(step.cents, {})[step.number] = left
            self.steps[step.number] = step
            self._place[step.number] = len(self.numbers)
            self.numbers.append(step.number)

    def has_traded(self, *, is_buy: bool, cents: int) -> bool:
        """Whether the level has traded since it was empty."""
        return (is_buy, cents) in self._traded

    def cancel_one(self, chance: random.Random) -> Step | None:
        """Take out a random open order whose level has not traded; return the cancel."""
        for _ in range(10):
            step = self.steps[self.numbers[chance.randrange(len(self.numbers))]]
            if not self.has_traded(is_buy=step.is_buy, cents=step.cents):
                self._forget(step)
                return step._replace(quantity=0)
        return None

    def _forget(self, step: Step) -> None:
        side = self.sides[step.is_buy]
        del side[step.cents][step.number]
        if not side[step.cents]:
            del side[step.cents]
            self._traded.discard((step.is_buy, step.cents))
        del self.steps[step.number]
        at, last = self._place.pop(step.number), self.numbers.pop()
        if last != step.number:
            self.numbers[at] = last
            self._place[last] = at


def shallow(count: int, *, first: int = 0, spread: int = 5) -> Iterator[Step]:
    """Orders around one price, about 60 of them open, many of which trade at once."""
    chance, book = random.Random(1), _OpenOrders()
    for number in range(first, first + count):
        cancels = len(book.numbers) > 20 and chance.random() < min(0.9, len(book.numbers) / 200)
        if cancels and (cancel := book.cancel_one(chance)) is not None:
            yield cancel
            continue
        off = max(-9, min(9, round(chance.gauss(0, spread))))
        step = Step(number, chance.random() < 0.5, MIDDLE + off, chance.randint(1, 100))
        book.add(step)
        yield step


def standing(count: int) -> Iterator[Step]:
    """Orders that never trade: a thousand levels a side, ten cents and more from the middle."""
    chance = random.Random(2)
    for number in range(count):
        is_buy = bool(number % 2)
        off = 10 + chance.randrange(_LEVELS)
        yield Step(number, is_buy, MIDDLE - off if is_buy else MIDDLE + off, chance.randint(1, 100))


def over_standing(count: int, resting: list[Step]) -> Iterator[Step]:
    """The shallow flow in the gap of the standing orders; a tenth of the commands cancels one of those."""
    chance = random.Random(3)
    victims = chance.sample(resting, min(len(resting), count // 10))
    for at, step in enumerate(shallow(count - len(victims), first=len(resting))):
        if at % 9 == 8 and victims:
            yield victims.pop()._replace(quantity=0)
        yield step


def sweeping(count: int) -> Iterator[Step]:
    """Twenty orders on twenty levels, then one that takes them all, by turns on both sides."""
    chance, number = random.Random(4), 0
    while number < count:
        is_buy = chance.random() < 0.5
        sign = -1 if is_buy else 1
        total = 0
        for level in range(1, 21):
            quantity = chance.randint(1, 10)
            total += quantity
            yield Step(number, is_buy, MIDDLE + sign * level, quantity)
            number += 1
        yield Step(number, not is_buy, MIDDLE + sign * 20, total)
        number += 1


def cancel_heavy(count: int) -> Iterator[Step]:
    """About 1,000 open orders; of all orders 95 % are cancelled, 5 % trade with one other each.

    A level that trades gets no more orders until it is empty: what nobody may cancel would pile up there.
    """
    chance, book = random.Random(5), _OpenOrders()
    number = 0
    while number < count:
        if len(book.numbers) >= 1_000:
            cancel = book.cancel_one(chance)
            assert cancel is not None, "only the best levels trade"
            yield cancel
        is_buy = chance.random() < 0.5
        takes = chance.random() < 0.025 and any(book.sides[not is_buy])
        cents = MIDDLE + (100 if is_buy else -100)
        while not takes:
            off = 1 + chance.randrange(20)
            cents = MIDDLE + (-off if is_buy else off)
            if not book.has_traded(is_buy=is_buy, cents=cents):
                break
        step = Step(number, is_buy, cents, 100)
        book.add(step)
        yield step
        number += 2


def make(name: str, commands: int, resting: int) -> tuple[list[Step], list[Step]]:
    """The standing orders of flow ``name``, to be loaded first, and the commands to be timed."""
    flows: dict[str, Callable[[int], Iterator[Step]]] = {
        "shallow": shallow,
        "sweeping": sweeping,
        "cancel-heavy": cancel_heavy,
    }
    if name == "deep":
        loaded = list(standing(resting))
        return loaded, list(over_standing(commands, loaded))
    return [], list(flows[name](commands))


NAMES = ("shallow", "deep", "sweeping", "cancel-heavy")
