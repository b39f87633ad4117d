"""Looking for the brokers that lead partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiokafka.structs import TopicPartition

# What brokers name as the leader of a partition that has none.
_NO_LEADER = -1


def has_leader(cluster: Any, tp: TopicPartition) -> bool:
    """Whether it is known who leads ``tp``."""
    return cluster.leader_for_partition(tp) not in (None, _NO_LEADER)


class LeaderSearch:
    """Asks the brokers who leads what, with a pause from one answer to the next question.

    A partition may have no leader for hours, and brokers answer at once.

    Args:
        client: of aiokafka.
        pause_s: seconds.
        wake: is called whenever another look is worth it.
    """

    def __init__(self, client: Any, pause_s: float, wake: Callable[[], None]) -> None:
        self._client = client
        self._pause_s = pause_s
        self._wake = wake
        self._is_under_way = False

    def begin(self) -> None:
        """Ask, unless that is under way."""
        if not self._is_under_way:
            self._is_under_way = True
            self._client.force_metadata_update().add_done_callback(self._answered)

    def _answered(self, _: object) -> None:
        self._wake()
        asyncio.get_running_loop().call_later(self._pause_s, self._end)

    def _end(self) -> None:
        self._is_under_way = False
        self._wake()
