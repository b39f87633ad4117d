"""An engine worker without an engine: ``python -m benchmarks.passthrough_worker worker engine ...``.

Each command is decoded, and as many records as the engine would write on average, of the size they have on average,
are encoded and sent. There are no books and there is nothing to keep: what is left is the cost of everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Self

from agents import match_orders
from forkast_streams.checkpoint import Journal, Key
from forkast_streams.cli import main
from forkast_streams.codec import decode_command, encode_events
from forkast_streams.engine.commands import BUY, GTC, LIMIT
from forkast_streams.engine.define_symbol import DefineSymbol
from forkast_streams.engine.events import OrderAccepted
from forkast_streams.engine.symbols import Symbol
from forkast_streams.records import InputRecord, OutputRecord, Outputs

EVENTS_VARIABLE = "FORKAST_BENCH_EVENTS"
BYTES_VARIABLE = "FORKAST_BENCH_BYTES"

_EVENTS_PER_COMMAND = float(os.environ.get(EVENTS_VARIABLE, "1"))
_BYTES_PER_EVENT = float(os.environ.get(BYTES_VARIABLE, "300"))


def _rules(symbol_id: int) -> Any:
    rules = b'{"command":"SYMBOL","symbolId":%d,"symbol":"S","tickSize":"0.01","lotSize":"1","status":"TRADING"}'
    return decode_command(rules % symbol_id)


class PassthroughPartition:
    """Looks like an `EnginePartition` to the worker."""

    def __init__(self, partition: int, partitions: int) -> None:
        self.partition = partition
        self.partitions = partitions
        self.next_offset = 0
        self.clock = 0
        self.producer_keys = None
        self._symbols: dict[int, Symbol] = {}
        self._owed = 0.0
        probe = encode_events([_accepted("0" * 36)], Symbol(_rules(1)), partition, 1_000_000, 10**12)
        self._padding = "0" * max(0, round(_BYTES_PER_EVENT) - len(probe[0]))

    def process(self, records: Iterable[InputRecord]) -> Outputs:
        """Decode each record, encode what stands for its events."""
        outputs = Outputs()
        add = outputs.events.append
        for record in records:
            if record.offset < self.next_offset:
                continue
            command = decode_command(record.value)
            clock = self.clock = max(self.clock, record.timestamp)
            symbol = self._symbols.get(command.symbol_id)
            if symbol is None:
                symbol = self._symbols[command.symbol_id] = Symbol(_rules(command.symbol_id))
            self._owed += _EVENTS_PER_COMMAND
            count = int(self._owed)
            self._owed -= count
            order_id = "" if isinstance(command, DefineSymbol) else command.order_id  # type: ignore[union-attr]
            events = [_accepted(order_id + self._padding)] * count
            for value in encode_events(list(events), symbol, self.partition, record.offset, clock):
                add(OutputRecord(record.key, value, clock))
            self.next_offset = record.offset + 1
        return outputs

    def use_keys(self, keys: object) -> None:
        """Nothing is verified."""

    def due(self, now_ms: int) -> list[int]:  # noqa: ARG002 - as the engine has it
        """Nothing expires."""
        return []

    def head(self) -> Any:
        """Nothing is kept."""
        return []

    def drain_changes(self) -> tuple[list[tuple[Key, Any]], list[Key]]:
        """Nothing changes."""
        return [], []

    def sweep(self) -> tuple[int, Iterator[tuple[Key, Any]]]:
        """Nothing is open."""
        return 0, iter(())

    def drain_journal(self) -> Journal:
        """Nothing is remembered."""
        return []

    def oldest_generation(self) -> int:
        """Nothing is remembered."""
        return 0

    @classmethod
    def restore(
        cls, partition: int, next_offset: int, head: Any, entries: Iterable[tuple[Key, Any]], journal: Journal
    ) -> Self:
        """Not meant to be started again on what it left."""
        raise NotImplementedError("the passthrough worker starts on empty topics only")


def _accepted(order_id: str) -> OrderAccepted:
    return OrderAccepted(order_id, 1, LIMIT, BUY, 10_000, 10, GTC, None, None)


if __name__ == "__main__":
    vars(match_orders)["EnginePartition"] = PassthroughPartition
    main()
