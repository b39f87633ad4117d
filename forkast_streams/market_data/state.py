"""Depth and tape of the symbols of one partition, folded from ``orders.exchange``.

Quantities are integers in units of the symbol's last decimal; all quantities of a symbol have as many decimals, as its
lot size only changes while its book is empty. Prices are the text they have on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

import msgspec
from msgspec import Struct

from forkast_streams.checkpoint import Journal, Key
from forkast_streams.engine.commands import BUY
from forkast_streams.errors import CorruptLog
from forkast_streams.limits import TAPE_TRADES_MAX
from forkast_streams.topics import ORDERS_EXCHANGE
from forkast_streams.wire_events import (
    AmendEvent,
    CancelEvent,
    OrderEvent,
    SymbolEvent,
    TradeEvent,
    WireEvent,
    decode_event,
)

BIDS, ASKS = "B", "S"


class EventRecord(Protocol):
    """What is read of a consumed record."""

    @property
    def offset(self) -> int:
        """Place in the partition."""

    @property
    def value(self) -> bytes | None:
        """The event."""


class Trade(Struct, gc=False, rename="camel", array_like=False):
    """A trade as everybody may see it."""

    trade_id: str
    price: str
    quantity: str
    taker_side: str
    timestamp: int
    sequence: int


class LevelView(Struct, gc=False):
    """A price level; quantity "0" and no orders once it is gone."""

    price: str
    quantity: str
    orders: int


class BookChange(Struct, rename="camel"):
    """What changed in a symbol's book between two moments at which it was consistent.

    Attributes:
        previous: sequence up to which the book was known before; 0 when nothing was.
        buy: changed levels with what they are now.
        trades: new trades, oldest first.
        whole: whether these are all levels instead of the changed ones.
    """

    symbol_id: int
    previous: int
    sequence: int
    timestamp: int
    last_price: str | None
    buy: list[LevelView]
    sell: list[LevelView]
    trades: list[Trade]
    whole: bool = False


class SymbolBook:
    """Depth and tape of one symbol.

    Attributes:
        sequence: last event folded; ``published`` the last one that was part of a change.
        complete: whether the last command is folded to its end.
        levels: for bids and asks [quantity, order count] by price.
        touched: levels that changed since the last change was taken.
    """

    __slots__ = ("complete", "decimals", "fresh_trades", "last_price", "levels", "published", "sequence", "symbol_id",
                 "tape", "timestamp", "touched")  # fmt: skip

    def __init__(self, symbol_id: int) -> None:
        self.symbol_id = symbol_id
        self.sequence = self.published = self.timestamp = self.decimals = 0
        self.complete = True
        self.last_price: str | None = None
        self.levels: dict[str, dict[str, list[int]]] = {BIDS: {}, ASKS: {}}
        self.tape: dict[int, Trade] = {}
        self.touched: set[tuple[str, str]] = set()
        self.fresh_trades: list[Trade] = []

    def units(self, text: str) -> int:
        """A quantity as an integer."""
        whole, _, fraction = text.partition(".")
        self.decimals = len(fraction)
        return int(whole + fraction)

    def text(self, units: int) -> str:
        """A quantity as it stands on the wire."""
        if not self.decimals or not units:
            return str(units)
        whole, fraction = divmod(units, 10**self.decimals)
        return f"{whole}.{fraction:0{self.decimals}d}"

    def add(self, side: str, price: str, units: int, orders: int) -> None:
        """Add quantity and orders (both may be negative) to a level.

        Raises:
            CorruptLog: less than nothing would be left.
        """
        levels = self.levels[side]
        level = levels.setdefault(price, [0, 0])
        level[0] += units
        level[1] += orders
        self.touched.add((side, price))
        if level[0] < 0 or level[1] < 0 or (level[0] == 0) != (level[1] == 0):
            raise CorruptLog(f"symbol {self.symbol_id}: level {side} {price} would hold {level} after {self.sequence}.")
        if not level[0]:
            del levels[price]

    def view(self, side: str, price: str) -> LevelView:
        """A level as it is now."""
        quantity, orders = self.levels[side].get(price, (0, 0))
        return LevelView(price, self.text(quantity), orders)

    def take_change(self) -> BookChange | None:
        """What changed since the last call; None inside a command or when there is nothing."""
        if not self.complete or self.sequence == self.published:
            return None
        views: dict[str, list[LevelView]] = {BIDS: [], ASKS: []}
        for side, price in sorted(self.touched):
            views[side].append(self.view(side, price))
        change = self._change(views, self.fresh_trades, self.published)
        self.touched, self.fresh_trades = set(), []
        self.published = self.sequence
        return change

    def whole(self) -> BookChange | None:
        """The whole book and tape; None inside a command."""
        if not self.complete:
            return None
        views = {side: [self.view(side, price) for price in self.levels[side]] for side in (BIDS, ASKS)}
        change = self._change(views, [self.tape[slot] for slot in sorted(self.tape, key=self._age)], 0)
        change.whole = True
        return change

    def _age(self, slot: int) -> int:
        return self.tape[slot].sequence

    def _change(self, views: dict[str, list[LevelView]], trades: list[Trade], previous: int) -> BookChange:
        return BookChange(
            self.symbol_id, previous, self.sequence, self.timestamp, self.last_price, views[BIDS], views[ASKS], trades
        )


class MarketDataState:
    """The books of one partition, and the place in the input up to which they are."""

    def __init__(self, partition: int, _partitions: int = 0) -> None:
        self.partition = partition
        self.next_offset = 0
        self.books: dict[int, SymbolBook] = {}
        self._changed: set[Key] = set()

    def apply(self, records: Sequence[EventRecord]) -> list[BookChange]:
        """Fold ``records`` in; return one change for each symbol whose book is consistent again.

        Raises:
            CorruptLog: records or events are missing, or contradict the book.
        """
        touched: dict[int, SymbolBook] = {}
        for record in records:
            if record.offset < self.next_offset:
                continue
            if record.offset != self.next_offset:
                raise CorruptLog(
                    f"{ORDERS_EXCHANGE}-{self.partition} goes on at {record.offset}, expected {self.next_offset}."
                )
            self.next_offset += 1
            event = decode_event(record.value)
            book = self.books.get(event.symbol_id)
            if book is None:
                book = self.books[event.symbol_id] = SymbolBook(event.symbol_id)
            if _is_new(event, book.sequence):
                self._fold(book, event)
                touched[event.symbol_id] = book
        return [change for book in touched.values() if (change := book.take_change()) is not None]

    def _fold(self, book: SymbolBook, event: WireEvent) -> None:
        book.sequence = event.sequence
        book.timestamp = event.timestamp
        book.complete = event.source.index == event.source.count - 1
        if isinstance(event, TradeEvent):
            self._trade(book, event)
        elif isinstance(event, OrderEvent):
            if event.data.price is not None:
                self._add(book, event.data.side, event.data.price, book.units(event.data.quantity), 1)
        elif isinstance(event, CancelEvent):
            if event.data.price is not None:
                self._add(book, event.data.side, event.data.price, -book.units(event.data.quantity), -1)
        elif isinstance(event, AmendEvent):
            data = event.data
            filled = book.units(data.filled_quantity)
            self._add(book, data.side, data.previous_price, filled - book.units(data.previous_quantity), -1)
            self._add(book, data.side, data.price, book.units(data.quantity) - filled, 1)
        elif isinstance(event, SymbolEvent):
            book.decimals = len(event.data.lot_size.partition(".")[2])

    def _trade(self, book: SymbolBook, event: TradeEvent) -> None:
        data = event.data
        quantity = book.units(data.quantity)
        taker_buys = data.taker_side == BUY
        maker_status, taker_status = (
            (data.sell_status, data.buy_status) if taker_buys else (data.buy_status, data.sell_status)
        )
        maker_side, taker_side = ("SELL", "BUY") if taker_buys else ("BUY", "SELL")
        self._add(book, maker_side, data.price, -quantity, -(maker_status == "FILLED"))
        if data.taker_price is not None:
            self._add(book, taker_side, data.taker_price, -quantity, -(taker_status == "FILLED"))
        trade = Trade(data.trade_id, data.price, data.quantity, data.taker_side, event.timestamp, event.sequence)
        book.last_price = data.price
        book.fresh_trades.append(trade)
        slot = event.sequence % TAPE_TRADES_MAX
        book.tape[slot] = trade
        self._changed.add(f"{book.symbol_id}:T:{slot}")

    def _add(self, book: SymbolBook, side: str, price: str, units: int, orders: int) -> None:
        letter = BIDS if side == BUY else ASKS
        book.add(letter, price, units, orders)
        self._changed.add(f"{book.symbol_id}:{letter}:{price}")

    def head(self) -> Any:
        """Symbols with what is small about them."""
        return [
            [b.symbol_id, b.sequence, b.timestamp, b.decimals, b.complete, b.last_price, *map(len, b.levels.values())]
            for b in self.books.values()
        ]

    def take_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """Levels and trades that changed, and levels that are gone."""
        changed, self._changed = self._changed, set()
        live: list[tuple[Key, Any]] = []
        dead: list[Key] = []
        for key in sorted(changed, key=str):
            value = self.entry(key)
            if value is None:
                dead.append(key)
            else:
                live.append((key, value))
        return live, dead

    def keys(self) -> list[Key]:
        """A key for each level and each trade of the tapes."""
        keys: list[Key] = []
        for book in self.books.values():
            keys += [f"{book.symbol_id}:{side}:{price}" for side, levels in book.levels.items() for price in levels]
            keys += [f"{book.symbol_id}:T:{slot}" for slot in book.tape]
        return keys

    def entry(self, key: Key) -> Any | None:
        """A level as [quantity, orders], a trade as a list; None when it is gone."""
        symbol_id, kind, name = str(key).split(":")
        book = self.books[int(symbol_id)]
        if kind == "T":
            return msgspec.structs.astuple(book.tape[int(name)])
        return book.levels[kind].get(name)

    def take_journal(self) -> Journal:
        """Market data has no journal."""
        return []

    def oldest_generation(self) -> int:
        """Market data has no journal."""
        return 0

    @classmethod
    def restore(
        cls, partition: int, next_offset: int, head: Any, entries: Iterable[tuple[Key, Any]], _journal: Journal
    ) -> Self:
        """Rebuild the books as they were at ``next_offset``.

        Raises:
            CorruptLog: the entries are not as many as the head says.
        """
        self = cls(partition)
        self.next_offset = next_offset
        for symbol_id, sequence, timestamp, decimals, complete, last_price, *_ in head:
            book = self.books[symbol_id] = SymbolBook(symbol_id)
            book.sequence = book.published = sequence
            book.timestamp, book.decimals, book.complete, book.last_price = timestamp, decimals, complete, last_price
        for key, value in entries:
            symbol_id, kind, name = str(key).split(":")
            book = self.books[int(symbol_id)]
            if kind == "T":
                book.tape[int(name)] = Trade(*value)
            else:
                book.levels[kind][name] = list(value)
        if self.head() != [list(row) for row in head]:
            raise CorruptLog(f"{ORDERS_EXCHANGE}-{partition}: the checkpoint's levels are not those its head counts.")
        return self


def _is_new(event: WireEvent, last_sequence: int) -> bool:
    """Whether ``event`` follows ``last_sequence`` of its symbol; False for a repeat."""
    if event.sequence <= last_sequence:
        return False
    if event.sequence != last_sequence + 1:
        raise CorruptLog(
            f"symbol {event.symbol_id} goes on with {event.sequence} after {last_sequence}; events are missing."
        )
    return True
