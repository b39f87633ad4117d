"""Sending: what becomes of the batches behind one that failed for good, whose number the broker misses."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from aiokafka.producer import producer as aiokafka_producer
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.memory_records import MemoryRecords

from forkast_streams.kafka_client import sender
from forkast_streams.producer import EventProducer
from tests.support.sending import TP, Cluster, add, batch_of

OTHER = TopicPartition(TP.topic, 4)


class _CountingBroker:
    """Takes a producer's batches of a partition only in the order of their numbers, as brokers do."""

    _client_id = "one"

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.error = 0
        self.taken = self.refused = self.looked_for_leaders = 0
        self.is_away = self.loses_answers = self.names_none = False
        self.answers = asyncio.Event()
        self.names_producers = asyncio.Event()
        self.answers.set()
        self.names_producers.set()
        self._producers = itertools.count()
        self._expected: defaultdict[tuple[int, int], int] = defaultdict(int)

    async def send(self, _node: int, request: Any, **_: Any) -> Any:
        """Name a producer, or take its batches."""
        if isinstance(request, InitProducerIdRequest):
            await self.names_producers.wait()
            if self.names_none:
                raise NodeNotReadyError
            return SimpleNamespace(error_code=0, producer_id=next(self._producers), producer_epoch=0)
        await self.answers.wait()
        if self.is_away:
            raise NodeNotReadyError
        [(_, partitions)] = request._topics
        answers = [(number, self._take(number, bytes(data)), 40, -1, 0) for number, data in partitions]
        if self.loses_answers:
            raise KafkaConnectionError
        return ProduceResponse_v7([(TP.topic, answers)], 0)

    def _take(self, number: int, data: bytes) -> int:
        batch = MemoryRecords(data).next_batch()
        of_producer = batch.producer_id, number
        error = self.error or (
            0 if batch.base_sequence == self._expected[of_producer] else OutOfOrderSequenceNumber.errno
        )
        if error:
            self.refused += 1
        else:
            self.taken += 1
            self._expected[of_producer] += len(list(batch))
        return error

    async def _maybe_wait_metadata(self) -> None:
        """It is there."""

    def get_random_node(self) -> int:
        """The one there is."""
        return 0

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """The leader is as before, which takes a moment to find out."""
        self.looked_for_leaders += 1
        return asyncio.ensure_future(asyncio.sleep(0.001, True))


@pytest.fixture
async def numbering() -> AsyncIterator[tuple[_CountingBroker, Any]]:
    """A broker that counts, and the accumulator of an idempotent producer, whose batches live for 0.05 s."""
    broker = _CountingBroker()
    manager = TransactionManager(None, 1_000)
    accumulator = aiokafka_producer.MessageAccumulator(broker.cluster, 1_000, None, 0.05, txn_manager=manager)
    one = sender.Sender(
        broker,
        acks=-1,
        txn_manager=manager,
        message_accumulator=accumulator,
        retry_backoff_ms=10,
        request_timeout_ms=1_000,
    )
    await one.start()
    yield broker, accumulator
    one.sender_task.cancel()
    await asyncio.gather(one.sender_task, return_exceptions=True)
    # Or each is told of when it is collected, in the middle of another test.
    for batch in itertools.chain(accumulator._pending_batches, *accumulator._batches.values()):
        if batch._drain_waiter.done():
            batch._drain_waiter.exception()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of a broker that is no coroutine
            await asyncio.sleep(0.001)


async def _send(accumulator: Any) -> Any:
    return await (await add(accumulator, b"v"))


async def test_a_batch_that_failed_for_good_takes_no_later_one_with_it(numbering: tuple[_CountingBroker, Any]) -> None:
    """A missing permission, for instance: its number is missing at the broker, too."""
    broker, accumulator = numbering
    assert (await _send(accumulator)).offset == 40
    broker.error = TopicAuthorizationFailedError.errno
    with pytest.raises(TopicAuthorizationFailedError):
        await _send(accumulator)
    broker.error = 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40


