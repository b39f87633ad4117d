"""What must come out, worked out by the naive exchange from every record the moment the log takes it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from forkast_streams.codec import decode_command
from forkast_streams.engine_partition import STRAY_HEADER
from forkast_streams.errors import InvalidRecord
from forkast_streams.limits import COMMAND_BYTES_MAX
from forkast_streams.naive_book import NaiveExchange, read_command
from forkast_streams.topics import partition_for, partition_for_key
from tests.simulation.log import LogRecord
from tests.simulation.world import Violation

Envelope = dict[str, Any]

_ORIGIN = re.compile(rb"([0-9]{1,9}):([0-9]{1,18})")


@dataclass(slots=True)
class Expected:
    """What one record of ``orders.new`` leads to, and what of it is there.

    Attributes:
        events: envelopes without the wording of rejections.
        is_dead: it goes to ``orders.dead``.
        home: the partition it must be forwarded to.
        missing: outputs that are not there yet.
    """

    events: list[Envelope] = field(default_factory=list)
    is_dead: bool = False
    home: int | None = None
    missing: int = 0


class PartitionReference:
    """One partition of the exchange, as it must be.

    Attributes:
        expected: by input offset.
        done: all outputs of the inputs below this offset are in the log.
        events: first occurrences in ``orders.exchange``, as bytes, in order.
        repeats: number of repeated events.
    """

    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.exchange = NaiveExchange()
        self.clock = 0
        self.expected: list[Expected] = []
        self.done = 0
        self.events: list[bytes] = []
        self.sequences: Counter[int] = Counter()
        self.repeats = 0
        self._given_out: Counter[int] = Counter()
        self._by_sequence: dict[tuple[int, int], Envelope] = {}
        self._first: dict[tuple[int, int], LogRecord] = {}
        self._first_dead: dict[int, LogRecord] = {}
        self._forwarded: dict[int, int] = {}

    def take_input(self, record: LogRecord) -> None:
        """Work out what ``record`` leads to."""
        self.clock = max(self.clock, record.timestamp)
        expected = self._expect(record)
        expected.missing = len(expected.events) + expected.is_dead + (expected.home is not None)
        self.expected.append(expected)
        self._advance()

    def _expect(self, record: LogRecord) -> Expected:
        try:
            symbol_id = decode_command(record.value).symbol_id
        except InvalidRecord:
            return Expected(is_dead=True)
        if record.key != str(symbol_id).encode():
            return Expected(is_dead=True)
        if STRAY_HEADER in dict(record.headers):
            origin = self.origin_of(record)
            if origin is None:
                return Expected(is_dead=True)
            partition, offset = origin
            if offset <= self._forwarded.get(partition, -1):
                return Expected()
            self._forwarded[partition] = offset
        home = partition_for(symbol_id, self.partitions)
        if home != self.partition:
            return Expected(home=home)
        command = read_command(record.value or b"")
        if symbol_id not in self.exchange.books and command.get("command") != "SYMBOL":
            return Expected(is_dead=True)
        pairs = self.exchange.process(command, self.clock)
        return Expected(
            [self._envelope(pair, symbol_id, record.offset, at, len(pairs)) for at, pair in enumerate(pairs)]
        )

    def origin_of(self, record: LogRecord) -> tuple[int, int] | None:
        """Partition and offset from where an engine has forwarded the record, if it says so as an engine would."""
        said = _ORIGIN.fullmatch(dict(record.headers).get(STRAY_HEADER, b""))
        if said is None or not int(said[1]) < self.partitions or int(said[1]) == self.partition:
            return None
        if partition_for_key(record.key or b"", self.partitions) != self.partition:
            return None
        return int(said[1]), int(said[2])

    def _envelope(self, pair: tuple[str, dict[str, Any]], symbol_id: int, offset: int, at: int, count: int) -> Envelope:
        self._given_out[symbol_id] += 1
        sequence = self._given_out[symbol_id]
        source = {"partition": self.partition, "offset": offset, "index": at, "count": count}
        envelope = {"type": pair[0], "symbolId": symbol_id, "sequence": sequence, "timestamp": self.clock}
        envelope |= {"source": source, "data": pair[1]}
        self._by_sequence[symbol_id, sequence] = envelope
        return envelope

    def take_event(self, record: LogRecord) -> None:
        """Compare an event with what must come.

        Raises:
            Violation: it is none that must come, or comes out of order, or repeats an earlier one with a difference.
        """
        envelope = json.loads(record.value or b"")
        envelope["data"].pop("message", None)
        key = envelope["symbolId"], envelope["sequence"]
        first = self._first.get(key)
        if first is not None:
            same = (first.key, first.value, first.timestamp) == (record.key, record.value, record.timestamp)
            _require(same, f"I-4: a repeat of {key} differs:\n{first.value!r}\n{record.value!r}")
            self.repeats += 1
            return
        _require(key[1] == self.sequences[key[0]] + 1, f"I-3: {key} comes after {self.sequences[key[0]]}")
        expected = self._by_sequence.get(key)
        _require(envelope == expected, f"I-5: {key} is not as the naive exchange has it:\n{envelope}\n{expected}")
        _require(record.timestamp == envelope["timestamp"], f"I-5: {key} is stamped {record.timestamp}")
        self.sequences[key[0]] = key[1]
        self._first[key] = record
        self.events.append(record.value or b"")
        self._arrived(envelope["source"]["offset"])

    def take_dead(self, record: LogRecord, source: LogRecord) -> None:
        """Compare a dead letter with the record that it is of.

        Raises:
            Violation: that record is no dead letter, or this one differs from it or from an earlier repeat.
        """
        expected = self.expected[source.offset]
        _require(expected.is_dead, f"I-2: offset {source.offset} is dead-lettered, it is a good command")
        value = None if source.value is None else source.value[:COMMAND_BYTES_MAX]
        _require((record.key, record.value) == (source.key, value), f"I-2: the dead letter is not {source}")
        first = self._first_dead.setdefault(source.offset, record)
        if first is record:
            self._arrived(source.offset)
        else:
            _require(first.headers == record.headers, f"I-4: a repeated dead letter differs: {first} {record}")

    def take_forwarded(self, offset: int, record: LogRecord, source: LogRecord, home: int) -> None:
        """Compare a forwarded record with the stray that it is of.

        Raises:
            Violation: it had no reason to be forwarded there, or is not the same.
        """
        expected = self.expected[offset]
        _require(expected.home == home, f"I-2: offset {offset} is forwarded to {home}, expected {expected.home}")
        _require((record.key, record.value) == (source.key, source.value), f"I-2: the forwarded record is not {source}")
        if expected.missing:
            self._arrived(offset)

    def _arrived(self, offset: int) -> None:
        self.expected[offset].missing -= 1
        self._advance()

    def _advance(self) -> None:
        while self.done < len(self.expected) and not self.expected[self.done].missing:
            self.done += 1


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)
