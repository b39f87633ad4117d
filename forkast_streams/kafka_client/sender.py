"""The sending half of a producer."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from aiokafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.producer import message_accumulator, sender
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import RecordMetadata, TopicPartition

from forkast_streams.kafka_client.leaders import LeaderSearch, has_leader

log = logging.getLogger(__name__)

# Of a partition, with what a process may hold of them: a batch of inputs leads to some five.
_BATCHES_WAITING_MAX = 8
# Seconds after which a batch that Kafka has not taken counts as held up; a new leader is there sooner.
_HELD_UP_S = 5.0
# A worker makes a batch a partition of what it has fetched, with so many turns of the event loop from one to the next.
GATHER_TURNS = 3
# How many batches in a row a request waits for.
_GATHERED_MAX = 10
# Those after which no batch can be delivered any more; others are logged.
_FATAL = (ProducerFenced, OutOfOrderSequenceNumber, TransactionalIdAuthorizationFailed)


class Accumulator(message_accumulator.MessageAccumulator):
    """Takes several batches of a partition, where aiokafka's takes one and lets the next wait until that is sent.

    The outputs of a batch of inputs are several requests long, and a worker would stand still for as many round trips.
    They leave one after the other, in their order, retries among them.

    Attributes:
        added: how many batches were taken so far.
        keeps_order: whether nothing of a partition may be in the log behind a batch that is not; then the sender ends
            when one fails for good.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.added = 0
        self.keeps_order = False

    async def add_batch(
        self,
        builder: BatchBuilder,
        tp: TopicPartition,
        timeout: float,  # noqa: ASYNC109 - the overridden method has it
    ) -> asyncio.Future[RecordMetadata]:
        """Let a finished batch be sent; wait only when there are too many, and, where order is kept, without an end."""
        self.added += 1
        while len(self._batches.get(tp, ())) >= _BATCHES_WAITING_MAX:
            await self._batches[tp][0].wait_drain(timeout=None if self.keeps_order else timeout)
            if not self.keeps_order:
                # Whoever has been too late for that room waits below, and is told if that is too long.
                break
        waiting = self._batches.get(tp, ())
        acknowledged: asyncio.Future[RecordMetadata]
        if waiting and len(waiting) < _BATCHES_WAITING_MAX and not self._closed and self._exception is None:
            acknowledged = asyncio.shield(self._append_batch(builder, tp).future)
        else:
            acknowledged = await super().add_batch(builder, tp, timeout)
        return acknowledged

    def give_up_expired(self) -> set[TopicPartition]:
        """Give up the batches that are still to be sent after their lifetime; return where one of them has a number.

        Then that is missing at the broker, which refuses all that come behind it. aiokafka gives up only what has no
        leader, and numbers it to do so.
        """
        holes: set[TopicPartition] = set()
        for tp in list(self._batches):
            waiting = self._batches[tp]
            while waiting and waiting[0].expired():
                batch = waiting.popleft()
                failure: KafkaError = KafkaTimeoutError("it was not sent")
                if batch.retry_count:
                    holes.add(tp)
                    failure = RequestTimedOutError("it was sent; whether the log has it is unknown")
                    # From where a numbered one is taken when it is done.
                    self._pending_batches.add(batch)
                # Whoever waits for room goes on.
                batch.drain_ready()
                batch.failure(failure)
            if not waiting:
                del self._batches[tp]
        return holes

    def drain_by_nodes(
        self, ignore_nodes: Any, muted_partitions: Any = frozenset()
    ) -> tuple[dict[Any, dict[TopicPartition, Any]], bool]:
        """The batches that can be sent, by broker; those that keep order wait for theirs however long it is away."""
        for tp in self._batches if self.keeps_order else ():
            if not has_leader(self._cluster, tp):
                self._batches[tp][0]._ttl = math.inf  # noqa: SLF001 - has no public name
        found: tuple[dict[Any, dict[TopicPartition, Any]], bool] = super().drain_by_nodes(
            ignore_nodes, muted_partitions
        )
        return found

    def held_up(self) -> set[TopicPartition]:
        """The partitions of which Kafka takes nothing: it has no leader, or one that refuses or is silent."""
        now = time.monotonic()
        first = [waiting[0] for waiting in self._batches.values() if waiting]
        return {
            batch.tp
            for batch in (*first, *self._pending_batches)
            if now - batch._ctime > _HELD_UP_S  # noqa: SLF001 - has no public name
            and (batch.retry_count or not has_leader(self._cluster, batch.tp))
        }

    def number_by(self, manager: TransactionManager) -> None:
        """Give the batches that have no number yet those of ``manager``."""
        self._txn_manager = manager

    def wake(self) -> None:
        """Let the sender look again at what can be sent."""
        self._wakeup(self._waiter_future)


