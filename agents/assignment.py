"""What every agent asks of a batch, and of the log, after a rebalance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from faust.types import TP, EventT

from forkast_streams.errors import CorruptLog
from forkast_streams.roles import ExchangeApp

OwnerT = TypeVar("OwnerT")


class LogEnds(NamedTuple):
    """Where the log begins and ends, by partition; None: the broker has not told."""

    earliest: Mapping[TP, int | None]
    ends: Mapping[TP, int | None]

    def has_before(self, tp: TP, position: int) -> bool:
        """Whether the record right before ``position`` may still be there."""
        return (self.earliest.get(tp) or 0) < position


def owner_of(event: EventT[Any], owners: Mapping[int, OwnerT], app: ExchangeApp) -> OwnerT | None:
    """Who takes this batch, of the owners by partition.

    None: nobody. A batch fetched before a rebalance may lie behind or ahead of the place that was loaded since.
    """
    owner = owners.get(event.message.partition)
    return owner if event.message.generation_id == app.consumer_generation_id else None


async def require_log(app: ExchangeApp, positions: Mapping[TP, int], place: str, remedy: str) -> LogEnds:
    """Refuse to start where the log does not reach from a place on.

    Args:
        app: whose consumer reads the log.
        positions: the offsets to go on at.
        place: what has these positions, for the message: "the tables are".
        remedy: what to do about it, for the message.

    Raises:
        CorruptLog: it does not.
    """
    earliest = await app.consumer.earliest_offsets(*positions)
    ends = await app.consumer.highwaters(*positions)
    for tp, position in positions.items():
        if not (earliest[tp] or 0) <= position <= (ends[tp] or 0):
            raise CorruptLog(
                f"{tp.topic}-{tp.partition} holds offsets {earliest[tp]} to {ends[tp]}, {place} at {position}; {remedy}"
            )
    return LogEnds(earliest, ends)
