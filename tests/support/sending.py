"""Batches on their way to a partition of a broker."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

TP = TopicPartition("orders.exchange", 3)


class Cluster:
    """Knows one broker, or none."""

    leader = 0

    def leader_for_partition(self, _tp: TopicPartition) -> int:
        """The broker."""
        return self.leader


def batch_of(value: bytes) -> BatchBuilder:
    builder = BatchBuilder(1_000, 0)
    builder.append(timestamp=1, key=b"7", value=value)
    return builder


async def add(accumulator: Any, value: bytes, within_s: float = 10.0) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = await accumulator.add_batch(batch_of(value), TP, within_s)
    return future
