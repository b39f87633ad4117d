"""Tells whether this process reaches Kafka, so that no load balancer sends orders to one that does not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from mode import Service

from forkast_streams.producer import EventProducer

_INTERVAL_S = 1.0
# Of one look, and of all those that fail before it is said.
_LOOK_S_MAX = 2.0
_PATIENCE_S = 5.0


class LogWatch(Service):
    """Asks the brokers every second for the topics' leaders, over the connections that orders take."""

    def __init__(self, producer: EventProducer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._producer = producer
        self._reached_at = time.monotonic()

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            try:
                async with asyncio.timeout(_LOOK_S_MAX):
                    if await self._producer.reaches_brokers():
                        self._reached_at = time.monotonic()
            except TimeoutError:
                pass
            await self.sleep(_INTERVAL_S)

    def why_not_ready(self) -> str | None:
        """A sentence while the brokers have not answered for some seconds."""
        silence_s = time.monotonic() - self._reached_at
        return f"Kafka has not answered for {silence_s:.0f} s" if silence_s > _PATIENCE_S else None
