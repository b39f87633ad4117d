"""How long workers take for what waits in a topic: from their first output to their last one, by the log's ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from benchmarks.harness import Run
from benchmarks.servers import Servers, cpu_seconds
from forkast_streams.topics import ENGINE_CHANGELOG, ORDERS_DEAD, ORDERS_EXCHANGE, PARTITIONS_DEFAULT, ensure_topics
from tests.integration.exchange import Worker

_POLL_S = 0.05
# No worker under measurement rests for so long.
_QUIET_S = 2.0
_START_S_MAX = 90.0


@dataclass(frozen=True, slots=True)
class Passage:
    """What workers did with a backlog.

    Attributes:
        seconds: from the first acknowledged output to the last.
        outputs: records that they wrote.
        cpu_s: processor time they used meanwhile, all of them together.
    """

    seconds: float
    outputs: int
    cpu_s: float


class LogEnds:
    """Reads how many records a topic has; usable as an asynchronous context manager."""

    def __init__(self, brokers: Sequence[str], topic: str, partitions: int = PARTITIONS_DEFAULT) -> None:
        self._brokers = list(brokers)
        self._tps = [TopicPartition(topic, partition) for partition in range(partitions)]

    async def __aenter__(self) -> LogEnds:
        """Connect."""
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self._brokers)
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def by_partition(self) -> list[int]:
        """Number of records of each partition."""
        ends = await self._consumer.end_offsets(self._tps)
        return [int(ends[tp]) for tp in self._tps]

    async def total(self) -> int:
        """Number of records of all partitions."""
        return sum(await self.by_partition())


async def passage(
    run: Run, at: Servers, workers: Sequence[Worker], *, topic: str = ORDERS_EXCHANGE, expected: int = 0,
    go: Callable[[], None] | None = None,
) -> Passage:  # fmt: skip
    """Watch ``topic`` from its first new record until nothing has been added for a while; see `watch`."""
    async with LogEnds(at.brokers, topic) as ends:
        return await watch(run, ends.total, workers, what=topic, expected=expected, go=go)


async def watch(
    run: Run, total: Callable[[], Awaitable[int]], workers: Sequence[Worker], *, what: str, expected: int = 0,
    go: Callable[[], None] | None = None,
) -> Passage:  # fmt: skip
    """Watch a number grow, from its first change until it has not changed for a while.

    Args:
        run: shows the progress.
        total: the number, such as that of the records in a topic.
        workers: whose work it is; they must not end meanwhile.
        what: is counted.
        expected: about how far it will go, for the progress.
        go: called once it is known where the number starts.

    Raises:
        TimeoutError: it did not change within the time a worker may take to start.
    """
    base = last = first = await total()
    if go is not None:
        go()
    began = time.perf_counter()
    first_at = last_at = cpu_first = cpu_last = 0.0
    with run.step(f"Waiting for {what}", expected or None) as done:
        while not first_at or time.perf_counter() - last_at < _QUIET_S:
            await asyncio.sleep(_POLL_S)
            count, now = await total(), time.perf_counter()
            if count == last:
                if not first_at and now - began > _START_S_MAX:
                    raise TimeoutError(f"nothing was added to {what} within {_START_S_MAX:g} s")
                for one in workers:
                    one.check()
                continue
            cpu = sum(cpu_seconds(one.pid) for one in workers)
            if not first_at:
                first, first_at, cpu_first = count, now, cpu
            last, last_at, cpu_last = count, now, cpu
            done(count - base)
    # What was there at the first look was made before it, too fast to be timed; the rest stands for it.
    share = (last - base) / max(1, last - first)
    return Passage((last_at - first_at) * share, last - base, (cpu_last - cpu_first) * share)


ENGINE_OUTPUTS = (ORDERS_EXCHANGE, ORDERS_DEAD, ENGINE_CHANGELOG)


async def forget(at: Servers, topics: Sequence[str], partitions: int = PARTITIONS_DEFAULT) -> None:
    """Empty topics, such as what engines wrote, so that the next worker starts at the beginning of its input again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=at.brokers)
    await admin.start()
    try:
        await delete_topics(admin, topics)
    finally:
        await admin.close()
    await ensure_topics(at.brokers, partitions=partitions)
    # What the last worker had written goes to the disk now: the next one would pay for it, and be the slower one.
    await asyncio.to_thread(os.sync)


async def delete_topics(admin: AIOKafkaAdminClient, topics: Sequence[str]) -> None:
    """Delete topics and wait until they are gone."""
    await admin.delete_topics(list(topics))
    while set(topics) & set(await admin.list_topics()):  # noqa: ASYNC110 - the broker tells nobody
        await asyncio.sleep(0.1)
