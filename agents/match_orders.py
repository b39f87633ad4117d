"""Matches the orders of ``orders.new`` and publishes what happens to ``orders.exchange``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.checkpointed import CheckpointedAgent
from agents.heartbeats import Heartbeats
from forkast_streams.engine_partition import EnginePartition
from forkast_streams.errors import CorruptLog
from forkast_streams.kafka_client import Pace
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.producer_keys import KeyFileWatch
from forkast_streams.records import LastRead, OutputRecord
from forkast_streams.roles import ExchangeApp
from forkast_streams.topics import ORDER_BOOKS_TABLE, ORDERS_DEAD, ORDERS_EXCHANGE, ORDERS_NEW
from tables.segments import SegmentTable

# Orders that come closer together than this are matched together: a request to Kafka of its own costs an order at each
# station more than its matching, and the queue for the processor is longer than the wait. One that comes alone does not
# wait. With thousands a second a batch of ten partitions is still small, so that the next may be larger.
_FETCH_PACE = Pace(seconds=0.003, busy_seconds=0.02, busy_bytes=16 * 1024)


class OrderMatcher:
    """Decode, match, encode and publish one batch of a partition."""

    def __init__(self, producer: EventProducer, keys: KeyFileWatch | None = None) -> None:
        self._producer = producer
        self._keys = keys

    async def process(self, partition: int, engine: EnginePartition, records: tuple[Any, ...]) -> list[SentBatch]:
        """Process ``records`` in one go, then hand over their outputs."""
        if self._keys is not None:
            engine.producer_keys = self._keys.keys_for(partition, engine.producer_keys, engine.clock)
        outputs = engine.process(records)
        send = self._producer.send_batch
        sent = []
        if outputs.events:
            sent += await send(ORDERS_EXCHANGE, partition, outputs.events)
        if outputs.dead:
            sent += await send(ORDERS_DEAD, partition, outputs.dead)
        for home, records_of_home in _by_partition(outputs.strays).items():
            sent += await send(ORDERS_NEW, home, records_of_home)
        return sent


def _by_partition(strays: list[tuple[int, OutputRecord]]) -> dict[int, list[OutputRecord]]:
    grouped: dict[int, list[OutputRecord]] = {}
    for partition, record in strays:
        grouped.setdefault(partition, []).append(record)
    return grouped


def require_same_partitioning(engines: Mapping[int, EnginePartition], partitions: int) -> None:
    """Refuse to go on when the topic was given more partitions: symbols would have two homes and two books.

    Raises:
        CorruptLog: a state was made with another number of partitions.
    """
    for partition, engine in engines.items():
        if engine.partitions != partitions:
            raise CorruptLog(
                f"{ORDERS_NEW} has {partitions} partitions, the books of partition {partition} were made with "
                f"{engine.partitions}; partitions cannot be added to a running exchange."
            )


def give_keys(engines: Mapping[int, EnginePartition], keys: KeyFileWatch | None) -> None:
    """Let restored partitions judge records by the newest keys.

    One that was kept over a rebalance has keys; it takes newer ones before its next batch, if they do not contradict.

    Raises:
        CorruptLog: the records of a restored partition were judged by keys that contradict these.
    """
    for engine in engines.values():
        if engine.producer_keys is None:
            engine.use_keys(None if keys is None else keys.newest)


def register(app: ExchangeApp) -> None:
    """Let ``app`` match orders."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-engine", keeps_order=True)
    table = app.tables.add(SegmentTable(app, ORDER_BOOKS_TABLE))
    key_file = app.settings.producer_keys
    keys = None if key_file is None else KeyFileWatch(key_file, can_sign=app.settings.signer is not None)
    matcher = OrderMatcher(producer, keys)

    async def check(engines: Mapping[int, EnginePartition]) -> None:
        require_same_partitioning(engines, await producer.partition_count(ORDERS_NEW))
        give_keys(engines, keys)

    agent = CheckpointedAgent(
        app,
        ORDERS_NEW,
        table,
        producer,
        state_type=EnginePartition,
        new_state=EnginePartition,
        process=matcher.process,
        on_loaded=check,
        last_read=lambda engine: LastRead(latest_ms=engine.clock),
        fetch_pace=_FETCH_PACE,
    )
    # It waits for the producer, whatever else could be done.
    app.excuses.append(producer.why_not_ready)
    app.ready_checks.append(producer.why_not_ready)
    if keys is not None:
        app.ready_checks.append(keys.why_not_ready)
    app.run_service(producer)
    app.run_service(agent)
    app.run_service(Heartbeats(lambda: [assigned.state for assigned in agent.partitions.values()], producer))
