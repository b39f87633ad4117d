"""Makes sure that a log is read on only where it still has what was read of it before.

A log that was cut and has grown again has other records there, and what others have written up to the place would be
taken for read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiokafka.structs import TopicPartition

from forkast_streams.errors import CorruptLog
from forkast_streams.records import LastRead, TransactionMark, record_digest

_NOTHING = LastRead()


@dataclass(slots=True)
class Before:
    """The record right before the place from which a partition is read, as far as it is known.

    Attributes:
        offset: its own.
        known: what a state knows of it. A mark has a time that no state knows.
        record: itself, if it was read by this consumer.
        seen_over: the connection over which it was seen last; None: over none. Over another one it is to be read once
            more.
        leader_epoch: the highest of whose records it is known that they come behind it.
    """

    offset: int
    known: LastRead = _NOTHING
    record: Any = None
    seen_over: object = None
    leader_epoch: int = 0

    def check(self, tp: TopicPartition, records: list[Any]) -> None:
        """Look for it among ``records``.

        Raises:
            CorruptLog: another one is there.
        """
        if not any(map(self._is_this, records)):
            raise CorruptLog(
                f"{tp.topic}-{tp.partition} has lost its end: at offset {self.offset} is not what was read there. What "
                "came behind it may be gone; restore the topic, or give up what was made of it: delete its consumers' "
                "changelogs, local folders and tables."
            )

    def _is_this(self, found: Any) -> bool:
        if found.offset != self.offset:
            return False
        if self.record is not None:
            return _content(found) == _content(self.record)
        if self.known.digest is not None:
            return record_digest(found) == self.known.digest
        latest_ms = self.known.latest_ms
        return latest_ms is None or isinstance(found, TransactionMark) or bool(found.timestamp <= latest_ms)


def _content(record: Any) -> tuple[Any, ...]:
    return record.timestamp, record.key, record.value


class Continuity:
    """What is known of the records before the places from which a consumer reads its partitions.

    A broker may have lost the end of its logs whenever it was away, and then its connections are new. It also cuts off
    what another leader did not have, and then all that the log takes has a higher leader epoch.

    Args:
        connection_to: the connection to a broker; another object than any before where there is none.
    """

    def __init__(self, connection_to: Callable[[Any], object]) -> None:
        self._before: dict[TopicPartition, Before] = {}
        self._connection_to = connection_to

    def refused(self, tp: TopicPartition) -> None:
        """A broker did not give a partition."""
        if tp in self._before:
            self._before[tp].seen_over = None

    def is_of_new_leader(self, tp: TopicPartition, node_id: Any, position: int, leader_epoch: int) -> bool:
        """Whether records from ``position`` on are of a later leader than those before, which are doubted then."""
        before = self._before.get(tp)
        if before is None or self.doubted(tp, position, node_id) or leader_epoch <= before.leader_epoch:
            return False
        before.seen_over, before.leader_epoch = None, leader_epoch
        return True

    def expect(self, tp: TopicPartition, offset: int, known: LastRead) -> None:
        """Look whether the record before ``offset`` is the one that is ``known``."""
        before = self._before.get(tp)
        if before is not None and before.offset == offset - 1 and before.record is not None:
            # What it is says more than a state does.
            before.seen_over = None
        else:
            self._before[tp] = Before(offset - 1, known)

    def start(self, tp: TopicPartition, position: int, node_id: Any) -> int:
        """From where to fetch what is to be read from ``position`` on: one before it if that is doubted."""
        before = self.doubted(tp, position, node_id)
        return position if before is None else before.offset

    def doubted(self, tp: TopicPartition, position: int, node_id: Any) -> Before | None:
        """What has to be read once more before ``tp`` is read from ``position`` of a broker on; None: nothing."""
        before = self._before.get(tp)
        if before is None or before.offset != position - 1 or before.seen_over is self._connection_to(node_id):
            return None
        return before

    def accept(
        self, tp: TopicPartition, connection: object, leader_epoch: int, before: Before | None, records: list[Any]
    ) -> None:
        """Take note of what was read over a connection, with what was doubted before it.

        ``leader_epoch`` is that of the first record; a later one may have a higher one, which costs another look. What
        was doubted may come alone, where it fills a fetch; that it was looked for is remembered then.

        Raises:
            CorruptLog: the log has another record there than it had.
        """
        if before is not None:
            before.check(tp, records)
            leader_epoch = max(leader_epoch, before.leader_epoch)
        if records:
            self._before[tp] = Before(
                records[-1].offset, record=records[-1], seen_over=connection, leader_epoch=leader_epoch
            )
