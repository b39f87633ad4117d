"""Lets time pass in quiet markets: sends a heartbeat command where an expiry is due and no command may come.

What expires, and when, is decided by the engine and the log's time alone. The clock of this machine only decides when
a heartbeat is worth sending: one that comes too early or twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiokafka.errors import KafkaError
from mode import Service

from forkast_streams.engine_partition import EnginePartition
from forkast_streams.limits import HEARTBEAT_INTERVAL_S
from forkast_streams.producer import EventProducer
from forkast_streams.records import OutputRecord
from forkast_streams.topics import ORDERS_NEW

log = logging.getLogger(__name__)


class Heartbeats(Service):
    """Sends heartbeats for the symbols of the partitions this worker owns.

    Args:
        engines: gives the partitions' engines as they are now.
        producer: writes to ``orders.new``.
    """

    def __init__(
        self, engines: Callable[[], Iterable[EnginePartition]], producer: EventProducer, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._engines = engines
        self._producer = producer
        # By partition: one that takes nothing must not hold up the others.
        self._sending: dict[int, asyncio.Task[None]] = {}

    async def on_stop(self) -> None:
        """Wait for no acknowledgement any more."""
        for task in self._sending.values():
            task.cancel()

    @Service.task
    async def _beat(self) -> None:
        while not self.should_stop:
            await self.sleep(HEARTBEAT_INTERVAL_S)
            now_ms = int(time.time() * 1000)
            for engine in self._engines():
                under_way = self._sending.get(engine.partition)
                if (under_way is None or under_way.done()) and (due := engine.due(now_ms)):
                    self._sending[engine.partition] = asyncio.create_task(self._send(engine.partition, due, now_ms))

    async def _send(self, partition: int, symbol_ids: list[int], now_ms: int) -> None:
        beats = [OutputRecord(b"%d" % symbol_id, heartbeat(symbol_id), now_ms) for symbol_id in symbol_ids]
        try:
            for batch in await self._producer.send_batch(ORDERS_NEW, partition, beats):
                await batch.acknowledged
        except (KafkaError, RuntimeError) as exc:
            log.warning("heartbeats of %s-%d wait, the log does not take them: %r", ORDERS_NEW, partition, exc)


def heartbeat(symbol_id: int) -> bytes:
    """The value of a heartbeat record."""
    return msgspec.json.encode({"command": "HEARTBEAT", "symbolId": symbol_id})