class Sender(sender.Sender):
    """Waits for one future, which whatever happens resolves; aiokafka's gathers everything that may happen anew.

    A request to a broker is under way once at a time, so what comes meanwhile leaves together.

    Attributes:
        gather_turns: how many turns of the event loop a request waits for one more batch.
    """

    gather_turns = GATHER_TURNS
    _txn_manager: TransactionManager | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # By broker with a request under way.
        self._ended: dict[Any, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Where a number is missing at the broker: they wait for another producer's numbers.
        self._holes: set[TopicPartition] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def until_free(self, tp: TopicPartition) -> None:
        """Wait until no request to the leader of ``tp`` is under way: what is handed over then leaves at once."""
        while (ended := self._ended.get(self.client.cluster.leader_for_partition(tp))) is not None:
            await ended.wait()

    async def _sender_routine(self) -> None:
        assert self._txn_manager is None or self._txn_manager.transactional_id is None, "transactions are not used"
        accumulator: Accumulator = self._message_accumulator
        leader_search = LeaderSearch(self.client, self._retry_backoff, accumulator.wake)
        try:
            while True:
                await self._gather(accumulator)
                if not accumulator.keeps_order:
                    self._note_holes(accumulator.give_up_expired())
                nodes, unknown_leaders_exist = accumulator.drain_by_nodes(
                    ignore_nodes=self._in_flight, muted_partitions=self._muted_partitions | self._holes
                )
                for node_id, batches in nodes.items():
                    self._in_flight.add(node_id)
                    self._ended[node_id] = asyncio.Event()
                    self._muted_partitions.update(batches)
                    self._start(self._send_produce_req(node_id, batches))
                if unknown_leaders_exist:
                    leader_search.begin()
                await accumulator.waiter()
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.remove(task)
                    # It raises when the producer can go on no more.
                    task.result()
        except asyncio.CancelledError:
            for task in self._tasks - {self._renewal}:
                await task
        except _FATAL:
            raise
        except Exception as exc:
            log.exception("unexpected error in the producer's sender")
            raise KafkaError("Unexpected error during batch delivery") from exc
        finally:
            if self._renewal is not None:
                self._renewal.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._message_accumulator.wake())
        self._tasks.add(task)
        return task

    async def _gather(self, accumulator: Accumulator) -> None:
        """Let batches that come within a few turns of the loop leave in one request."""
        for _ in range(_GATHERED_MAX):
            added = accumulator.added
            for _ in range(self.gather_turns):
                await asyncio.sleep(0)
            if accumulator.added == added:
                return

    async def _send_produce_req(self, node_id: Any, batches: dict[TopicPartition, Any]) -> None:
        try:
            await sender.SendProduceReqHandler(self, batches).do(node_id)
            failures = {
                tp: failure
                for tp, batch in batches.items()
                if batch.future.done() and (failure := batch.future.exception()) is not None
            }
            if failures and self._message_accumulator.keeps_order:
                # Neither broker nor partition is free again: nothing leaves until the end.
                raise next(iter(failures.values()))
            self._note_holes(failures)
            self._in_flight.remove(node_id)
            self._muted_partitions.difference_update(batches)
        finally:
            self._ended.pop(node_id).set()

    def _note_holes(self, holes: Iterable[TopicPartition]) -> None:
        """Number what comes behind a batch that has failed for good as another producer's: its number is missing.

        The broker would refuse every later batch of these partitions, so they wait.
        """
        if self._txn_manager is None:
            return
        self._holes.update(holes)
        if self._holes and self._renewal is None:
            self._renewal = self._start(self._renew_numbers(self._txn_manager))

    async def _renew_numbers(self, old: TransactionManager) -> None:
        """Become another producer; batches under way keep their numbers.

        Partitions without a hole go on meanwhile: the broker that is asked may be one that is silent.
        """
        # aiokafka puts the number into the manager of the sender that asks.
        asking = copy.copy(self)
        asking._txn_manager = new = TransactionManager(None, old.transaction_timeout_ms)  # noqa: SLF001 - as this one's
        while not await asking._do_init_pid(self.client.get_random_node()):  # noqa: SLF001 - as above
            # What waits may have to be given up.
            self._message_accumulator.wake()
            await self.client.force_metadata_update()
        self._txn_manager, self._renewal = new, None
        self._message_accumulator.number_by(new)
        self._holes.clear()
