"""One partition of the engine: records of ``orders.new`` in, encoded output records out, and its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

import msgspec

from forkast_streams.checkpoint import Journal, Key
from forkast_streams.codec import decode_command, encode_events
from forkast_streams.engine.commands import BUY, SELL, Command
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.id_keys import bytes_of, key_in
from forkast_streams.engine.market import Market
from forkast_streams.engine.matching_engine import MatchingEngine
from forkast_streams.engine.open_orders import OpenOrders
from forkast_streams.engine.order import Order
from forkast_streams.engine.order_book import OrderBook
from forkast_streams.engine.order_terms import PLAIN, OrderTerms, shared_terms
from forkast_streams.engine.symbols import record_key
from forkast_streams.errors import CorruptLog, InvalidRecord
from forkast_streams.limits import COMMAND_BYTES_MAX, KEY_BYTES_MAX
from forkast_streams.producer_keys import KeyRing, contradiction, keys_digest
from forkast_streams.record_signatures import STRAY_HEADER, verify
from forkast_streams.records import Headers, InputRecord, OutputRecord, Outputs, TransactionMark
from forkast_streams.topics import ORDERS_NEW, partition_for

# An offset has 63 bits, which 18 digits are always within.
_ORIGIN: Final = re.compile(rb"([0-9]{1,9}):([0-9]{1,18})")


class EnginePartition:
    """The matching engine of one partition and its place in the input.

    Attributes:
        next_offset: the input offset to process next.
        clock: the exchange's time in milliseconds; record time that never goes back.
        producer_keys: by which records are judged; None: whoever may write is believed. See `use_keys`.
    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.engine = MatchingEngine()
        self.next_offset = 0
        self.clock = 0
        self.producer_keys: KeyRing | None = None
        self._judged_by = ""
        self._forwarded: dict[int, int] = {}

    def use_keys(self, keys: KeyRing | None) -> None:
        """Judge records by ``keys``; before the first batch.

        Raises:
            CorruptLog: the records of this state were judged by others, and would be judged differently by these.
        """
        if keys_digest(keys, self.clock) != self._digest():
            raise CorruptLog(f"{contradiction(self.partition, self.clock)} (FORKAST_PRODUCER_KEYS).")
        self.producer_keys = keys

    def process(self, records: Iterable[InputRecord]) -> Outputs:
        """Process ``records``, which continue the input without a hole; those known already are dropped.

        Raises:
            CorruptLog: records are missing between the last one and these.
        """
        outputs = Outputs()
        for record in records:
            offset = record.offset
            if offset != self.next_offset:
                if offset < self.next_offset:
                    continue
                raise CorruptLog(
                    f"{ORDERS_NEW}-{self.partition} goes on at offset {offset}, expected {self.next_offset}; "
                    "records are gone that were never processed."
                )
            if isinstance(record, TransactionMark):
                self.next_offset = offset + 1
                continue
            self.clock = max(self.clock, record.timestamp)
            try:
                self._process_one(record, offset, outputs)
            except InvalidRecord as exc:
                outputs.dead.append(self._dead_letter(record, exc))
            self.next_offset = offset + 1
        return outputs

    def _process_one(self, record: InputRecord, offset: int, outputs: Outputs) -> None:
        command = decode_command(record.value)
        if self.producer_keys is not None:
            _verify(record, command, self.producer_keys)
        symbol_id = command.symbol_id
        market = self.engine.markets.get(symbol_id)
        key = record_key(symbol_id) if market is None else market.symbol.key
        if record.key != key:
            raise InvalidRecord("KEY_MISMATCH", f"the key must be the symbolId as text, {symbol_id}")
        # A symbol that has a market is at home.
        home = self.partition if market is not None else partition_for(symbol_id, self.partitions)
        if record.headers and self._is_repeated_stray(record, home):
            return
        if market is None:
            if home != self.partition:
                outputs.strays.append((home, self._forward(record)))
                return
            if type(command) is not DefineSymbol:
                raise InvalidRecord("UNKNOWN_SYMBOL", f"no symbol {symbol_id} was defined; `forkast init` defines them")
        before = None if market is None else market.symbol
        events = self.engine.process(command, offset, self.clock)
        symbol = (market or self.engine.markets[symbol_id]).symbol
        # What expired before a symbol got other grids is in ticks and lots of the old ones.
        values = encode_events(events, before or symbol, self.partition, offset, self.clock)
        symbol.sequence = (before or symbol).sequence
        clock = self.clock
        outputs.events += [OutputRecord(key, value, clock) for value in values]

    def due(self, now_ms: int) -> list[int]:
        """The symbols in which something expires by ``now_ms``."""
        return [symbol_id for symbol_id, market in self.engine.markets.items() if market.book.next_due <= now_ms]

    def _digest(self) -> str:
        """Of the keys by which the records were judged so far; before `use_keys` as the checkpoint told it."""
        return self._judged_by if self.producer_keys is None else self.producer_keys.digest(self.clock)

    def _is_repeated_stray(self, record: InputRecord, home: int) -> bool:
        """Whether an engine forwarded this record before; after a crash it forwards again what it had forwarded.

        Raises:
            InvalidRecord: the header that says so is none that an engine writes, or stands where none writes it.
        """
        # A header can have no value.
        headers: dict[str, Any] = dict(record.headers)
        if STRAY_HEADER not in headers:
            return False
        found = _ORIGIN.fullmatch(headers[STRAY_HEADER] or b"")
        if found is None:
            raise InvalidRecord("INVALID_ORIGIN", f"{STRAY_HEADER} is for engines, as partition:offset")
        partition, offset = int(found[1]), int(found[2])
        if partition >= self.partitions or partition == self.partition:
            raise InvalidRecord("INVALID_ORIGIN", f"{STRAY_HEADER} must name another of {self.partitions} partitions")
        # No signature says for which partition a record is: forwarded from here it would have a new origin, so that a
        # copy of an old one, whose signature has no age, would act once more.
        if home != self.partition:
            raise InvalidRecord("INVALID_ORIGIN", f"{STRAY_HEADER} is for records on partition {home}, their own")
        if offset <= self._forwarded.get(partition, -1):
            return True
        self._forwarded[partition] = offset
        return False

    def _forward(self, record: InputRecord) -> OutputRecord:
        header = (STRAY_HEADER, b"%d:%d" % (self.partition, record.offset))
        return OutputRecord(record.key, record.value, self.clock, (header,))

    def _dead_letter(self, record: InputRecord, reason: InvalidRecord) -> OutputRecord:
        # Whole they might be larger with these headers than a record may be, and the engine could not go on.
        value, value_told = _beginning(record.value, COMMAND_BYTES_MAX, "value-bytes")
        key, key_told = _beginning(record.key, KEY_BYTES_MAX, "key-bytes")
        headers = (
            ("reason", reason.code.encode()),
            ("message", str(reason)[:500].encode(errors="replace")),
            ("topic", ORDERS_NEW.encode()),
            ("partition", b"%d" % self.partition),
            ("offset", b"%d" % record.offset),
            ("timestamp", b"%d" % record.timestamp),
            *value_told,
            *key_told,
        )
        return OutputRecord(key, value, self.clock, headers)

    def head(self) -> Any:
        """Symbols with their sequences, the clock, and the numbers that later parts are checked against."""
        engine, seen = self.engine, self.engine.seen
        return [
            self.partitions,
            self.clock,
            engine.changes.next_rank,
            [_market_head(market) for market in engine.markets.values()],
            [seen.generation, seen.started, len(seen.current), len(seen.previous)],
            list(self._forwarded.items()),
            engine.open_orders.count,
            self._digest(),
        ]

    def drain_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """Open orders that changed, by input offset, and the offsets of those that are gone."""
        changed, gone = self.engine.changes.drain()
        return [(order.offset, _row(order)) for order in changed], list[Key](gone)

    def sweep(self) -> tuple[int, Iterator[tuple[Key, Any]]]:
        """The number of open orders, and all of them as rows by input offset."""
        return self.engine.open_orders.count, _rows(self.engine.open_orders)

    def drain_journal(self) -> Journal:
        """Order ids used since the last call, 16 bytes each."""
        return [(generation, ids) for generation, ids in self.engine.seen.drain_fresh()]

    def oldest_generation(self) -> int:
        """The generation before the current one still matters."""
        return self.engine.seen.generation - 1

    @classmethod
    def restore(
        cls, partition: int, next_offset: int, head: Any, entries: Iterable[tuple[Key, Any]], journal: Journal
    ) -> Self:
        """Rebuild the partition as it was at ``next_offset``.

        Raises:
            CorruptLog: the parts do not have the numbers the head says.
        """
        partitions, clock, next_rank, symbols, seen_numbers, forwarded, resting, *judged_by = head
        self = cls(partition, partitions)
        # Older checkpoints do not say, because there were no keys.
        self._judged_by = judged_by[0] if judged_by else ""
        self.next_offset, self.clock, self._forwarded = next_offset, clock, dict(forwarded)
        engine = self.engine
        for rules, sequence, last_ticks, deadlines in symbols:
            market = engine.add_symbol(msgspec.convert(rules, DefineSymbol))
            market.symbol.sequence, market.book.last_ticks = sequence, last_ticks
            for user_id, deadline in deadlines:
                market.book.set_deadline(user_id, deadline)
        self._restore_orders(entries)
        engine.changes.next_rank = next_rank
        self._restore_seen(seen_numbers, journal)
        found = engine.open_orders.count
        if found != resting:
            raise CorruptLog(f"partition {partition}: the checkpoint has {found} open orders, its head says {resting}.")
        return self

    def _restore_orders(self, entries: Iterable[tuple[Key, Any]]) -> None:
        markets = self.engine.markets
        orders = [_order_of(int(offset), row, markets[row[0]].book) for offset, row in entries]
        orders.sort(key=_rank)
        for order in orders:
            markets[order.symbol_id].book.add(order)

    def _restore_seen(self, numbers: list[int], journal: Journal) -> None:
        seen = self.engine.seen
        generation, started, current, previous = numbers
        seen.reset(generation, started, current, previous)
        for number, ids in journal:
            seen.restore(number, ids)
        found = [len(seen.current), len(seen.previous)]
        if found != [current, previous]:
            raise CorruptLog(
                f"partition {self.partition}: the checkpoint's journal has {found} order ids, "
                f"its head says {[current, previous]}."
            )


