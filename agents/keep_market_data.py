"""Keeps depth and tape of every symbol of ``orders.exchange`` and publishes them to Redis."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faust.types import TP
from mode import Service

from agents.checkpointed import CheckpointedAgent
from forkast_streams.kafka_client import Pace
from forkast_streams.market_data.redis_publisher import RedisPublisher
from forkast_streams.market_data.state import MarketDataState
from forkast_streams.producer import EventProducer, SentBatch
from forkast_streams.records import LastRead
from forkast_streams.roles import ExchangeApp
from forkast_streams.topics import MARKET_DATA_TABLE, ORDERS_EXCHANGE
from tables.segments import SegmentTable

log = logging.getLogger(__name__)

# Seconds between two looks whether Redis has what the log has not.
_LOOK_INTERVAL_S = 0.5

# As the engine's; and of many events at once, several of a symbol make one change: to publish it costs as much as to
# fold thirty of them.
_FETCH_PACE = Pace(seconds=0.002, busy_seconds=0.04, busy_bytes=32 * 1024)


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen of a partition's books in Redis.

    Attributes:
        end: of the partition, as it was after that.
        ahead: the symbols that Redis had more of than the keeper.
    """

    end: int
    ahead: set[int]


class MarketDataKeeper(Service):
    """Fold one batch of a partition and hand over what changed; write anew what Redis has of an end the log has lost.

    Redis may be ahead of a keeper that starts again, or was paused while another one had its partitions. It is wrong
    only if it is so still when the keeper has read all that the log had after that look; and where a keeper reads a
    partition from the beginning, whose books may have passed what Redis has before they are looked at, in any case.
    """

    def __init__(self, app: ExchangeApp, producer: EventProducer, publisher: RedisPublisher, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._app = app
        self._producer = producer
        self._publisher = publisher
        self._states: Mapping[int, MarketDataState] = {}
        self._begun: set[int] = set()
        # Partitions of which it is not known that all was read that the log had when they came.
        self._unread: set[int] = set()
        self._looks: dict[int, _Look] = {}

    async def process(self, _partition: int, state: MarketDataState, records: tuple[Any, ...]) -> list[SentBatch]:
        """Fold ``records``; Redis need not acknowledge, as what it lacks is written again from the state."""
        self._publisher.publish(state.apply(records), state.books)
        return []

    async def own(self, states: Mapping[int, MarketDataState]) -> None:
        """Publish the books of the partitions that this worker has now."""
        partitions = await self._producer.partition_count(ORDERS_EXCHANGE)
        self._begun = {p for p, state in states.items() if p in self._begun or not state.next_offset}
        self._unread = set(states)
        self._looks.clear()
        self._states = states
        self._publisher.own({partition: state.books for partition, state in states.items()}, partitions)

    @Service.task
    async def _compare_with_redis(self) -> None:
        while not self.should_stop:
            await self.sleep(_LOOK_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        states, ahead = self._states, self._publisher.ahead()
        seen = {partition: ahead & state.books.keys() for partition, state in states.items()}
        tps = [TP(ORDERS_EXCHANGE, p) for p in seen if p not in self._looks and (p in self._unread or seen[p])]
        if tps:
            try:
                ends = await self._app.consumer.highwaters(*tps)
            except Exception as exc:
                # Whatever a consumer says that stops, or has no broker: the next look asks again.
                log.warning("whether Redis is ahead of the log cannot be seen now: %r", exc)
                return
            if self._states is not states:
                return
            self._looks |= {tp.partition: _Look(ends[tp] or 0, seen[tp.partition]) for tp in tps}
        for partition, look in list(self._looks.items()):
            if states[partition].read_offset >= look.end:
                del self._looks[partition]
                self._judge(partition, look.ahead & self._publisher.ahead())

    def why_waiting(self) -> str | None:
        """A sentence while the log has a command's first events alone; None while it has whole ones.

        The place of a state stays at the first of them then, though all that there is was read.
        """
        inside = sorted(p for p, state in self._states.items() if state.read_offset != state.next_offset)
        if not inside:
            return None
        return f"{ORDERS_EXCHANGE}-{inside[0]} ends inside a command; the engine completes it"

    def _judge(self, partition: int, wrong: set[int]) -> None:
        """Make good what is wrong in Redis, of a partition that was read to its end."""
        if wrong:
            log.error(
                "Redis has events of %d symbols, such as %d, that %s-%d has not, which has lost its end; their books "
                "are written anew", len(wrong), min(wrong), ORDERS_EXCHANGE, partition,
            )  # fmt: skip
        self._publisher.write_anew(self._states[partition].books if partition in self._begun else wrong)
        self._publisher.caught_up(partition)
        self._begun.discard(partition)
        self._unread.discard(partition)


def register(app: ExchangeApp) -> None:
    """Let ``app`` keep market data."""
    producer = EventProducer(app.settings.broker_list, client_id="forkast-keeper", keeps_order=True)
    publisher = RedisPublisher(app.settings.redis_url, app.feed)
    table = app.tables.add(SegmentTable(app, MARKET_DATA_TABLE))
    keeper = MarketDataKeeper(app, producer, publisher)
    agent = CheckpointedAgent(
        app,
        ORDERS_EXCHANGE,
        table,
        producer,
        state_type=MarketDataState,
        new_state=lambda partition, _: MarketDataState(partition),
        process=keeper.process,
        on_loaded=keeper.own,
        last_read=lambda state: None if state.last_digest is None else LastRead(digest=state.last_digest),
        fetch_pace=_FETCH_PACE,
    )
    # It waits for the producer, whatever else could be done.
    app.excuses += [producer.why_not_ready, keeper.why_waiting]
    app.ready_checks.append(producer.why_not_ready)
    app.ready_checks.append(publisher.why_not_ready)
    for service in (producer, publisher, agent, keeper):
        app.run_service(service)
