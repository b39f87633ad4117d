"""What the compiled modules are trained with: a short life of an engine worker, and of a keeper that reads its events.

``setup.py`` has gcc count what runs here how often and compile once more by that: what runs often is made part of what
calls it, and what hardly runs is put out of the way. The modules this imports from here stand in the Makefile, which
compiles again when one of them is another.
"""

from __future__ import annotations

import json
from itertools import chain, islice

from benchmarks import book_flows
from benchmarks.flows import (
    commands_over,
    definitions,
    event_records,
    lasting_commands,
    mixed_commands,
    resting_orders,
)
from benchmarks.mixed_flow import mixed_flow
from benchmarks.our_book import Ours
from benchmarks.partitions import Partitions
from benchmarks.records import batches
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.topics import PARTITIONS_DEFAULT

_COMMANDS = 30_000
_RESTING = 10_000


def train_engine() -> None:
    """Commands as they come most of the time, with checkpoints; some of every other kind; and a caller from Python."""
    partitions, standing = Partitions(), list(resting_orders(_RESTING))
    partitions.load(chain(definitions(), standing, mixed_commands(_COMMANDS), commands_over(standing, _COMMANDS)))
    partitions.load(islice(lasting_commands(), _COMMANDS))
    every_kind = mixed_flow(_COMMANDS // 10)
    Partitions().load((command["symbolId"], json.dumps(command).encode()) for command in every_kind)
    book = Ours()
    book.apply(book.prepare(list(book_flows.shallow(_COMMANDS))))


def train_keeper() -> None:
    """The events of such commands, a batch at a time, with checkpoints."""
    states = [MarketDataState(partition) for partition in range(PARTITIONS_DEFAULT)]
    for partition, batch in batches(event_records(_COMMANDS), [0] * PARTITIONS_DEFAULT):
        states[partition].apply(batch)
    for state in states:
        state.drain_changes()
        list(state.sweep()[1])


if __name__ == "__main__":
    train_engine()
    train_keeper()