@pytest.mark.parametrize("turns", range(12))
async def test_a_batch_may_fail_while_others_are_being_gathered(
    numbering: tuple[_CountingBroker, Any], turns: int
) -> None:
    """At whatever turn of the loop."""
    broker, accumulator = numbering
    broker.error = TopicAuthorizationFailedError.errno
    failing = await add(accumulator, b"v")
    for _ in range(turns):
        await asyncio.sleep(0)
    other = await accumulator.add_batch(batch_of(b"v"), OTHER, 10.0)
    await asyncio.gather(failing, other, return_exceptions=True)
    assert isinstance(failing.exception(), TopicAuthorizationFailedError)
    broker.error = 0
    assert (await _send(accumulator)).offset == 40


async def test_of_events_none_is_sent_behind_one_that_failed(numbering: tuple[_CountingBroker, Any]) -> None:
    """The sender ends, and its process with it: readers would find the event behind those that follow it."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    assert (await _send(accumulator)).offset == 40
    broker.error = TopicAuthorizationFailedError.errno
    waiting = [await add(accumulator, b"v") for _ in range(3)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    broker.error = 0
    await asyncio.wait(waiting)
    assert all(one.exception() is not None for one in waiting)
    assert broker.taken == 1
    with pytest.raises(KafkaError):
        await _send(accumulator)


async def test_a_batch_that_found_no_leader_in_time_has_no_number(numbering: tuple[_CountingBroker, Any]) -> None:
    broker, accumulator = numbering
    assert (await _send(accumulator)).offset == 40
    broker.cluster.leader = -1
    with pytest.raises(KafkaTimeoutError):
        await _send(accumulator)
    broker.cluster.leader = 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40


async def test_a_numbered_batch_that_lost_its_leader_is_given_up_in_time(
    numbering: tuple[_CountingBroker, Any],
) -> None:
    """An order that nobody waits for any more must not be in the log hours later."""
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context.get("exception")))
    broker, accumulator = numbering
    broker.error = NotLeaderForPartitionError.errno
    lost = await add(accumulator, b"v")
    await _until(lambda: broker.refused > 0)
    broker.cluster.leader = -1
    await asyncio.wait([lost], timeout=10)
    assert isinstance(lost.exception(), RequestTimedOutError)
    broker.cluster.leader, broker.error = 0, 0
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40
    assert not any(isinstance(one, KeyError) for one in failures)
    assert not accumulator._pending_batches


@pytest.mark.parametrize("is_sent", [True, False])
async def test_batches_are_given_up_in_time_though_their_leader_is_known(
    numbering: tuple[_CountingBroker, Any], *, is_sent: bool
) -> None:
    """A broker that is away stays the leader of what has no other replica."""
    broker, accumulator = numbering
    broker.is_away, broker.loses_answers = not is_sent, is_sent
    waiting = [await add(accumulator, b"v") for _ in range(3)]
    await asyncio.wait(waiting, timeout=10)
    # One that was never sent has a number all the same, if that was tried.
    assert [type(one.exception()) for one in waiting] == [RequestTimedOutError, KafkaTimeoutError, KafkaTimeoutError]
    taken = broker.taken
    broker.is_away = broker.loses_answers = False
    for _ in range(3):
        assert (await _send(accumulator)).offset == 40
    assert broker.taken == taken + 3


async def test_batches_that_come_behind_one_that_is_given_up_are_sent(numbering: tuple[_CountingBroker, Any]) -> None:
    """With numbers of their own, though they wait when it is."""
    broker, accumulator = numbering
    broker.is_away = True
    lost = await add(accumulator, b"v")
    await asyncio.sleep(0.04)
    late = await add(accumulator, b"v")
    await asyncio.wait([lost], timeout=10)
    broker.is_away = False
    assert (await late).offset == 40


async def test_other_partitions_go_on_while_new_numbers_are_asked_for(
    numbering: tuple[_CountingBroker, Any],
) -> None:
    """The broker that is asked for them may be the one that has become silent."""
    broker, accumulator = numbering
    broker.names_producers.clear()
    broker.is_away = True
    lost = await add(accumulator, b"v")
    await asyncio.wait([lost], timeout=10)
    assert isinstance(lost.exception(), RequestTimedOutError)
    broker.is_away = False
    behind = await add(accumulator, b"v")
    for _ in range(3):
        other = await accumulator.add_batch(batch_of(b"v"), OTHER, 10.0)
        assert (await asyncio.wait_for(other, 10)).offset == 40
    assert not behind.done()
    broker.names_producers.set()
    assert (await behind).offset == 40
    assert broker.refused == 0


async def test_what_waits_for_new_numbers_is_given_up_in_time(numbering: tuple[_CountingBroker, Any]) -> None:
    """Whoever sent it has been told that it was not sent."""
    broker, accumulator = numbering
    broker.is_away = True
    waiting = [await add(accumulator, b"v")]
    broker.names_none = True
    await asyncio.wait(waiting, timeout=10)
    waiting.append(await add(accumulator, b"v"))
    await asyncio.wait(waiting, timeout=10)
    assert [type(one.exception()) for one in waiting] == [RequestTimedOutError, KafkaTimeoutError]
    broker.is_away = broker.names_none = False
    assert (await _send(accumulator)).offset == 40
    assert (broker.taken, broker.refused) == (1, 0)


async def test_a_sender_ends_while_new_numbers_are_asked_for(numbering: tuple[_CountingBroker, Any]) -> None:
    broker, accumulator = numbering
    broker.names_producers.clear()
    broker.error = TopicAuthorizationFailedError.errno
    with pytest.raises(TopicAuthorizationFailedError):
        await _send(accumulator)
    [sending] = [task for task in asyncio.all_tasks() if "_sender_routine" in repr(task)]
    sending.cancel()
    await asyncio.wait_for(asyncio.gather(sending, return_exceptions=True), 10)
    await _until(lambda: not any("_renew_numbers" in repr(task) for task in asyncio.all_tasks()))


async def test_a_leader_is_not_looked_for_without_a_pause(numbering: tuple[_CountingBroker, Any]) -> None:
    """Brokers answer at once."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    broker.cluster.leader = -1
    waiting = await add(accumulator, b"v")
    await asyncio.sleep(0.2)
    assert broker.looked_for_leaders in range(2, 22)
    broker.cluster.leader = 0
    assert (await waiting).offset == 40


