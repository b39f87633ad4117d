"""Keeps depth and tape of every symbol of ``orders.exchange`` and publishes them to Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.checkpointed import CheckpointedAgent
from forkast_streams.kafka_client import Pace
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.roles import ExchangeApp
from forkast_streams.topics import MARKET_DATA_TABLE, ORDERS_EXCHANGE
from tables.segments import SegmentTable

# As the engine's; and of many events at once, several of a symbol make one change: to publish it costs as much as to
# fold thirty of them.
_FETCH_PACE = Pace(seconds=0.002, busy_seconds=0.04, busy_bytes=32 * 1024)


class MarketDataKeeper:
    """Fold one batch of a partition and hand over what changed."""

    def __init__(self, publisher: RedisPublisher) -> None:
        self._publisher = publisher

    async def process(self, _partition: int, state: MarketDataState, records: tuple[Any, ...]) -> list[SentBatch]:
        """Fold ``records``; Redis need not acknowledge, as what it lacks is written again from the state."""
        self._publisher.publish(state.apply(records), state.books)
        return []

    async def own(self, states: Mapping[int, MarketDataState]) -> None:
        """Publish the books of the partitions that this worker has now."""
        self._publisher.own(state.books for state in states.values())


def register(app: ExchangeApp) -> None:
    """Let ``app`` keep market data."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-keeper", keeps_order=True)
    publisher = RedisPublisher(app.settings.redis_url, app.feed)
    table = app.tables.add(SegmentTable(app, MARKET_DATA_TABLE))
    keeper = MarketDataKeeper(publisher)
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
    for service in (producer, publisher, agent):
        app.run_service(service)
