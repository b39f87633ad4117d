"""Keeps depth and tape of every symbol of ``orders.exchange`` and publishes them to Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP
from mode import Service

from agents.checkpointed import CheckpointedAgent
from forkast_streams.kafka_client import Pace
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.roles import ExchangeApp
from forkast_streams.topics import MARKET_DATA_TABLE, ORDERS_EXCHANGE
from tables.segments import SegmentTable

log = logging.getLogger(__name__)

# Seconds between two looks whether Redis has what the log has not.
_LOOK_INTERVAL_S = 1.0

# As the engine's; and of many events at once, several of a symbol make one change: to publish it costs as much as to
# fold thirty of them.
_FETCH_PACE = Pace(seconds=0.002, busy_seconds=0.04, busy_bytes=32 * 1024)


class MarketDataKeeper(Service):
    """Fold one batch of a partition and hand over what changed; write anew what Redis has of an end the log has lost.

    Redis may be ahead of a keeper that starts again, or was paused while another one had its partitions. It is wrong
    only if it is so still when the keeper has read all that the log had after that look; and where a keeper reads a
    partition from the beginning, whose books may have passed what Redis has before they are looked at, in any case.
    """

    def __init__(self, app: ExchangeApp, publisher: RedisPublisher, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._publisher = publisher
        self._states: Mapping[int, MarketDataState] = {}
        self._begun: set[int] = set()

    async def process(self, _partition: int, state: MarketDataState, records: tuple[Any, ...]) -> list[SentBatch]:
        """Fold ``records``; Redis need not acknowledge, as what it lacks is written again from the state."""
        self._publisher.publish(state.apply(records), state.books)
        return []

    async def own(self, states: Mapping[int, MarketDataState]) -> None:
        """Publish the books of the partitions that this worker has now."""
        self._begun = {p for p, state in states.items() if p in self._begun or not state.next_offset}
        self._states = states
        self._publisher.own(state.books for state in states.values())

    @Service.task
    async def _look_at_redis(self) -> None:
        while not self.should_stop:
            await self.sleep(_LOOK_INTERVAL_S)
            try:
                await self._write_anew_what_is_wrong()
            except (KafkaError, TimeoutError) as exc:
                log.warning("whether Redis is ahead of the log cannot be seen now: %r", exc)

    async def _write_anew_what_is_wrong(self) -> None:
        states, begun, ahead = self._states, set(self._begun), self._publisher.ahead()
        if not begun and not ahead:
            return
        partitions = begun | {p for p, state in states.items() if not ahead.isdisjoint(state.books)}
        ends = await self._app.consumer.highwaters(*(TP(ORDERS_EXCHANGE, partition) for partition in partitions))
        while any(states[tp.partition].next_offset < (end or 0) for tp, end in ends.items()):
            if self.should_stop or self._states is not states:
                return
            await asyncio.sleep(_LOOK_INTERVAL_S / 10)
        if self._states is not states:
            return
        self._begun -= begun
        wrong = ahead & self._publisher.ahead()
        if wrong:
            log.error(
                "Redis has events of %d symbols, such as %d, that the log has not, which has lost its end; their books "
                "are written anew", len(wrong), min(wrong),
            )  # fmt: skip
        self._publisher.write_anew(wrong.union(*(states[partition].books for partition in begun)))


def register(app: ExchangeApp) -> None:
    """Let ``app`` keep market data."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-keeper", keeps_order=True)
    publisher = RedisPublisher(app.settings.redis_url, app.feed)
    table = app.tables.add(SegmentTable(app, MARKET_DATA_TABLE))
    keeper = MarketDataKeeper(app, publisher)
    agent = CheckpointedAgent(
        app,
        ORDERS_EXCHANGE,
        table,
        producer,
        state_type=MarketDataState,
        new_state=lambda partition, _: MarketDataState(partition),
        process=keeper.process,
        on_loaded=keeper.own,
        fetch_pace=_FETCH_PACE,
    )
    app.ready_checks.append(publisher.why_not_ready)
    for service in (producer, publisher, agent, keeper):
        app.run_service(service)