async def test_events_wait_for_their_leader(numbering: tuple[_CountingBroker, Any]) -> None:
    """However long it is away; none is given up, so that none is sent before it."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    broker.cluster.leader = -1
    waiting = await add(accumulator, b"v")
    [[batch]] = accumulator._batches.values()
    await _until(lambda: batch._ttl > 1)
    assert not waiting.done()
    broker.cluster.leader = 0
    assert (await waiting).offset == 40


async def test_who_keeps_order_waits_for_room_however_long_it_takes(numbering: tuple[_CountingBroker, Any]) -> None:
    """And it is told of which partition nothing is taken: the worker is not one that stands still by itself."""
    broker, accumulator = numbering
    accumulator.keeps_order = True
    broker.cluster.leader = -1
    adding = [
        asyncio.create_task(add(accumulator, b"v", within_s=0.01)) for _ in range(2 * sender._BATCHES_WAITING_MAX)
    ]
    await asyncio.sleep(0.05)
    assert sum(one.done() for one in adding) == sender._BATCHES_WAITING_MAX
    broker.cluster.leader = 0
    assert {(await (await one)).offset for one in adding} == {40}


@pytest.mark.parametrize("holds_up", ["no leader", "refused", "not answered"])
async def test_it_is_told_of_which_partition_nothing_is_taken(
    numbering: tuple[_CountingBroker, Any], monkeypatch: pytest.MonkeyPatch, holds_up: str
) -> None:
    """So a worker that waits for it is not taken for one that stands still by itself."""
    monkeypatch.setattr(sender, "_HELD_UP_S", 0.02)
    broker, accumulator = numbering
    accumulator.keeps_order = True
    producer = EventProducer([], keeps_order=True)
    producer._producer = SimpleNamespace(_message_accumulator=accumulator)  # type: ignore[assignment]
    if holds_up == "no leader":
        broker.cluster.leader = -1
    elif holds_up == "refused":
        broker.error = NotLeaderForPartitionError.errno
    else:
        broker.answers.clear()
    waiting = await add(accumulator, b"v")
    assert producer.why_not_ready() is None
    await asyncio.sleep(0.05)
    assert "orders.exchange-3" in (producer.why_not_ready() or "")
    broker.cluster.leader = broker.error = 0
    broker.answers.set()
    assert (await waiting).offset == 40
    assert producer.why_not_ready() is None
