"""Lets time pass in quiet markets: sends a heartbeat command where an expiry is due and no command may come.

What expires, and when, is decided by the engine and the log's time alone. The clock of this machine only decides when
a heartbeat is worth sending: one that comes too early or twice changes nothing.
"""

from __future__ import annotations

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

    @Service.task
    async def _beat(self) -> None:
        while not self.should_stop:
            await self.sleep(HEARTBEAT_INTERVAL_S)
            now_ms = int(time.time() * 1000)
            due = [(engine.partition, symbol_id) for engine in self._engines() for symbol_id in engine.due(now_ms)]
            try:
                for partition, symbol_id in due:
                    await self._producer.send(
                        ORDERS_NEW, key=b"%d" % symbol_id, value=heartbeat(symbol_id), partition=partition
                    )
            except (KafkaError, RuntimeError) as exc:
                log.warning("heartbeats wait, the log does not take them: %r", exc)


def heartbeat(symbol_id: int) -> bytes:
    """The value of a heartbeat record."""
    return msgspec.json.encode({"command": "HEARTBEAT", "symbolId": symbol_id})
