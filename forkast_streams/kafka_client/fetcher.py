"""The fetching half of a consumer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import OffsetResetStrategy, RecordTooLargeError
from aiokafka.errors import (
    KafkaError,
    NoError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition

from forkast_streams.kafka_client.continuity import Continuity
from forkast_streams.kafka_client.fetched import FetchResult, PartitionRecords, RawTopics, leader_epoch_of
from forkast_streams.kafka_client.leaders import LeaderSearch, has_leader
from forkast_streams.kafka_client.pace import Pace
from forkast_streams.limits import FETCH_BYTES_TOGETHER
from forkast_streams.records import LastRead

log = logging.getLogger(__name__)


class PacedFetcher(fetcher.Fetcher):
    """Keeps one fetch under way to each broker, and may let some time pass between two of them.

    aiokafka gathers after each fetch, and once more when its records are taken, everything that may happen next; here
    one future is waited for, which whatever happens resolves. Brokers in other racks are not looked for.

    A fetch that has more to read is not held back, and one behind a fetch without records has waited long enough.

    Attributes:
        pace: how long to wait from a fetch with records to the next one from the same broker.
    """

    _pending_tasks: set[asyncio.Task[Any]]
    _fetch_task: asyncio.Task[None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The base starts the routine.
        self.pace = Pace()
        self._next_at: dict[Any, float] = {}
        # Brokers refuse at once: without a pause they would be asked for all that a core can do.
        self._refused_until: dict[TopicPartition, float] = {}
        self._turn = 0
        self._failed: BaseException | None = None
        self._watched: set[asyncio.Future[Any]] = set()
        self._asked_for: frozenset[TopicPartition] = frozenset()
        self._fetched: frozenset[TopicPartition] | None = None
        self._continuity = Continuity(self._connection_to)
        super().__init__(*args, **kwargs)
        self._leader_search = LeaderSearch(self._client, self._retry_backoff, self._wake)

    async def fetched_records(
        self,
        partitions: Any,
        timeout: float = 0,  # noqa: ASYNC109 - the overridden method has it
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Any]]:
        """What was fetched of ``partitions``, waiting at most ``timeout`` seconds for something."""
        if partitions != self._asked_for:
            self._ask_for(frozenset(partitions))
        deadline = self._loop.time() + timeout
        while True:
            drained: dict[TopicPartition, list[Any]] = await super().fetched_records(partitions, 0, max_records)
            left = deadline - self._loop.time()
            if drained or left <= 0:
                return drained
            waiter = self._create_fetch_waiter()
            timer = self._loop.call_later(left, self._notify, waiter)
            try:
                # Errors of the group come this way, too.
                await waiter
            finally:
                timer.cancel()
            if self._closed:
                return {}

    def failure(self) -> BaseException | None:
        """What has ended the fetching; None while it goes on, or when it was ended on purpose."""
        task = self._fetch_task
        if self._closed or not task.done():
            return None
        return KafkaError("it was cancelled") if task.cancelled() else task.exception() or KafkaError("it has ended")

    def rewind(self, tp: TopicPartition, offset: int) -> None:
        """Fetch ``tp`` from ``offset`` on again; not if it is not assigned any more, or read from further back."""
        subscription = self._subscriptions.subscription
        assignment = None if subscription is None else subscription.assignment
        state = None if assignment is None else assignment.state_value(tp)
        if state is not None and state.has_valid_position and state.position > offset:
            state.seek(offset)
            # What was fetched from further on is in nobody's turn now.
            self._records.pop(tp, None)
            self._wake()

    def expect_before(self, tp: TopicPartition, offset: int, known: LastRead) -> None:
        """Read on only if the record before ``offset`` is the one that is ``known``."""
        self._continuity.expect(tp, offset, known)
        self._wake()

    def _connection_to(self, node_id: Any) -> object:
        """The connection over which a broker is asked; another object each time where none is open.

        The client opens a new one in the place of one that has ended without a word.
        """
        connection = self._client._conns.get((node_id, ConnectionGroup.DEFAULT))  # noqa: SLF001 - has no public name
        return connection if connection is not None and connection.connected() else object()

    def _is_raw(self, tp: TopicPartition) -> bool:
        return isinstance(self._value_deserializer, RawTopics) and tp.topic in self._value_deserializer

    def _ask_for(self, partitions: frozenset[TopicPartition]) -> None:
        """From the first batch topic on, fetch nothing that nobody asks for.

        A recovered changelog stays assigned, and what a worker writes there would come back to it; before, a fetch must
        not wait behind one that does not name its partition.
        """
        is_recovered = any(map(self._is_raw, partitions))
        self._asked_for, self._fetched = partitions, partitions if is_recovered else None
        self._wake()

    async def _fetch_requests_routine(self) -> None:
        assignment: Any = None
        try:
            while True:
                if assignment is None or not assignment.active:
                    await self._end_pending()
                    assignment = await self._next_assignment()
                    continue
                # Resolved, too, when records are taken.
                wake = self._wait_consume_future = self._loop.create_future()
                timer = self._loop.call_later(self._begin_what_is_due(assignment), self._wake)
                await wake
                timer.cancel()
                self._pending_tasks = {task for task in self._pending_tasks if not task.done()}
                if self._failed is not None:
                    raise self._failed
        except asyncio.CancelledError:
            pass
        except Exception as exc:
            log.exception("unexpected error in the consumer's fetcher")
            raise KafkaError("Unexpected error during data retrieval") from exc

    def _wake(self, _: object = None) -> None:
        self._notify(self._wait_consume_future)

    async def _end_pending(self) -> None:
        for task in self._pending_tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._pending_tasks.clear()
        self._records.clear()

    async def _next_assignment(self) -> Any:
        """The partitions to fetch; those who wait for records are told what goes wrong with the group."""
        subscription = self._subscriptions.subscription
        if subscription is None or subscription.assignment is None:
            with contextlib.suppress(KafkaError):
                await self._subscriptions.wait_for_assignment()
            subscription = self._subscriptions.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is not None:
            assert assignment.active, "a new one takes the place of one that ends"
            assignment.unassign_future.add_done_callback(self._wake)
        return assignment

    def _begin_what_is_due(self, assignment: Any) -> float:
        """Begin the fetches and look-ups of positions that can be; return after how many seconds to look again."""
        requests, resets, timeout, has_unknown_leaders, resumed = self._get_actions_per_node(assignment)
        for node_id, request in requests:
            self._begin(node_id, self._proc_fetch_request(assignment, node_id, request))
        for node_id, tps in resets.items():
            self._begin(node_id, self._update_fetch_positions(assignment, node_id, tps))
        if has_unknown_leaders:
            self._leader_search.begin()
        for future in resumed:
            if future not in self._watched:
                self._watched.add(future)
                future.add_done_callback(self._watched.discard)
                future.add_done_callback(self._wake)
        return timeout

    def _begin(self, node_id: Any, action: Coroutine[Any, Any, Any]) -> None:
        self._in_flight.add(node_id)
        task = asyncio.create_task(action)
        self._pending_tasks.add(task)
        task.add_done_callback(lambda task: self._ended(node_id, task))

    def _ended(self, node_id: Any, task: asyncio.Task[Any]) -> None:
        self._in_flight.discard(node_id)
        if not task.cancelled():
            self._failed = task.exception() or self._failed
            if self._failed is None and task.result():
                for waiter in self._fetch_waiters:
                    self._notify(waiter)
        self._wake()

    def _get_actions_per_node(
        self, assignment: Any
    ) -> tuple[list[tuple[Any, FetchRequest]], dict[Any, list[TopicPartition]], float, bool, list[asyncio.Future[Any]]]:
        """What to do next, as aiokafka decides it; a broker with a request under way is left alone."""
        leader_of = self._client.cluster.leader_for_partition
        backoffs: dict[Any, float] = {}
        for tp, result in self._records.items():
            # Records that nobody takes must not keep other partitions for ever.
            backoff = result.calculate_backoff()
            if backoff:
                node_id = leader_of(tp)
                backoffs[node_id] = max(backoff, backoffs.get(node_id, 0.0))
        timeout = min(backoffs.values()) if backoffs else self._fetcher_timeout
        fetchable: defaultdict[Any, list[tuple[TopicPartition, int]]] = defaultdict(list)
        awaiting_reset: defaultdict[Any, list[TopicPartition]] = defaultdict(list)
        resumed: list[asyncio.Future[Any]] = []
        has_unknown_leaders = False
        in_flight, fetched = self._in_flight, self._fetched
        refused_s = self._seconds_refused()
        for tp in assignment.tps:
            node_id = leader_of(tp)
            if node_id in in_flight or node_id in backoffs or tp in self._records:
                continue
            state = assignment.state_value(tp)
            if not has_leader(self._client.cluster, tp):
                has_unknown_leaders = True
            elif not state.has_valid_position:
                awaiting_reset[node_id].append(tp)
            elif state.paused:
                resumed.append(state.resume_fut)
            elif tp in refused_s:
                timeout = min(timeout, refused_s[tp])
            elif fetched is None or tp in fetched:
                fetchable[node_id].append((tp, self._continuity.start(tp, state.position, node_id)))
        # First it must be known from where all partitions of a broker are read.
        requests = [
            (node_id, self._request(partitions))
            for node_id, partitions in fetchable.items()
            if node_id not in awaiting_reset
        ]
        return requests, awaiting_reset, timeout, has_unknown_leaders, resumed

    def _seconds_refused(self) -> dict[TopicPartition, float]:
        """The partitions that a broker has just refused, and for how long they are left alone."""
        if not self._refused_until:
            return {}
        now = time.monotonic()
        self._refused_until = {tp: until for tp, until in self._refused_until.items() if until > now}
        return {tp: until - now for tp, until in self._refused_until.items()}

    def _request(self, partitions: list[tuple[TopicPartition, int]]) -> FetchRequest:
        """A fetch from ``partitions``, of which each comes first in its turn.

        Only of the first one that has records a broker sends a batch that is larger than asked for.
        """
        self._turn = (self._turn + 1) % len(partitions)
        partitions = partitions[self._turn :] + partitions[: self._turn]
        # Of many workers each has few partitions, and would pay as much for smaller fetches.
        share = FETCH_BYTES_TOGETHER // max(1, len(self._asked_for))
        size = max(self._max_partition_fetch_bytes, share)
        by_topic: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for tp, position in partitions:
            by_topic[tp.topic].append((tp.partition, position, size))
        return FetchRequest(
            self._fetch_max_wait_ms,
            self._fetch_min_bytes,
            self._fetch_max_bytes,
            self._isolation_level,
            list(by_topic.items()),
            rack_id="",
        )

    async def _proc_fetch_request(self, assignment: Any, node_id: Any, request: Any) -> bool:
        """Fetch from a broker; return whether there is something for those who wait for records."""
        wait_s = self._next_at.get(node_id, 0.0) - time.monotonic()
        try:
            if wait_s > 0 and not _has_more(assignment, request):
                await asyncio.sleep(wait_s)
            has_new, size = await self._fetch(assignment, node_id, request)
        except KafkaError as exc:
            log.warning("a fetch from broker %s failed: %s", node_id, exc)
            await asyncio.sleep(self._retry_backoff)
            return False
        except asyncio.CancelledError:
            # The partitions go, or the consumer ends.
            return False
        if has_new:
            self._next_at[node_id] = time.monotonic() + self.pace.seconds_after(size)
        return has_new

    async def _fetch(self, assignment: Any, node_id: Any, request: Any) -> tuple[bool, int]:
        """Whether there is something for those who wait for records, and the bytes of what there is."""
        response = await self._client.send(node_id, request)
        if not assignment.active:
            return False, 0
        positions = {
            (topic, partition): position
            for topic, partitions in request.topics
            for partition, position, _ in partitions
        }
        fetched_ms, has_new, size = int(1000 * time.time()), False, 0
        for topic, partitions in response.topics:
            for partition in partitions:
                number, error_code, highwater, last_stable = partition[:4]
                tp = TopicPartition(topic, number)
                state, asked = assignment.state_value(tp), positions[topic, number]
                if not state.has_valid_position or asked != self._continuity.start(tp, state.position, node_id):
                    # Somebody has sought to another place meanwhile, or the connection is another one.
                    continue
                if error_code:
                    has_new |= self._refused(tp, asked, state, for_code(error_code))
                    continue
                state.highwater, state.lso, state.timestamp = highwater, last_stable, fetched_ms
                if records := partition[-1]:
                    has_new |= self._take(tp, node_id, assignment, aborted=partition[5], records=records)
                    size += len(records)
        return has_new, size

    def _take(self, tp: TopicPartition, node_id: Any, assignment: Any, *, aborted: Any, records: bytes) -> bool:
        """Keep the records of a partition until somebody takes them."""
        found, position = MemoryRecords(records), assignment.state_value(tp).position
        if found.has_next():
            leader_epoch = leader_epoch_of(records)
            if self._continuity.is_of_new_leader(tp, node_id, position, leader_epoch):
                return False
            before, connection = self._continuity.doubted(tp, position, node_id), self._connection_to(node_id)
            self._records[tp] = FetchResult(
                tp,
                partition_records=PartitionRecords(
                    tp,
                    found,
                    aborted,
                    position,
                    self._key_deserializer,
                    self._value_deserializer,
                    self._check_crcs,
                    self._isolation_level,
                    fetched=records,
                    accept=partial(self._continuity.accept, tp, connection, leader_epoch, before),
                ),
                assignment=assignment,
                backoff=self._prefetch_backoff,
            )
            return True
        message = (
            f"the record at {tp.topic}-{tp.partition} offset {position} is larger than a fetch may be, "
            f"{self._max_partition_fetch_bytes} bytes; let fetches be larger, or records smaller"
        )
        self._set_error(tp, RecordTooLargeError(message))
        assignment.state_value(tp).consumed_to(position + 1)
        return True

    def _refused(self, tp: TopicPartition, position: int, state: Any, error: type[KafkaError]) -> bool:
        """The broker has an error instead of records; return whether those who wait for records must know."""
        assert error is not NoError, "that is none"
        if error is TopicAuthorizationFailedError:
            log.warning("no permission to read from topic %s", tp.topic)
            self._set_error(tp, TopicAuthorizationFailedError(tp.topic))
            return True
        if error is not OffsetOutOfRangeError:
            if error not in (NotLeaderForPartitionError, UnknownTopicOrPartitionError):
                log.warning("a fetch from %s-%d failed: %s", tp.topic, tp.partition, error.__name__)
            self._refused_until[tp] = time.monotonic() + self._retry_backoff
            self._continuity.refused(tp)
            self._client.force_metadata_update()
            return False
        log.info("offset %d of %s-%d is not in the log any more", position, tp.topic, tp.partition)
        if self._default_reset_strategy == OffsetResetStrategy.NONE or self._is_raw(tp):
            # To begin anew would hide that something is gone: raw topics are read from where a state was made of them.
            self._set_error(tp, OffsetOutOfRangeError({tp: position}))
            return True
        state.await_reset(self._default_reset_strategy)
        return False


def _has_more(assignment: Any, request: Any) -> bool:
    """Whether a partition of ``request`` is known to go on behind the place from which it is read."""
    for topic, partitions in request.topics:
        for partition, offset, _ in partitions:
            highwater = assignment.state_value(TopicPartition(topic, partition)).highwater
            if highwater is None or highwater > offset:
                return True
    return False
