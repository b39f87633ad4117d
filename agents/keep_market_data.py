"""Keeps depth and tape of every symbol from ``orders.exchange``, and Redis at them."""

from __future__ import annotations

from typing import Any

from agents.checkpointed import CheckpointedAgent
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.roles import ExchangeApp
from forkast_streams.topics import MARKET_DATA_TABLE, ORDERS_EXCHANGE
from tables.segments import SegmentTable


class MarketDataKeeper:
    """Fold a batch of a partition and publish what changed."""

    def __init__(self, publisher: RedisPublisher) -> None:
        self._publisher = publisher

    async def process(self, _partition: int, state: MarketDataState, records: tuple[Any, ...]) -> list[SentBatch]:
        """Fold ``records`` and publish the changes; nothing of it goes to Kafka."""
        await self._publisher.publish(state.apply(records))
        return []


def register(app: ExchangeApp) -> None:
    """Let ``app`` keep market data."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-keeper")
    table = app.tables.add(SegmentTable(app, MARKET_DATA_TABLE))
    publisher = RedisPublisher(app.settings.redis_url, is_caught_up=lambda: agent.is_caught_up())
    agent = CheckpointedAgent(
        app,
        ORDERS_EXCHANGE,
        table,
        producer,
        state_type=MarketDataState,
        new_state=MarketDataState,
        process=MarketDataKeeper(publisher).process,
        on_loaded=publisher.own,
    )
    app.ready_checks.append(lambda: publisher.why_not_ready)
    app.run_service(producer)
    app.run_service(publisher)
    app.run_service(agent)
