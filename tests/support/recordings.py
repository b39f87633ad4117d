"""Recordings in LOBSTER's format: the real samples where they are at hand, and made-up ones everywhere.

LOBSTER's samples may not be copied into this project. They are looked for in ``shared/data/lobster`` beside the
project's folder, or where FORKAST_LOBSTER_DATA says.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "lobster"
REAL = Path(os.environ.get("FORKAST_LOBSTER_DATA", _BESIDE))
HOUR = REAL / "AAPL_2012-06-21_34200000_37800000_message_50.csv.xz"
TEN_LEVELS = REAL / "AAPL_2012-06-21_34200000_57600000_message_10.csv"
TEN_LEVELS_BOOK = REAL / "AAPL_2012-06-21_34200000_57600000_orderbook_10.csv"

_BUY, _SELL = 1, -1
_START = 34_200_000_000_000


@dataclass
class _Order:
    direction: int
    price: int
    size: int


@dataclass
class MadeUpDay:
    """A made-up exchange that writes down what happens, as LOBSTER does; prices are in 1/10000 dollar.

    Attributes:
        orders: what rests, by id, in order of arrival.
        messages: rows of the message file.
        states: rows of the order book file with ``depth`` levels.
    """

    depth: int = 3
    orders: dict[int, _Order] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    next_id: int = 1_000

    def place(self, direction: int, price: int, size: int) -> int:
        """A new order; one from before the recording starts is placed by `arrive`."""
        order_id = self.arrive(direction, price, size)
        self._write(1, order_id, size, self.orders[order_id])
        return order_id

    def arrive(self, direction: int, price: int, size: int) -> int:
        """A new order that the recording does not show."""
        self.next_id += 3
        self.orders[self.next_id] = _Order(direction, price, size)
        return self.next_id

    def reduce(self, order_id: int, size: int) -> None:
        self.orders[order_id].size -= size
        self._write(2, order_id, size, self.orders[order_id])

    def delete(self, order_id: int) -> None:
        order = self.orders.pop(order_id)
        self._write(3, order_id, order.size, order)

    def execute(self, order_id: int, size: int) -> None:
        order = self.orders[order_id]
        order.size -= size
        if not order.size:
            del self.orders[order_id]
        self._write(4, order_id, size, order)

    def execute_hidden(self) -> None:
        self._write(5, 0, 7, _Order(_BUY, 1_000_050, 7))

    def first_in_queue(self, direction: int) -> int | None:
        """The order that has to trade next."""
        side = {i: order for i, order in self.orders.items() if order.direction == direction}
        return min(side, key=lambda i: (-direction * side[i].price, i), default=None)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write the two files."""
        messages, states = folder / "message.csv", folder / "orderbook.csv"
        messages.write_text("".join(self.messages))
        states.write_text("".join(self.states))
        return messages, states

    def _write(self, kind: int, order_id: int, size: int, order: _Order) -> None:
        at = _START + len(self.messages) * 1_000_000
        time = f"{at // 10**9}.{at % 10**9:09d}"
        self.messages.append(f"{time},{kind},{order_id},{size},{order.price},{order.direction}\n")
        asks, bids = self._levels(_SELL), self._levels(_BUY)
        cells = [f"{ask[0]},{ask[1]},{bid[0]},{bid[1]}" for ask, bid in zip(asks, bids, strict=True)]
        self.states.append(",".join(cells) + "\n")

    def _levels(self, direction: int) -> list[tuple[int, int]]:
        levels: dict[int, int] = {}
        for order in self.orders.values():
            if order.direction == direction:
                levels[order.price] = levels.get(order.price, 0) + order.size
        best_first = sorted(levels.items(), reverse=direction == _BUY)[: self.depth]
        return best_first + [(-direction * 9_999_999_999, 0)] * (self.depth - len(best_first))


def made_up_day(messages: int = 2_000, *, seed: int = 1) -> MadeUpDay:
    """A busy day; some orders rest before it starts."""
    chance, day = random.Random(seed), MadeUpDay()
    for level in range(4):
        day.arrive(_BUY, 999_900 - 100 * level, 50)
        day.arrive(_SELL, 1_000_100 + 100 * level, 50)
    while len(day.messages) < messages:
        kind = chance.random()
        order_id = chance.choice(list(day.orders))
        direction = chance.choice([_BUY, _SELL])
        first = day.first_in_queue(direction)
        if kind < 0.5 or len(day.orders) < 8 or first is None:
            other = day.first_in_queue(-direction)
            best = day.orders[other].price if other else 1_000_000
            day.place(direction, best - direction * 100 * chance.randint(1, 6), chance.randint(1, 20))
        elif kind < 0.55 and day.orders[order_id].size > 1:
            day.reduce(order_id, chance.randint(1, day.orders[order_id].size - 1))
        elif kind < 0.8:
            day.delete(order_id)
        elif kind < 0.97:
            day.execute(first, chance.randint(1, day.orders[first].size))
        else:
            day.execute_hidden()
    return day
