"""Faust's Kafka transport, delivering whole fetched batches.

A plain Faust agent pays about 100 µs a record for tasks, futures and queues. For topics made by ``batch_topic`` this
transport delivers one message per fetch and partition, whose value is the tuple of the fetched records; assignment,
rebalance, recovery, tables, agents and web stay Faust's. docs/architecture.md lists where private names of Faust 0.15.3
are used; ``tests/unit/test_transport.py`` fails at another version, and when a method that is overridden has changed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import aiokafka
import faust
from aiokafka.errors import OffsetOutOfRangeError
from faust.transport.consumer import ConsumerMessage
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, TopicT
from mode import Service
from mode.services import WaitResults
from mode.utils.futures import maybe_async

from forkast_streams.errors import CorruptLog
from forkast_streams.failfast import fail_fast
from forkast_streams.kafka_client import Pace, PacedFetcher, RawTopics, read_raw
from forkast_streams.records import LastRead

# aiokafka's own 1.5 s would hold the single fetch slot of a broker connection at a seek for that long.
_FETCH_WAIT_MAX_MS = 100
_IDLE_POLL_S = 0.05
_REBALANCE_POLL_S = 0.1


class _RawSchema(faust.Schema):
    """Hands the records of a batch through undecoded."""

    def loads_key(self, _app: AppT, message: Any, **_: Any) -> Any:
        """The key as it is."""
        return message.key

    def loads_value(self, _app: AppT, message: Any, **_: Any) -> Any:
        """The tuple of records."""
        return message.value


def batch_topic(app: AppT, name: str) -> TopicT:
    """Declare a topic whose events carry the records of one fetch from one partition, in order."""
    transport = app.transport
    assert isinstance(transport, BatchTransport), "set app.transport to a BatchTransport first"
    transport.batch_topics.add(name)
    return app.topic(name, schema=_RawSchema())


class _ConsumerOnLoop(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread without the thread: the Kafka client runs on the worker's own event loop.

    With a thread each fetch wakes two loops in turn, which costs a worker that keeps up a tenth of its time and each
    order a third of its way. What the client must do in time, its heartbeats, waits for the batch in hand instead: the
    longest one, an order that takes a million others, is some seconds of the session's ten. A worker that is late
    joins again, and goes on with the state it has.
    """

    # There is no thread whose end the parent has to be told.
    wait_for_shutdown = False

    def __init__(self, consumer: Any, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)

    # Those of a service like any other, in place of those that reach into a thread.
    maybe_start = Service.maybe_start
    start = Service.start
    stop = Service.stop
    crash = Service.crash
    set_shutdown = Service.set_shutdown
    _stopped_set = Service._stopped_set
    _stop_children = Service._default_stop_children
    _stop_futures = Service._default_stop_futures
    _stop_exit_stacks = Service._default_stop_exit_stacks

    async def on_stop(self) -> None:
        """What a thread does before its end."""
        await self.on_thread_stop()

    async def call_thread(self, fun: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """Call at once what would be queued for the thread."""
        return await maybe_async(fun(*args, **kwargs))

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MAX_MS
        read_raw(consumer, transport.batch_topics)
        return consumer

    async def on_start(self) -> None:
        """Connect; only then there is a fetcher, which has no partitions yet."""
        await super().on_start()
        if (fetcher := _fetcher_of(self)) is not None:
            fetcher.pace = self.transport.fetch_pace

    async def on_thread_stop(self) -> None:
        """Leave the group, so that other workers take the partitions over at once and not after the session.

        aiokafka leaves for dynamic members only. A worker that crashes is still let back in without a rebalance.
        """
        coordinator = getattr(self._consumer, "_coordinator", None)
        if coordinator is not None:
            coordinator._group_instance_id = None
        await super().on_thread_stop()

    def failure(self) -> BaseException | None:
        """What ended the client's fetching, or its coordination with its group; None while both go on.

        aiokafka logs an unexpected error there and goes on without records, or without heartbeats, commits and
        assignments.
        """
        fetcher = _fetcher_of(self)
        if fetcher is not None and (failure := fetcher.failure()) is not None:
            return failure
        coordinator = getattr(self._consumer, "_coordinator", None)
        if coordinator is None:
            return None
        try:
            coordinator.check_errors()
        except asyncio.CancelledError:
            return None
        except Exception as exc:
            return exc
        return None


def _fetcher_of(thread: Any) -> PacedFetcher | None:
    """None for a client that only writes."""
    fetcher = getattr(thread._consumer, "_fetcher", None)
    return fetcher if isinstance(fetcher, PacedFetcher) else None


class BatchConsumer(driver.Consumer):
    """Delivers batches, commits only what is acknowledged without a hole, and seeks to the restored positions.

    Attributes:
        positions: for each assigned batch partition the offset up to which everything is acknowledged, exclusive.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._in_flight: dict[TP, deque[ConsumerMessage]] = defaultdict(deque)
        self.positions: dict[TP, int] = {}
        # Whether the last message was not taken before the flow stopped.
        self._is_refused = False
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _ConsumerOnLoop(self, loop=self.loop, beacon=self.beacon)

    async def sleep(self, n: Any) -> None:
        """Faust sleeps for no time between two fetches; mode's look for a stop costs more than that."""
        await (super().sleep(n) if n else asyncio.sleep(0))

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - as overridden
        """Hand a message over as Faust does, beside waits for other ends, which begin only if it is not taken at once.

        All of them are a task, and most messages are taken within a turn of the loop.
        """
        if not all(map(asyncio.iscoroutine, coros)):
            # Something else that is waited for, such as an event.
            return await super().wait_first(*coros, timeout=timeout)
        handing_over = asyncio.ensure_future(coros[0])
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            handing_over.cancel()
            raise
        if not handing_over.done():
            result = await super().wait_first(handing_over, *coros[1:], timeout=timeout)
            self._is_refused = not handing_over.done() or handing_over.cancelled()
            return result
        for other in coros[1:]:
            other.close()
        return WaitResults([coros[0]], [handing_over.result()], self.should_stop)

    def _is_batch(self, tp: TP) -> bool:
        return tp.topic in self.transport.batch_topics

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - the overridden method has it
        if self.app.client_only:
            return await super()._wait_next_records(timeout)
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = set(self._get_active_partitions())
        if self.app.rebalancing:
            # Faust resumes the partitions before it has sought; what is fetched in between would be out of place.
            active = {tp for tp in active if not self._is_batch(tp)}
            timeout = min(timeout, _REBALANCE_POLL_S)
        if not active:
            # An empty set would mean all partitions to aiokafka.
            await self.sleep(_IDLE_POLL_S)
            return {}, active
        try:
            return await self._getmany(active_partitions=active, timeout=timeout), active
        except (CorruptLog, OffsetOutOfRangeError) as exc:
            fail_fast("reading the log", exc)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - as above
        """Yield a batch per partition for batch topics, single messages for others (changelogs).

        What is fetched and not handed over, because the flow has stopped meanwhile, is fetched again. Faust drops it,
        and reads on behind it: a standby's table would have a hole that nobody sees.
        """
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        waiting = deque(self._in_turn(records))
        self._is_refused = False
        try:
            while waiting and self.flow_active and not self.should_stop:
                tp, fetched = waiting[0]
                if self.app.consumer_generation_id != generation:
                    return
                if active is None or tp in active or tp in self._buffered_partitions:
                    self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                    if self._is_batch(tp):
                        message = self._batch_message(tp, fetched, generation)
                        self._in_flight[tp].append(message)
                    else:
                        message = self._to_message(tp, fetched[0])
                    yield tp, message
                    if self._was_refused():
                        return
                waiting.popleft()
        finally:
            self._give_back(waiting)

    def _in_turn(self, records: Mapping[Any, list[Any]]) -> Iterator[tuple[TP, list[Any]]]:
        """What was fetched, as it is handed over: batches whole, the others one by one."""
        others = {}
        for key, fetched in records.items():
            tp = TP(key.topic, key.partition)
            if self._is_batch(tp):
                yield tp, fetched
            else:
                others[key] = fetched
        for tp, record in self.scheduler.iterate(others):
            yield tp, [record]

    def _give_back(self, waiting: Iterable[tuple[TP, list[Any]]]) -> None:
        """Have ``waiting`` fetched again."""
        firsts: dict[TP, int] = {}
        for tp, fetched in waiting:
            firsts.setdefault(tp, fetched[0].offset)
        for tp, offset in firsts.items():
            self._rewind(tp, offset)

    def _was_refused(self) -> bool:
        # A call, as mypy would take what was written before the message was handed over for what is there after it.
        return self._is_refused

    def _rewind(self, tp: TP, offset: int) -> None:
        """Read ``tp`` from ``offset`` on, unless somebody has sought further back."""
        # Faust drops what is not behind the last message.
        self._read_offset[tp] = None
        if (fetcher := _fetcher_of(self._thread)) is not None:
            fetcher.rewind(tp, offset)

    def _batch_message(self, tp: TP, records: list[Any], generation: int) -> ConsumerMessage:
        last = records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            (),
            None,
            tuple(records),
            None,
            0,
            0,
            tp,
            generation_id=generation,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # The offsets between the last records of two batches are no gap.
        if not self._is_batch(tp):
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if not self._is_batch(tp):
            return cast("int | None", super()._new_offset(tp))
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        waiting = self._in_flight[tp]
        while waiting and waiting[0].acked:
            self.positions[tp] = int(waiting.popleft().offset) + 1
        # Faust commits it when it is more than what was committed before.
        return self.positions.get(tp)

    def on_buffer_full(self, tp: TP) -> None:
        """Let the full queue of a batch topic block the conductor: that is the back-pressure."""
        if not self._is_batch(tp):
            super().on_buffer_full(tp)

    async def perform_seek(self) -> None:
        """Seek the batch partitions to where their restored state says; the committed offset is only a hint."""
        await super().perform_seek()
        self._in_flight.clear()
        self.positions.clear()
        restore = self.transport.restore_positions
        assigned = {tp for tp in self.assignment() if self._is_batch(tp)}
        if restore is not None and assigned:
            positions = await restore(assigned)
            for tp, offset in positions.items():
                await self.seek(tp, offset)
                self._expect_before(tp, offset)
                # Among those that the next commit looks at: one that a crash has cut off is made up for without a
                # new record, so that whoever looks at the group sees what is answered.
                self._acked.setdefault(tp, [])
            self.positions.update(positions)

    def _expect_before(self, tp: TP, offset: int) -> None:
        last_read = self.transport.last_read
        known = None if last_read is None else last_read(tp)
        if known is not None and (fetcher := _fetcher_of(self._thread)) is not None:
            fetcher.expect_before(tp, offset, known)

    async def wait_empty(self) -> None:
        """Let the agents finish and make durable what they have in hand, then commit; on revocation and at stop."""
        for drain in self.transport.drains:
            await drain()
        await self.commit()
        self._in_flight.clear()
        self._unacked_messages.clear()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Commit what is acknowledged before the partitions go."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._in_flight.pop(tp, None)
            self.positions.pop(tp, None)

    def failure(self) -> BaseException | None:
        """What ended the client's work for the group; None while it runs."""
        thread = self._thread
        return thread.failure() if isinstance(thread, _ConsumerOnLoop) else None


class BatchTransport(driver.Transport):
    """The transport with its hooks.

    Attributes:
        batch_topics: names of the topics that are delivered in batches.
        restore_positions: called after each rebalance with the assigned batch partitions; returns the offset from
            which each must be read.
        last_read: tells what is known of the record before that place; None where nobody knows or there is no such
            record any more. Where another one is, the log has lost its end and has grown again, and the worker stops.
        drains: called before partitions go and before the worker stops.
        fetch_pace: between two fetches of a worker that keeps up.
    """

    Consumer = BatchConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch_topics = RawTopics()
        self.restore_positions: Callable[[set[TP]], Awaitable[Mapping[TP, int]]] | None = None
        self.last_read: Callable[[TP], LastRead | None] | None = None
        self.drains: list[Callable[[], Awaitable[None]]] = []
        self.fetch_pace = Pace()


class Idle:
    """Tells whether an agent is inside a batch, so that a drain can wait for its end."""

    def __init__(self) -> None:
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self._idle.clear()

    def __exit__(self, *exc_info: object) -> None:
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether the agent is between two batches."""
        return self._idle.is_set()

    async def wait(self) -> None:
        """Return when the agent is between two batches; it may have begun another one before the waiter's turn."""
        while not self._idle.is_set():
            await self._idle.wait()
