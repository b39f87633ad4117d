"""Depth and tape of one symbol, folded from its events."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Self

import msgspec

from forkast_streams.engine.commands import BUY, SELL
from forkast_streams.engine.events import FILLED
from forkast_streams.engine.symbols import Grid
from forkast_streams.errors import CorruptLog
from forkast_streams.limits import QUANTITY_MAX, TAPE_TRADES
from forkast_streams.market_data.changes import GONE, BookChange, LevelState, Trade
from forkast_streams.wire_events import (
    AmendEvent,
    CancelEvent,
    OrderEvent,
    ShowEvent,
    SymbolEvent,
    TradeEvent,
    WireEvent,
)


class Level:
    """What is open at one price: ``quantity`` in lots, and the number of orders."""

    __slots__ = ("orders", "quantity")

    def __init__(self, quantity: int = 0, orders: int = 0) -> None:
        self.quantity = quantity
        self.orders = orders


class BookSide:
    """The levels of one side by price text, which is unique as a symbol's prices have one number of decimals.

    Attributes:
        levels: what is open; inside a command also levels at which orders have nothing to show yet.
        changed: the levels that changed since the last change of the book was drained.
        hollow: of both sides, with its side and price, each level at which orders had nothing to show; to be looked at
            when the command is complete.
    """

    __slots__ = ("changed", "hollow", "levels", "name")

    def __init__(self, name: str, hollow: list[tuple[str, str, Level]]) -> None:
        self.name = name
        self.levels: dict[str, Level] = {}
        self.changed: dict[str, Level] = {}
        self.hollow = hollow

    def add(self, price: str, quantity: int, orders: int) -> bool:
        """Add ``quantity`` lots of ``orders`` more orders, 1 or 0; False when that cannot be."""
        level = self.levels.get(price)
        if level is None:
            if not orders:
                return False
            level = self.levels[price] = Level()
        level.quantity += quantity
        level.orders += orders
        self.changed[price] = level
        return quantity > 0

    def remove(self, price: str, quantity: int, orders: int) -> bool:
        """Take off ``quantity`` lots of ``orders`` orders that leave, 1 or 0; False when there is not that much."""
        level = self.levels.get(price)
        if level is None:
            return False
        level.quantity -= quantity
        level.orders -= orders
        self.changed[price] = level
        if level.quantity > 0 and level.orders > 0:
            return quantity > 0
        if level.quantity < 0 or level.orders < 0:
            return False
        if level.orders:
            # An iceberg whose slice is gone shows the next one before the command is over.
            self.hollow.append((self.name, price, level))
            return True
        del self.levels[price]
        return level.quantity == 0

    def states(self, levels: dict[str, Level], lots: Grid) -> dict[str, LevelState]:
        """``levels`` with their quantities as text."""
        return {
            price: (lots.text(level.quantity), level.orders) if level.orders else GONE
            for price, level in levels.items()
        }


class SymbolBook:
    """Depth and tape of a symbol at the last consistent moment.

    Attributes:
        born: timestamp of the first event.
        sequence: the last event that is folded in; always the last of its command.
        pending: events of a command that is not complete yet.
        published: the sequence of the last change that was drained.
        trade_count: all trades so far; the trade with number n is in ``ring[n % TAPE_TRADES]``.
    """

    def __init__(self, symbol_id: int, born: int) -> None:
        self.id = symbol_id
        self.born = born
        self.sequence = 0
        self.timestamp = born
        self.pending: list[WireEvent] = []
        self._hollow: list[tuple[str, str, Level]] = []
        self.buy = BookSide(BUY, self._hollow)
        self.sell = BookSide(SELL, self._hollow)
        self.ring: list[Trade] = []
        self.trade_count = 0
        self._lot_size = "1"
        self._lots = Grid(Decimal(1), QUANTITY_MAX)
        self.published = 0
        self._new_trades: list[Trade] = []
        self._defined = False

    @property
    def seen(self) -> int:
        """The sequence of the last event that arrived."""
        return self.pending[-1].sequence if self.pending else self.sequence

    @property
    def size(self) -> list[int]:
        """The numbers of levels to buy and to sell."""
        return [len(self.buy.levels), len(self.sell.levels)]

    def add(self, event: WireEvent) -> bool:
        """Take the next event; return whether the book is at a new consistent moment.

        Raises:
            CorruptLog: the events contradict the book.
        """
        source = event.source
        if source.index + 1 < source.count:
            self.pending.append(event)
            return False
        if self.pending:
            for earlier in self.pending:
                self._fold(earlier)
            self.pending.clear()
        self._fold(event)
        if self._hollow:
            self._check_hollow(event)
        self.sequence, self.timestamp = event.sequence, event.timestamp
        return True

    def drain_change(self) -> BookChange | None:
        """What changed since the last call; None when nothing that can be seen did."""
        buy, sell, trades = self.buy.changed, self.sell.changed, self._new_trades
        if not (buy or sell or trades or self._defined):
            return None
        self.buy.changed, self.sell.changed, self._new_trades, self._defined = {}, {}, [], False
        previous, self.published = self.published, self.sequence
        return self._change(previous, buy, sell, trades[-TAPE_TRADES:])

    def whole(self) -> BookChange:
        """The book and the tape as a change that needs nothing before it."""
        return self._change(0, self.buy.levels, self.sell.levels, self.tape())

    def tape(self) -> list[Trade]:
        """The last trades, oldest first."""
        cut = self.trade_count % TAPE_TRADES if self.trade_count > TAPE_TRADES else 0
        return self.ring[cut:] + self.ring[:cut]

    def _change(self, previous: int, buy: dict[str, Level], sell: dict[str, Level], trades: list[Trade]) -> BookChange:
        return BookChange(
            self.id,
            self.born,
            previous,
            self.sequence,
            self.timestamp,
            self.buy.states(buy, self._lots),
            self.sell.states(sell, self._lots),
            trades,
        )

    def _fold(self, event: WireEvent) -> None:
        # By how often they come.
        if isinstance(event, OrderEvent):
            order = event.data
            # Stop orders and icebergs show themselves later, if at all.
            if order.price is not None and order.stop_price is None and order.display_quantity is None:
                self._add(event, order.side, order.price, self._lots.units(order.quantity or "0"), 1)
        elif isinstance(event, TradeEvent):
            self._fold_trade(event)
        elif isinstance(event, CancelEvent):
            self._fold_cancel(event)
        elif isinstance(event, AmendEvent):
            self._fold_amend(event)
        elif isinstance(event, ShowEvent):
            shown = event.data
            self._add(event, shown.side, shown.price, self._lots.units(shown.quantity), 0 if shown.refill else 1)
        elif isinstance(event, SymbolEvent):
            self._set_lot_size(event.data.lot_size)
            self._defined = True

    def _fold_trade(self, event: TradeEvent) -> None:
        data = event.data
        quantity = self._lots.units(data.quantity)
        buyer_is_taker = data.taker_side == BUY
        buy_price = data.taker_price if buyer_is_taker else data.price
        sell_price = data.price if buyer_is_taker else data.taker_price
        if buy_price is not None:
            self._remove(event, BUY, buy_price, quantity, 1 if data.buy_status == FILLED else 0)
        if sell_price is not None:
            self._remove(event, SELL, sell_price, quantity, 1 if data.sell_status == FILLED else 0)
        self._record(Trade(data.trade_id, data.price, data.quantity, data.taker_side, event.timestamp, event.sequence))

    def _fold_cancel(self, event: CancelEvent) -> None:
        data = event.data
        if data.price is None:
            return
        shown = data.quantity or "0" if data.shown_quantity is None else data.shown_quantity
        if data.shown_quantity is None or not _is_zero(shown):
            self._remove(event, data.side, data.price, self._lots.units(shown), 1)

    def _fold_amend(self, event: AmendEvent) -> None:
        data, units = event.data, self._lots.units
        # A STOP has no price and is in no level; nor is what shows nothing.
        if data.previous_price is None or data.price is None:
            return
        filled = units(data.filled_quantity)
        if data.previous_shown_quantity is None:
            self._remove(event, data.side, data.previous_price, units(data.previous_quantity) - filled, 1)
        elif not _is_zero(data.previous_shown_quantity):
            self._remove(event, data.side, data.previous_price, units(data.previous_shown_quantity), 1)
        if data.shown_quantity is None:
            self._add(event, data.side, data.price, units(data.quantity) - filled, 1)
        elif not _is_zero(data.shown_quantity):
            self._add(event, data.side, data.price, units(data.shown_quantity), 1)

    def _add(self, event: WireEvent, side: str, price: str, quantity: int, orders: int) -> None:
        if not self._side(side).add(price, quantity, orders):
            raise self._contradiction(event, f"adds nothing to {side} {price}, or to an order that is not there")

    def _remove(self, event: WireEvent, side: str, price: str, quantity: int, orders: int) -> None:
        if not self._side(side).remove(price, quantity, orders):
            raise self._contradiction(event, f"takes more from {side} {price} than is open there, or nothing")

    def _check_hollow(self, event: WireEvent) -> None:
        for side, price, level in self._hollow:
            if level.orders and not level.quantity:
                raise self._contradiction(
                    event, f"ends a command that leaves {side} {price} with orders that show nothing"
                )
        self._hollow.clear()

    def _contradiction(self, event: WireEvent, what: str) -> CorruptLog:
        return CorruptLog(
            f"symbol {self.id}: the event with sequence {event.sequence} {what}; stop and look at what wrote it."
        )

    def _side(self, side: str) -> BookSide:
        return self.buy if side == BUY else self.sell

    def _record(self, trade: Trade) -> None:
        slot = self.trade_count % TAPE_TRADES
        if slot == len(self.ring):
            self.ring.append(trade)
        else:
            self.ring[slot] = trade
        self.trade_count += 1
        self._new_trades.append(trade)

    def _set_lot_size(self, lot_size: str) -> None:
        # The engine changes it only while the book is empty, so that no level holds other lots than these.
        if lot_size != self._lot_size:
            self._lot_size = lot_size
            self._lots = Grid(Decimal(lot_size), QUANTITY_MAX)

    def head(self) -> list[Any]:
        """All but levels and tape, and the numbers of these; as if what is pending had not arrived yet."""
        return [
            self.id,
            self.born,
            self.sequence,
            self.timestamp,
            # Once the last price: a place that older checkpoints fill.
            None,
            self._lot_size,
            self.published,
            self.trade_count,
            len(self.buy.levels),
            len(self.sell.levels),
        ]

    @classmethod
    def restore(
        cls,
        head: list[Any],
        buy: dict[str, Level],
        sell: dict[str, Level],
        trades: Iterable[tuple[int, Trade]],
    ) -> Self:
        """Rebuild the book; ``trades`` come with their slots.

        Raises:
            CorruptLog: levels or trades are missing.
        """
        self = cls(head[0], head[1])
        (self.sequence, self.timestamp, _, lot_size, self.published, self.trade_count) = head[2:8]
        self._set_lot_size(lot_size)
        # Older checkpoints have them.
        self.pending = msgspec.convert(head[10], list[WireEvent]) if len(head) > 10 else []
        self.buy.levels, self.sell.levels = buy, sell
        self.ring = [trade for _, trade in sorted(trades, key=lambda slot_and_trade: slot_and_trade[0])]
        found = [len(buy), len(sell), len(self.ring)]
        if found != [head[8], head[9], min(self.trade_count, TAPE_TRADES)]:
            raise CorruptLog(f"symbol {self.id}: the checkpoint has {found} levels and trades, its head says {head}.")
        return self


def _is_zero(quantity: str) -> bool:
    return not quantity.strip("0.")
