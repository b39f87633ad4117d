"""Market data of one partition of ``orders.exchange``: records in, book changes out, and its checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import msgspec

from forkast_streams.checkpoint import Journal, Key
from forkast_streams.errors import CorruptLog
from forkast_streams.limits import TAPE_TRADES
from forkast_streams.market_data.book import Level, SymbolBook
from forkast_streams.market_data.changes import BookChange, Trade
from forkast_streams.records import EventRecord, record_digest
from forkast_streams.repeats import RecentEvents
from forkast_streams.topics import ORDERS_EXCHANGE
from forkast_streams.wire_events import decode_event

# The kinds of entries: the second part of a key, as in "7:B:101.25" and "7:T:999".
_BUY, _SELL, _TRADE = "B", "S", "T"


class MarketDataState:
    """The books of the symbols of one partition, and its place in the input.

    Attributes:
        next_offset: the input offset from which on whoever has only the checkpoint reads: the next one, or inside a
            command that of its first event. What a command leads to may be long; each checkpoint would repeat it.
        books: by symbol id.
    """

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.next_offset = 0
        self._expected_offset = 0
        # By symbol the offset of the first event of a command that is not complete.
        self._incomplete: dict[int, int] = {}
        self.books: dict[int, SymbolBook] = {}
        self._unsaved: dict[str, Level | Trade] = {}
        self._recent = RecentEvents()
        # None: as the checkpoint says.
        self._last: EventRecord | None = None
        self._restored_digest: str | None = None

    def apply(self, records: Sequence[EventRecord]) -> list[BookChange]:
        """Fold ``records``, which continue the input without a hole; those known already are dropped.

        Returns:
            At most one change a symbol. Each ends at a moment at which a command was complete, so that no book with
            half a command in it is ever shown.

        Raises:
            CorruptLog: records or events are missing, they contradict the book, or one has come again with other
                content.
        """
        self._recent.remember([record.value for record in records])
        touched: dict[int, SymbolBook] = {}
        books, incomplete = self.books, self._incomplete
        for record in records:
            if record.offset != self._expected_offset:
                if record.offset < self._expected_offset:
                    continue
                raise CorruptLog(
                    f"{ORDERS_EXCHANGE}-{self.partition} goes on at offset {record.offset}, expected "
                    f"{self._expected_offset}; events are gone that were never processed."
                )
            self._expected_offset = record.offset + 1
            event = decode_event(record.value)
            book = books.get(event.symbol_id)
            if book is None:
                book = books[event.symbol_id] = SymbolBook(event.symbol_id, event.timestamp)
            seen = book.seen
            if event.sequence <= seen:
                self._recent.check(event.symbol_id, event.sequence, record.value)
                continue
            if event.sequence != seen + 1:
                raise CorruptLog(
                    f"symbol {event.symbol_id} goes on with sequence {event.sequence} after {seen}; events are missing."
                )
            if book.add(event):
                touched[book.id] = book
                if incomplete:
                    incomplete.pop(book.id, None)
            else:
                incomplete.setdefault(book.id, record.offset)
        self._reach(min(incomplete.values(), default=self._expected_offset), records)
        return [change for book in touched.values() if (change := self._drain_change(book)) is not None]

    def _reach(self, next_offset: int, records: Sequence[EventRecord]) -> None:
        if next_offset != self.next_offset:
            self.next_offset = next_offset
            # It may be of an earlier batch, when commands of several symbols end in this one.
            self._last = next((record for record in reversed(records) if record.offset == next_offset - 1), None)
            self._restored_digest = None

    @property
    def read_offset(self) -> int:
        """Behind the last record that was read: beyond `next_offset` while a command is not complete."""
        return self._expected_offset

    @property
    def last_digest(self) -> str | None:
        """`record_digest` of the record before `next_offset`; None: unknown, as after an older checkpoint."""
        return self._restored_digest if self._last is None else record_digest(self._last)

    def _drain_change(self, book: SymbolBook) -> BookChange | None:
        """The change to publish; what it touches is remembered for the next checkpoint."""
        unsaved, symbol_id = self._unsaved, book.id
        for kind, side in ((_BUY, book.buy), (_SELL, book.sell)):
            for price, level in side.changed.items():
                unsaved[f"{symbol_id}:{kind}:{price}"] = level
        change = book.drain_change()
        if change is not None and change.trades:
            first = book.trade_count - len(change.trades)
            for number, trade in enumerate(change.trades, start=first):
                unsaved[f"{symbol_id}:{_TRADE}:{number % TAPE_TRADES}"] = trade
        return change

    def head(self) -> Any:
        """What is small, of every book, and the last record; at `next_offset` no book is without a complete command."""
        books = [book.head() for book in self.books.values() if book.sequence]
        return {"books": books, "last": self.last_digest}

    def drain_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """Levels and trades that changed, and levels that went, since the last call."""
        unsaved, self._unsaved = self._unsaved, {}
        live: list[tuple[Key, Any]] = []
        dead: list[Key] = []
        for key, part in unsaved.items():
            if isinstance(part, Level) and not part.orders:
                dead.append(key)
            else:
                live.append((key, _row(part)))
        return live, dead

    def sweep(self) -> tuple[int, Iterator[tuple[Key, Any]]]:
        """The number of levels and trades, and all of them."""
        keys: list[Key] = []
        for symbol_id, book in self.books.items():
            keys += [f"{symbol_id}:{_BUY}:{price}" for price in book.buy.levels]
            keys += [f"{symbol_id}:{_SELL}:{price}" for price in book.sell.levels]
            keys += [f"{symbol_id}:{_TRADE}:{slot}" for slot in range(len(book.ring))]
        return len(keys), self._rows_of(keys)

    def _rows_of(self, keys: list[Key]) -> Iterator[tuple[Key, Any]]:
        for key in keys:
            row = self._row_of(key)
            if row is not None:
                yield key, row

    def _row_of(self, key: Key) -> Any | None:
        """The level or trade as it is now; None when the level is gone."""
        symbol_id, kind, place = str(key).split(":", 2)
        book = self.books[int(symbol_id)]
        if kind == _TRADE:
            return _row(book.ring[int(place)])
        level = (book.buy if kind == _BUY else book.sell).levels.get(place)
        return None if level is None else _row(level)

    def drain_journal(self) -> Journal:
        """Market data has no journal."""
        return []

    def oldest_generation(self) -> int:
        """As there is no journal, none is ever too old."""
        return 0

    @classmethod
    def restore(
        cls,
        partition: int,
        next_offset: int,
        head: Any,
        entries: Iterable[tuple[Key, Any]],
        journal: Journal,  # noqa: ARG003 - there is none
    ) -> Self:
        """Rebuild the state as it was at ``next_offset``.

        Raises:
            CorruptLog: the parts contradict each other.
        """
        self = cls(partition)
        self.next_offset = self._expected_offset = next_offset
        levels: dict[tuple[int, str], dict[str, Level]] = defaultdict(dict)
        trades: dict[int, list[tuple[int, Trade]]] = defaultdict(list)
        for key, row in entries:
            symbol_id, kind, place = str(key).split(":", 2)
            if kind == _TRADE:
                trades[int(symbol_id)].append((int(place), Trade(*row)))
            else:
                levels[int(symbol_id), kind][place] = Level(int(row[0]), row[1])
        # Older checkpoints have the books alone.
        books, self._restored_digest = (head["books"], head["last"]) if isinstance(head, dict) else (head, None)
        for of_book in books:
            known: int = of_book[0]
            book = SymbolBook.restore(of_book, levels[known, _BUY], levels[known, _SELL], trades[known])
            self.books[known] = book
            if book.pending:
                self._incomplete[known] = next_offset
        return self


def _row(part: Level | Trade) -> Any:
    # A level of the finest lots can hold more of them than 64 bits, which is all that msgpack's integers have.
    return [str(part.quantity), part.orders] if isinstance(part, Level) else list(msgspec.structs.astuple(part))