def _beginning(whole: bytes | None, most: int, name: str) -> tuple[bytes | None, Headers]:
    """What a dead letter has of its record's key or value, and the header that tells the length of a longer one."""
    if whole is None or len(whole) <= most:
        return whole, ()
    return whole[:most], ((name, b"%d" % len(whole)),)


def _market_head(market: Market) -> list[Any]:
    deadlines = list(market.book.deadlines.moments.items())
    return [msgspec.to_builtins(market.symbol.rules), market.symbol.sequence, market.book.last_ticks, deadlines]


def _verify(record: InputRecord, command: Command, keys: KeyRing) -> None:
    verify(
        record.headers,
        record.key,
        record.value,
        record.timestamp,
        keys,
        topic=ORDERS_NEW,
        user_id=getattr(command, "user_id", None),
        defines_symbol=type(command) is DefineSymbol,
    )


def _rows(orders: OpenOrders) -> Iterator[tuple[Key, Any]]:
    # What is placed later, or goes, is among the changes.
    for order in orders:
        order.saved = True
        yield order.offset, _row(order)


def _row(order: Order) -> list[Any]:
    terms = order.terms
    return [
        order.symbol_id,
        bytes_of(order.key),
        order.owner.user_id,
        order.side,
        order.price_ticks,
        order.quantity,
        order.remaining,
        order.rank,
        order.hidden,
        order.waiting,
        None if terms is PLAIN else _terms_row(terms),
    ]


def _order_of(offset: int, row: list[Any], book: OrderBook) -> Order:
    _, order_id, user_id, side, price_ticks, quantity, remaining, rank, hidden, waiting, terms = row
    order = Order(
        offset,
        None,
        key_in(order_id, 0),
        book.orders_of(user_id),
        BUY if side == BUY else SELL,
        price_ticks,
        quantity,
        remaining,
        PLAIN if terms is None else _terms_of(terms),
    )
    order.rank, order.hidden, order.waiting = rank, hidden, waiting
    order.saved = True
    return order


def _terms_row(terms: OrderTerms) -> list[Any]:
    return [
        terms.type,
        terms.time_in_force,
        terms.self_trade_prevention,
        terms.limit_ticks,
        terms.stop_ticks,
        terms.display_quantity,
        terms.expires_at,
        terms.post_only,
    ]


def _terms_of(row: list[Any]) -> OrderTerms:
    *terms, post_only = row
    if not post_only and all(number is None for number in terms[3:]):
        return shared_terms(*terms[:3])
    return OrderTerms(*terms, post_only=post_only)


def _rank(order: Order) -> int:
    return order.rank
